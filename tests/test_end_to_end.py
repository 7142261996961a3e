"""One tiny recipe from archives to a trained model, through the installed command, as a user would run it."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.documents import document_id
from pipeline.read.archives import read_records

ROOT = Path(__file__).parent.parent
RECIPE = {
    "name": "tiny",
    "sources": [{"name": "sample", "type": "warc", "paths": [str(ROOT / "data/sample.warc.gz")]}],
    "truth": str(ROOT / "data/labels.jsonl"),
    "tokenize": {"tokenizer": {"vocab_size": 1000}, "sequence_length": 64, "validation": 0.1},
    "train": {
        "preset": "tiny",
        "model": {"layers": 2, "width": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "ffn": 128},
        "steps": 30,
        "global_batch_tokens": 512,
        "micro_batch": 8,
        "precision": "fp32",
        "compile": False,
        "log_every": 1,
        "schedule": {"warmup": 5},
        "checkpoint": {"every": 10},
        "evaluation": {"every": 15},
        "prompts": ["The river"],
    },
}


def pretrain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "pretrain"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE), "utf-8")
    done = pretrain(folder, "run", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    (folder / "printed").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return folder / "runs/tiny"


def test_the_ledger_adds_up_from_the_archive_to_the_tokens(run: Path) -> None:
    records = sum(1 for _ in read_records(str(ROOT / "data/sample.warc.gz")))
    stats = [json.loads(path.read_text()) for path in sorted(run.glob("corpus/*/stats.json"))]
    stats.append(json.loads((run / "shards/stats.json").read_text()))
    assert stats[0]["documents_in"] == records
    for before, after in pairwise(stats):
        assert after["documents_in"] == before["documents_kept"]
    for entry in stats:
        assert entry["documents_in"] == entry["documents_kept"] + entry["documents_dropped"]
        assert entry["documents_dropped"] == sum(entry["dropped"].values())


def test_every_document_is_accounted_for_and_leads_back_to_its_record(run: Path) -> None:
    urls = {record.offset: record.url for record in read_records(str(ROOT / "data/sample.warc.gz"))}
    dropped = [
        row
        for path in sorted(run.glob("corpus/*/dropped/*.parquet"))
        for row in pq.read_table(path, columns=["id", "path", "offset", "url", "rule"]).to_pylist()
    ]
    kept = {row["id"]: row["url"] for row in pq.read_table(run / "shards/documents.parquet").to_pylist()}
    names = {document_id("sample/sample.warc.gz", offset): url for offset, url in urls.items()}
    assert {row["id"]: row["url"] for row in dropped} | kept == names
    assert all(row["rule"] for row in dropped)


def test_truth_is_scored(folder: Path, run: Path) -> None:
    from data.truth import score

    scores = score(run, ROOT / "data/labels.jsonl")
    assert set(scores) == {"extract", "language", "dedup", "quality"}
    assert all(entry["recall"] > 0.9 and entry["precision"] > 0.8 for entry in scores.values()), scores
    assert "precision" in (folder / "printed").read_text()


def test_streaming_reads_the_shards_and_every_token_has_its_document(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("streaming", exc_type=ImportError)
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory
    from tokenizers import Tokenizer

    clean_stale_shared_memory()
    samples = list(StreamingDataset(local=str(run / "shards/train/sample"), batch_size=1, shuffle=False))
    pieces = [
        row
        for row in pq.read_table(run / "shards/documents.parquet").to_pylist()
        if (row["split"], row["stream"]) == ("train", "sample")
    ]
    assert sum(int(sample["doc_lengths"].sum()) for sample in samples) == sum(row["tokens"] for row in pieces)
    for row in pieces:
        sample = samples[row["sample"]]
        place = int(np.searchsorted(np.cumsum(sample["doc_lengths"]), row["offset"], side="right"))
        assert sample["doc_ids"][place].tobytes().hex() == row["id"]
    texts = {
        row["id"]: row["text"]
        for path in run.glob("corpus/04-quality/data/*.parquet")
        for row in pq.read_table(path, columns=["id", "text"]).to_pylist()
    }
    tokenizer = Tokenizer.from_file(str(run / "shards/tokenizer.json"))
    first = pieces[0]
    ids = [
        token
        for row in pieces
        if row["id"] == first["id"]
        for token in samples[row["sample"]]["tokens"][row["offset"] : row["offset"] + row["tokens"]].tolist()
    ]
    assert tokenizer.decode(ids) == texts[first["id"]]


def test_the_loss_falls(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "train/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row and "validation" not in str(row.get("kind", ""))]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_a_second_run_does_nothing(folder: Path, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    again = pretrain(folder, "run", "tiny.yaml")
    assert again.returncode == 0, again.stderr
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before  # log.jsonl too, where every stage and step that runs leaves a line


def test_generate_continues_a_prompt(folder: Path) -> None:
    done = pretrain(folder, "generate", "runs/tiny", "--prompt", "The river", "--tokens", "8")
    assert done.returncode == 0, done.stderr
    assert "The river" in done.stdout


def test_a_misspelt_key_is_named_with_its_line(folder: Path) -> None:
    (folder / "bad.yaml").write_text("name: bad\nsources:\n- {name: a, type: warc, pahts: [x]}\n", "utf-8")
    done = pretrain(folder, "run", "bad.yaml")
    assert done.returncode == 2
    assert "bad.yaml:3" in done.stderr
    assert "pahts" in done.stderr
    assert "paths" in done.stderr
