"""Every kind of file source gives its documents with text, place and order."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import PipelineError
from pipeline.config import Source
from pipeline.read import RawDocument, input_hashes, list_inputs, plan_tasks, read_documents


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


def test_rows_of_any_size_and_depth_are_recorded_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = ['{"text": "before"}', '{"text": "' + "a" * 10_000_000 + '"}', '{"text": "' + "b" * 2000 + '"}']
    rows += ['{"text": "deep", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"text": "' + "[" * 3000 + '"}']
    rows += ['{"text": "x", "y": ' + "[" * 2900 + "]" * 2900 + "}", '{"text": "behind"}']
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n".join(rows))
    found = read(tmp_path, type="jsonl", paths=["*.gz"])
    assert [document.offset for document in found] == list(range(7))
    assert [document.truncated for document in found] == [False, True, True, True, True, False, False]
    assert all(len(document.body) == 1000 for document in found if document.truncated)
    assert (found[0].text, found[6].text) == ("before", "behind")
    assert found[5].fault
    assert "recursion" in found[5].fault


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("foo://bucket/*.gz", "Protocol not known: foo"),
        ("https://127.0.0.1:9/a.gz", "cannot look into https://127.0.0.1:9/a.gz"),
        pytest.param(
            "gs://bucket/*.gz",
            "pip install gcsfs",
            marks=pytest.mark.skipif(bool(find_spec("gcsfs")), reason="gcsfs is there"),
        ),
        pytest.param(
            "az://box/*.gz",
            "pip install adlfs",
            marks=pytest.mark.skipif(bool(find_spec("adlfs")), reason="adlfs is there"),
        ),
    ],
)
def test_an_address_that_cannot_be_looked_into_is_named(tmp_path: Path, address: str, found: str) -> None:
    with pytest.raises(PipelineError, match=f"source `s`.*{found}"):
        list_inputs([Source(name="s", type="warc", paths=[address])], tmp_path)


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


def test_sample_is_a_share_that_grows(tmp_path: Path) -> None:
    rows = "\n".join(json.dumps({"text": f"text {i}"}) for i in range(1000))
    (tmp_path / "rows.jsonl").write_text(rows)
    shares = {share: read(tmp_path, type="jsonl", paths=["rows.jsonl"], sample=share) for share in (0.1, 0.3, 1.0)}
    places = {share: {document.offset for document in found} for share, found in shares.items()}
    assert places[0.1] < places[0.3] < places[1.0]
    assert 60 <= len(places[0.1]) <= 140
    assert read(tmp_path, type="jsonl", paths=["rows.jsonl"], sample=0.1, limit=5) == shares[0.1][:5]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "hf"])
def test_columns_are_mapped(tmp_path: Path, kind: str) -> None:
    rows = [{"body": "one", "link": "https://a.example/1", "n": 1, "junk": "x"},
            {"body": "two", "link": "https://a.example/2", "n": 2, "junk": "y"}]  # fmt: skip
    name = {"parquet": "a.parquet", "jsonl": "a.jsonl", "hf": "set/train.jsonl"}[kind]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    fields = {"text_key": "body", "url_key": "link", "columns": ["n"]}
    documents = read(tmp_path, type=kind, paths=["set" if kind == "hf" else name], **fields)
    assert [(d.text, d.url, d.metadata) for d in documents] == [
        ("one", "https://a.example/1", {"n": 1}),
        ("two", "https://a.example/2", {"n": 2}),
    ]


def test_dataset_folder_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.jsonl").write_text('{"text": "one"}')
    source = Source(name="s", type="hf", paths=["set"])
    before = input_hashes(list_inputs([source], tmp_path), tmp_path / "cache.json")
    (tmp_path / "set/train.jsonl").write_text('{"text": "two"}')
    assert input_hashes(list_inputs([source], tmp_path), tmp_path / "cache.json") != before


def test_records_that_are_no_page_are_counted(tmp_path: Path) -> None:
    head = "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Target-URI: https://a.example/\r\nContent-Length: 4\r\n\r\nText\r\n\r\n"
    (tmp_path / "a.warc").write_text(
        "".join(map(head.format, ("request", "resource", "request", "revisit"))), newline=""
    )
    (item,) = list_inputs([Source(name="s", type="warc", paths=["a.warc"])], tmp_path)
    skipped: Counter[str] = Counter({"request": 1})
    assert [document.body for document in read_documents(item, 1000, skipped=skipped)] == [b"Text"]
    assert skipped == {"request": 3, "revisit": 1}
