"""Every kind of file source gives its documents with text, place and order."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Source
from pipeline.sources import RawDocument, list_inputs, plan_tasks, read_documents


def read(folder: Path, **fields: object) -> list[RawDocument]:
    source = Source.model_validate({"name": "s", **fields})
    return [document for item in list_inputs([source], folder) for document in read_documents(item, 1000)]


def test_folders_of_pages(tmp_path: Path) -> None:
    for name, text in {"b.html": "<p>b</p>", "a/a.htm": "<p>a</p>", "note.txt": "t", "read.md": "# m"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [document.body for document in read(tmp_path, type="html", paths=["."])] == [b"<p>a</p>", b"<p>b</p>"]
    assert [document.media_type for document in read(tmp_path, type="text", paths=["*"])] == ["text/plain"]
    assert [document.body for document in read(tmp_path, type="markdown", paths=["*.md"])] == [b"# m"]


def test_parquet_and_limit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["one", "two", "three"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    documents = read(tmp_path, type="parquet", paths=["*.parquet"], text_key="body", limit=2)
    assert [(document.text, document.offset, document.metadata) for document in documents] == [
        ("one", 0, {"n": 1}),
        ("two", 1, {"n": 2}),
    ]


def test_tasks_follow_from_names_and_sizes(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("x" * 10)
    source = Source(name="s", type="text", paths=["*.txt"])
    tasks = plan_tasks(list_inputs([source], tmp_path), 20)
    assert [[item.key for item in task] for task in tasks] == [
        ["s/0.txt", "s/1.txt"],
        ["s/2.txt", "s/3.txt"],
        ["s/4.txt", "s/5.txt"],
    ]
