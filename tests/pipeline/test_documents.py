"""Batches of documents are bounded in rows and in bytes, whatever the sizes of documents and row groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import documents
from pipeline.documents import BASE_SCHEMA, document_id, parquet_file, read_batches
from tests.pipeline.test_build import build, recipe


def rows(count: int, size: int = 1) -> list[dict[str, object]]:
    return [
        {"text": f"{number:05d}" * size, "id": document_id("d", number), "offset": number} for number in range(count)
    ]


def write(path: Path, groups: list[list[dict[str, object]]]) -> Path:
    with parquet_file(path, BASE_SCHEMA) as append:
        for group in groups:
            append(pa.Table.from_pylist(group, schema=BASE_SCHEMA))
    return path


def test_small_row_groups_are_read_together_and_in_order(tmp_path: Path) -> None:
    every = rows(2600)
    path = write(tmp_path / "small.parquet", [every[at : at + 260] for at in range(0, 2600, 260)])
    batches = list(read_batches(path, ["offset"]))
    assert [batch.num_rows for batch in batches] == [780, 780, 780, 260]
    assert [row for batch in batches for row in batch["offset"].to_pylist()] == list(range(2600))
    assert [batch.num_rows for batch in read_batches(write(tmp_path / "large.parquet", [every]))] == [1000, 1000, 600]


def test_a_batch_of_long_documents_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long").mkdir()
    for number in range(6):
        (tmp_path / f"long/{number}.txt").write_text(f"{number} " * 4000)
    source = {"name": "long", "type": "text", "paths": ["long/*.txt"]}
    settings = recipe(sources=[source], stages=["extract"], extract={"task_bytes": 10**6})
    build(tmp_path, settings, run="whole")
    monkeypatch.setattr(documents, "BATCH_BYTES", 20_000)
    monkeypatch.setattr("pipeline.extract.stage.BATCH_BYTES", 20_000)
    build(tmp_path, settings, run="cut")
    (whole,), (cut,) = (sorted((tmp_path / name).glob("corpus/*/data/*.parquet")) for name in ("whole", "cut"))
    assert [len(batch) for batch in read_batches(cut)] == [3, 3]
    assert [len(batch) for batch in read_batches(whole)] == [6]
    assert pq.read_table(cut).equals(pq.read_table(whole))
    assert pq.read_metadata(cut).num_row_groups > pq.read_metadata(whole).num_row_groups
