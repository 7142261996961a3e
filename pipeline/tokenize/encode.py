"""Passes 1 and 2 of stage `tokenize`: the tokenizer, and documents as token ids, sorted into buckets.

A document's split, stream and bucket follow from hashes of its id, so that they do not depend on tasks. The
validation split is drawn by duplicate cluster: no near-duplicate of a held-out document is trained on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import TokenizeConfig
from pipeline.documents import read_batches, read_rows, text_bytes
from pipeline.stage import Build
from pipeline.step import CorpusStep, Heartbeat, TaskReport, add_counts, count_documents
from pipeline.storage import atomic_file
from pipeline.tokenizer import Encoder, load, train

ENCODED = pa.schema(
    [
        ("key", pa.uint64()),  # place in the global shuffle
        ("id", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("bytes", pa.int64()),
        ("tokens", pa.binary()),
    ]
)


def draw(seed: int, purpose: str, name: str) -> int:
    """A uniform 64-bit number that is a function of its arguments alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{purpose}\0{name}".encode(), digest_size=8).digest(), "little")


class TokenizerStep(CorpusStep):
    """Trains the tokenizer on a sample of the documents drawn by their ids, or copies the given one."""

    def __init__(self, build: Build) -> None:
        super().__init__("tokenizer", build.workdir, 1)
        self.inputs, self.seed, self.base = build.inputs, build.seed, build.base
        self.settings = build.settings.tokenizer

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        if self.settings.path:
            tokenizer = load(self.base / self.settings.path)
        else:
            tokenizer = train(self._sample(heartbeat), self.settings.vocab_size, self.settings.pattern)
        encoder = Encoder(tokenizer)
        paths = [self.workdir / "tokenizer.json", self.workdir / "token_bytes.npy"]
        with atomic_file(paths[0]) as file:
            file.write(tokenizer.to_str(pretty=False).encode())
        with atomic_file(paths[1]) as file:
            np.save(file, encoder.token_bytes())
        heartbeat.beat(0, 0, 1.0)
        return TaskReport(files=paths)

    def _sample(self, heartbeat: Heartbeat) -> Iterator[str]:
        total = sum(text_bytes(table) for path in self.inputs for table in read_batches(path, ["text"]))
        bar = min(self.settings.sample_bytes / max(total, 1), 1.0) * 2**64
        for number, path in enumerate(self.inputs):
            for table in read_batches(path, ["id", "text"]):
                for name, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
                    if draw(self.seed, "tokenizer", name) < bar:
                        yield text
            heartbeat.beat(0, 0, 0.5 * (number + 1) / len(self.inputs))


class EncodeStep(CorpusStep):
    """Encodes each input file and files its documents by (split, stream, bucket)."""

    def __init__(self, build: Build) -> None:
        super().__init__("encode", build.workdir, len(build.inputs))
        self.inputs, self.seed = build.inputs, build.seed
        self.settings: TokenizeConfig = build.settings
        size = sum(text_bytes(table) for path in self.inputs for table in read_batches(path, ["text"]))
        self.buckets = max(-(-size // self.settings.bucket_bytes), 1)

    def weight(self, rank: int) -> float:
        return float(self.inputs[rank].stat().st_size)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        encoder = Encoder(self.workdir / "tokenizer.json")
        total, seen = max(read_rows(self.inputs[rank]), 1), 0
        report = TaskReport()
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for table in read_batches(self.inputs[rank]):
            for row in self._encode(encoder, table):
                groups[row.pop("group")].append(row)
            add_counts(report.counts, count_documents("in", table))
            add_counts(report.counts, count_documents("kept", table))
            seen += table.num_rows
            heartbeat.beat(table.num_rows, text_bytes(table), seen / total)
        for group, rows in sorted(groups.items()):
            path = self.workdir / f".scratch/encoded/{group}/{rank:05d}.parquet"
            with atomic_file(path) as file:
                pq.write_table(pa.Table.from_pylist(rows, schema=ENCODED), file, compression="zstd")
            report.files.append(path)
        return report

    def _encode(self, encoder: Encoder, table: pa.Table) -> Iterator[dict[str, Any]]:
        columns = ["id", "url", "source", "text", "language", "cluster"]
        rows = table.select([name for name in columns if name in table.column_names]).to_pylist()
        for row, ids in zip(rows, encoder.encode_batch([row["text"] for row in rows]), strict=True):
            key = draw(self.seed, "shuffle", row["id"])
            held_out = draw(self.seed, "validation", row.get("cluster") or row["id"])
            split = "validation" if held_out < self.settings.validation * 2**64 else "train"
            language = row.get("language") or "und"
            stream = {
                "source": row["source"],
                "language": language,
                "source-language": f"{row['source']}-{language}",
            }[self.settings.stream_by]
            yield {
                "group": f"{split}/{stream}/{key * self.buckets >> 64:05d}",
                "key": key,
                "id": row["id"],
                "url": row["url"],
                "source": row["source"],
                "language": language,
                "bytes": len(row["text"].encode()),
                "tokens": np.append(ids, encoder.dtype.type(encoder.eos_id)).tobytes(),
            }


def list_groups(workdir: Path) -> list[str]:
    """Every `<split>/<stream>/<bucket>` that has documents, sorted."""
    root = workdir / ".scratch/encoded"
    return sorted({str(path.parent.relative_to(root)) for path in root.glob("*/*/*/*.parquet")})
