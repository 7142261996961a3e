"""Every kind of file source gives its documents with text, place and order, whatever values its rows hold."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import PipelineError
from pipeline.config import ExtractConfig, Source
from pipeline.documents import BASE_SCHEMA
from pipeline.extract.stage import _Extraction
from pipeline.read import RawDocument, input_hashes, list_inputs, plan_tasks, read_documents


def read(folder: Path, **fields: object) -> list[RawDocument]:
    source = Source.model_validate({"name": "s", **fields})
    return [document for item in list_inputs([source], folder) for document in read_documents(item, 1000)]


def extract(folder: Path, **fields: object) -> list[dict]:
    """The rows that stage `extract` writes of a source's documents, with `rule` and `detail`."""
    source = Source.model_validate({"name": "s", **fields})
    extraction = _Extraction(ExtractConfig(), Counter(), None, {})
    rows = []
    for item in list_inputs([source], folder):
        for raw in read_documents(item, 100_000):
            row, verdict = extraction.extract(item, raw, None)
            rule = "unreadable" if raw.fault else verdict and verdict.rule
            rows.append(row | {"rule": rule, "detail": raw.fault})
    pa.Table.from_pylist(rows, schema=BASE_SCHEMA)  # can be stored
    return rows


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
    # How deep a value json reads depends on Python: 3.13 reads this one.
    assert "recursion" in found[5].fault if found[5].fault else found[5].text == "x"


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


