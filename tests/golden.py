"""Hashes of everything that a small run of the sample corpus writes, to hold a change of the code against.

`python -m tests.golden RUN` prints them for a finished run of tests/golden.yaml. The first were recorded at commit
8618134; CHANGELOG.md says what has changed bytes since: columns (`charset_from`, `bytes`, `page_kind`,
`extract_confidence`), the extractor's model and with it texts and shards, learning rates and with them weights.
Tables are hashed by their values, with the texts that they leave to an earlier stage, not by parquet's bytes, which
follow pyarrow's version. Weights are exact on one kind of processor only; losses hold on all to four digits.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.documents import read_batches
from trainer.machine import processor


def digests(run: Path) -> dict[str, Any]:
    """{corpus: {file: hash}, shards: {file: hash}, losses: [...], weights: hash, machine: ...} of a finished run."""
    shards = sorted(path for path in (run / "shards").rglob("*") if path.suffix in (".zstd", ".mds"))
    tables = sorted([*(run / "corpus").glob("*/*/*.parquet"), *(run / "shards").glob("*.parquet")])
    rows = [json.loads(line) for line in (run / "train/metrics.jsonl").read_text("utf-8").splitlines()]
    weights = sorted((run / "train/checkpoints").glob("step-*"))[-1] / "model.safetensors"
    return {
        "corpus": {str(path.relative_to(run)): _table(path) for path in tables},
        "shards": {str(path.relative_to(run)): _file(path) for path in [*shards, run / "shards/tokenizer.json"]},
        "losses": [row["loss"] for row in rows if "loss" in row],
        "weights": _file(weights),
        "machine": f"torch {torch.__version__.partition('+')[0]}, {processor()}",
    }


def _file(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _table(path: Path) -> str:
    batches = list(read_batches(path)) if path.parent.name in ("data", "dropped") else []
    table = pa.concat_tables(batches) if batches else pq.read_table(path)
    rows = json.dumps([table.column_names, table.to_pylist()], ensure_ascii=False, default=bytes.hex)
    return hashlib.blake2b(rows.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


if __name__ == "__main__":
    print(json.dumps(digests(Path(sys.argv[1])), indent=1))