def test_data_sets_on_disk_are_read_row_by_row(tmp_path: Path) -> None:
    """Names with signs of patterns, linked folders, splits by the library's rules, rows that are no JSON."""
    folder = tmp_path / "a [1]" / "set #2*"
    (folder / "data").mkdir(parents=True)
    (folder / "data/train-00000.jsonl").write_text('{"text": "one"}\n{broken\n\n{"text": "two", "n": 1}\n')
    (folder / "data/train-00001.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three", "n": {"x": []}}')[:-9])
    (folder / "data/train-00002.jsonl").write_text('{"text": "four"}\n')
    (folder / "data/test-00000.jsonl").write_text('{"text": "held out"}\n')
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/data").symlink_to(folder / "data")
    for path in ("a [1]/set #2*", "snapshot"):
        found = extract(tmp_path, type="hf", paths=[path])
        assert [(row["text"], row["offset"]) for row in found if not row["detail"]] == [
            ("one", 0), ("two", 3), *[("three", 4)] * (len(found) == 6), ("four", found[-1]["offset"]),
        ]  # fmt: skip
        assert found[-1]["url"] == f"file:s/{path}/data/train-00002.jsonl#0"
        broken = [(row["offset"], row["detail"]) for row in found if row["detail"]]
        assert broken[0][0] == 1
        assert broken[0][1].startswith("data/train-00000.jsonl: line 2 is not JSON")
        assert broken[1][0] == -2
        assert "data/train-00001.jsonl.gz: cannot read beyond line" in broken[1][1]
        assert [row["text"] for row in extract(tmp_path, type="hf", paths=[path], split="test")] == ["held out"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"source `s`: .*/empty is no data set: The directory at .*/empty doesn't"):
        read(tmp_path, type="hf", paths=["empty"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves the file open
def test_other_formats_of_data_sets_are_the_librarys(tmp_path: Path) -> None:
    (tmp_path / "set [1]").mkdir()
    (tmp_path / "set [1]/train.csv").write_text("text,n\none,1\ntwo,2\n")
    assert [(row.text, row.metadata) for row in read(tmp_path, type="hf", paths=["set [1]"])] == [
        ("one", {"n": 1}),
        ("two", {"n": 2}),
    ]


def test_a_linked_folder_of_a_data_set_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data").symlink_to(tmp_path / "store")
    source, hashes = Source(name="s", type="hf", paths=["set"]), []
    for text in ("one", "two"):
        (tmp_path / "store/train.jsonl").write_text(json.dumps({"text": text}))
        hashes.append(input_hashes(list_inputs([source], tmp_path), tmp_path / "cache.json"))
    assert hashes[0] != hashes[1]


def test_records_that_are_no_page_are_counted(tmp_path: Path) -> None:
    head = "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Target-URI: https://a.example/\r\nContent-Length: 4\r\n\r\nText\r\n\r\n"
    (tmp_path / "a.warc").write_text(
        "".join(map(head.format, ("request", "resource", "request", "revisit"))), newline=""
    )
    (item,) = list_inputs([Source(name="s", type="warc", paths=["a.warc"])], tmp_path)
    skipped: Counter[str] = Counter({"request": 1})
    assert [document.body for document in read_documents(item, 1000, skipped=skipped)] == [b"Text"]
    assert skipped == {"request": 3, "revisit": 1}


def test_json_values_that_python_or_utf8_cannot_hold(tmp_path: Path) -> None:
    lines = [b'{"text": "before"}', b'{"text": "long", "n": [' + b"9" * 5000 + b", -7, 1e999]}"]
    lines += [rb'{"text": "\ud800x", "title": "\udfff", "a": {"\udc00": ["\ud83d"]}, "url": "http://a/\ud800"}']
    lines += [
        b'{"text": "caf\xe9"}',
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": null}',
        b"[1]",
        b'{"text": "behind"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    rows = extract(tmp_path, type="jsonl", paths=["a.jsonl"])
    assert [row["rule"] for row in rows] == [None, None, None, *["unreadable"] * 4, None]
    assert [row["text"] for row in rows] == ["before", "long", "\ufffdx", "", "", "", "", "behind"]
    assert json.loads(rows[1]["metadata"])["n"][:2] == ["9" * 5000, "-7"]
    assert (rows[2]["url"], json.loads(rows[2]["metadata"])) == (
        "http://a/\ufffd", {"title": "\ufffd", "a": {"\ufffd": ["\ufffd"]}}
    )  # fmt: skip


def odd_columns() -> dict[str, pa.Array]:
    """Columns of three rows whose second value Python cannot hold."""
    far, early = 2**30, -(2**61)
    bad = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffb")]
    )
    return {
        "date": pa.array([0, far, 1], pa.int32()).cast(pa.date32()),
        "seconds": pa.array([0, early, 1], pa.int64()).cast(pa.timestamp("ms")),
        "zone": pa.array([0, 5, 1], pa.int64()).cast(pa.timestamp("us", "Nowhere/Land")),
        "duration": pa.array([0, 2**62, 1], pa.int64()).cast(pa.duration("s")),
        "nested": pa.array([[0], [far, 1], None], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
        "string": bad,
        "binary": pa.array([b"a", b"\xff", None]),
        "decimal": pa.array([1, None, 2]).cast(pa.decimal256(60, 2)),
        "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    }


@pytest.mark.parametrize("kind", ["parquet", "hf"])
@pytest.mark.parametrize("column", odd_columns())
def test_arrow_values_that_python_cannot_hold(tmp_path: Path, kind: str, column: str) -> None:
    (tmp_path / "set").mkdir()
    table = pa.table({"text": ["one", "two", "three"], column: odd_columns()[column]})
    pq.write_table(table, tmp_path / "set/train.parquet")
    rows = extract(tmp_path, type=kind, paths=["set" if kind == "hf" else "set/train.parquet"])
    assert [(row["text"], row["rule"]) for row in rows] == [("one", None), ("two", None), ("three", None)]
    assert all(column in json.loads(row["metadata"]) for row in rows)


def test_texts_stored_as_bytes(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(["é".encode(), b"\xff", None, b"four"])})
    pq.write_table(table, tmp_path / "a.parquet")
    bad = pa.table({"text": odd_columns()["string"]})
    pq.write_table(bad, tmp_path / "b.parquet")
    rows = extract(tmp_path, type="parquet", paths=["*.parquet"])
    assert [row["text"] for row in rows] == ["é", "", "", "four", "a", "", "b"]
    assert [row["rule"] for row in rows] == [None, "unreadable", "unreadable", None, None, "unreadable", None]
    assert "a value that is no UTF-8 text under `text`" in rows[1]["detail"]


HUGE = object()
SIGNS = st.text(st.characters(), max_size=9)  # lone surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | SIGNS | st.integers(-(10**30), 10**30) | st.just(HUGE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SIGNS, inner, max_size=3),
    max_leaves=9,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(["text", "url", "title", "x"]) | SIGNS, JSON, max_size=5), max_size=6)


def spelt(value: object) -> str:
    """JSON with integers of any length."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {spelt(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelt, value)) + "]"
    return "1" + "0" * 5000 if value is HUGE else json.dumps(value)


@given(ROWS, st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".JSONL.GZ"]))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_rows(tmp_path: Path, rows: list[dict], suffix: str) -> None:
    data = "".join(spelt(row) + "\n" for row in rows).encode()
    pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(suffix.lower().rpartition(".")[2], bytes)
    (tmp_path / f"a{suffix}").write_bytes(pack(data))
    found = extract(tmp_path, type="jsonl", paths=[f"a{suffix}"])
    assert [row["offset"] for row in found] == list(range(len(rows)))
    for row, made in zip(found, rows, strict=True):
        assert (row["rule"] == "unreadable") == (not isinstance(made.get("text"), str))


ARROW = [
    pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.binary(), pa.date32(), pa.date64(), pa.timestamp("ns"),
    pa.timestamp("us", "Europe/Berlin"), pa.time64("ns"), pa.duration("ms"), pa.list_(pa.date32()), pa.float16(),
    pa.struct([("a", pa.timestamp("us")), ("b", pa.binary())]), pa.large_string(), pa.month_day_nano_interval(),
]  # fmt: skip


@given(st.lists(st.sampled_from(ARROW), max_size=4), st.binary(min_size=64, max_size=64), st.integers(0, 3))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_arrow_values(tmp_path: Path, types: list[pa.DataType], noise: bytes, rows: int) -> None:
    """Columns whose fixed-size values are random bits."""
    columns = {"text": pa.array([f"text {number}" for number in range(rows)])}
    for number, kind in enumerate(types):
        bits = pa.py_buffer(noise)
        if pa.types.is_list(kind):
            column = pa.ListArray.from_arrays(list(range(rows + 1)), random_values(kind.value_type, rows, bits))
        elif pa.types.is_struct(kind):
            column = pa.StructArray.from_arrays([random_values(f.type, rows, bits) for f in kind], fields=list(kind))
        else:
            column = random_values(kind, rows, bits)
        columns[f"c{number}"] = column
    with pq.ParquetWriter(tmp_path / "a.parquet", (table := without_intervals(pa.table(columns))).schema) as file:
        file.write_table(table)
    found = extract(tmp_path, type="parquet", paths=["a.parquet"])
    assert [(row["text"], row["rule"]) for row in found] == [(f"text {number}", None) for number in range(rows)]


def random_values(kind: pa.DataType, rows: int, bits: pa.Buffer) -> pa.Array:
    if kind in (pa.string(), pa.binary(), pa.large_string()):
        offsets = pa.array(range(rows + 1), pa.int64() if kind == pa.large_string() else pa.int32()).buffers()[1]
        return pa.Array.from_buffers(kind, rows, [None, offsets, bits])
    return pa.Array.from_buffers(kind, rows, [None, bits])


def without_intervals(table: pa.Table) -> pa.Table:
    """Parquet has no intervals."""
    return table.select([name for name in table.column_names if table[name].type != pa.month_day_nano_interval()])


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_cut_off_files_are_told(tmp_path: Path, pack, frames: int, cut: float) -> None:
    rows = [json.dumps({"text": f"row {number} {os.urandom(300).hex()}"}).encode() + b"\n" for number in range(3000)]
    packed = [pack(b"".join(rows[start::frames])) for start in range(frames)]
    suffix = "gz" if pack is gzip.compress else "zst"
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(b"".join(packed)[: int(cut * len(b"".join(packed)))])
    found = read(tmp_path, type="jsonl", paths=[f"a.jsonl.{suffix}"])
    assert "end-of-stream marker" in str(found[-1].fault)
    whole = [document for document in found if document.fault is None]
    assert len(whole) >= cut * 3000 - 3000 / frames * (cut < 0.4) - 250  # one block of zstd is 128 KB
    assert len(found) - len(whole) <= 2  # and the line that is cut


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/1").write_text('{"text": "one"}')
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots/a.jsonl").symlink_to("../blobs/1")
    (tmp_path / "snapshots/b.jsonl").symlink_to(tmp_path / "snapshots/a.jsonl")
    (tmp_path / "linked").symlink_to("snapshots")
    for pattern in ("snapshots/*.jsonl", "snapshots", "linked", "linked/*", "**/*.jsonl", "l*/a.jsonl"):
        found = read(tmp_path, type="jsonl", paths=[pattern])
        assert {document.text for document in found} == {"one"}, pattern
    (tmp_path / "snapshots/c.jsonl").symlink_to("../blobs/2")
    with pytest.raises(PipelineError, match=r"source `s`: .*c.jsonl is a link to ../blobs/2, where there is no file"):
        read(tmp_path, type="jsonl", paths=["snapshots/*"])
    (tmp_path / "snapshots/c.jsonl").unlink()
    (tmp_path / "snapshots/d.jsonl").symlink_to("d.jsonl")
    with pytest.raises(PipelineError, match=r"d.jsonl is a link to d.jsonl"):
        read(tmp_path, type="jsonl", paths=["snapshots"])
    (tmp_path / "snapshots/d.jsonl").unlink()
    (tmp_path / "snapshots/up").symlink_to("..")
    with pytest.raises(PipelineError, match=r"up is a link to a folder that it lies in"):
        read(tmp_path, type="jsonl", paths=["snapshots"])


NAMES = [
    "data [2024]",
    "a*b",
    "what?",
    "100%",
    "#1",
    "two words",
    "größe",
    "x{1,2}",
    "a::b",
    "[!x]",
    "日本",
    "~",
    "$HOME",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_exist_are_taken_literally(tmp_path: Path, name: str) -> None:
    base = tmp_path / name
    (base / name).mkdir(parents=True)
    (base / "xaxbx").mkdir()  # what the wildcards would match
    (base / "xaxbx/wrong.jsonl").write_text('{"text": "wrong"}')
    (base / name / f"{name}.jsonl").write_text('{"text": "one"}')
    for pattern in (name, f"{name}/*.jsonl", f"{name}/{name}.jsonl", f"*/{name}.jsonl", str(base / name)):
        found = read(base, type="jsonl", paths=[pattern])
        assert [document.text for document in found] == ["one"], pattern
        assert found[0].url == f"file:s/{name}/{name}.jsonl#0" or found[0].url == f"file:s/{name}.jsonl#0"


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")).write_text('{"text": "one"}')
    (row,) = extract(tmp_path, type="jsonl", paths=["*.jsonl"])
    assert (row["text"], row["path"]) == ("one", r"s/caf\xe9.jsonl")


def test_suffixes_in_any_case_and_files_that_no_reader_takes(tmp_path: Path) -> None:
    for name in ("A.HTML", "b.htm", "c.XHtml", "notes.pdf", "README"):
        (tmp_path / name).write_text(f"<p>{name}</p>")
    (tmp_path / "X.JSONL.GZ").write_bytes(gzip.compress(b'{"text": "one"}'))
    assert [document.url for document in read(tmp_path, type="html", paths=["."])] == [
        "file:s/A.HTML", "file:s/b.htm", "file:s/c.XHtml"
    ]  # fmt: skip
    assert [document.text for document in read(tmp_path, type="jsonl", paths=["*.GZ"])] == ["one"]
    unread: list[str] = []
    list_inputs([Source(name="s", type="html", paths=["."])], tmp_path, unread)
    assert sorted(unread) == ["s/README", "s/X.JSONL.GZ", "s/notes.pdf"]
