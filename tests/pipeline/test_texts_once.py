"""Texts are written once and read back whole, whichever stages ran inside the tasks of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import PipelineError
from common.files import read_manifest
from pipeline.config import Source
from pipeline.documents import BASE_SCHEMA, TEXTS, document_id, parquet_file, read_batches, regroup
from pipeline.effort import SLICES, Effort
from pipeline.read import list_inputs, read_documents
from tests.conftest import PROSE
from tests.pipeline.test_build import build, hashes, inputs, recipe

MINE = """
import os

def calm(document):
    document["text"] = document["text"].replace("sourdough", "leaven")

def deadly(document):
    if "sourdough" in document["text"]:
        os._exit(1)
"""
STAGES = ["extract", "language", {"use": "mine.py:calm"}, "dedup", "quality", "tokenize"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    inputs(folder)
    (folder / "mine.py").write_text(MINE)
    build(folder, recipe(stages=STAGES, allow_code=True))
    return folder


def texts(path: Path) -> list[str | None]:
    return [text for file in sorted(path.glob("*.parquet")) for text in pq.read_table(file)["text"].to_pylist()]


def volumes(run: Path) -> dict[str, int]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {name: sum(entry[name] for entry in log) for name in ("text_read", "text_written")}


def test_only_the_first_and_the_last_stage_write_all_texts(built: Path) -> None:
    corpus = built / "run/corpus"
    assert all(texts(corpus / "01-extract/data"))
    assert not any(texts(corpus / "02-language/data"))
    assert 0 < sum(text is not None for text in texts(corpus / "03-calm/data")) < len(texts(corpus / "03-calm/data"))
    assert all(texts(corpus / "05-quality/data"))
    assert all(text for stage in corpus.iterdir() for text in texts(stage / "dropped") if stage.name[:2] != "01")
    assert any("leaven" in str(text) for text in texts(corpus / "05-quality/data"))


def test_readers_put_the_texts_back(built: Path) -> None:
    for stage in sorted((built / "run/corpus").iterdir()):
        for path in sorted((stage / "data").glob("*.parquet")):
            for table in read_batches(path):
                assert [len(str(text).encode()) for text in table["text"].to_pylist()] == table["bytes"].to_pylist()


def test_a_table_without_its_texts_is_no_source(built: Path) -> None:
    source = Source.model_validate({"name": "s", "type": "parquet", "paths": ["run/corpus/02-language/data/*.parquet"]})
    documents = [one for item in list_inputs([source], built) for one in read_documents(item, 10**6)]
    assert documents
    assert all("`--to STAGE`" in str(one.fault) for one in documents)


def test_a_run_reads_and_writes_little_more_than_the_text(built: Path) -> None:
    size = json.loads((built / "run/corpus/01-extract/stats.json").read_text())["bytes_in"]
    assert volumes(built / "run")["text_written"] <= 2.3 * size  # `calm` changes a third of these few texts
    assert volumes(built / "run")["text_read"] <= 4 * size


def test_stage_by_stage_gives_the_same_corpus(built: Path) -> None:
    config = recipe(stages=STAGES, allow_code=True)
    for stage in config.stage_names:
        assert build(built, config, run="apart", last=stage).ran == [stage]
    whole, apart = hashes(built), hashes(built, "apart")
    for folder in ("corpus/01-extract", "corpus/05-quality", "shards"):
        assert apart[f"{folder}/manifest.json"] == whole[f"{folder}/manifest.json"]
    marks = [read_manifest(built / run / "shards") or {} for run in ("run", "apart")]
    assert marks[0]["fingerprint"] == marks[1]["fingerprint"]
    assert all(texts(built / "apart/corpus/02-language/data"))


def test_a_stage_is_completed_on_demand_and_nothing_else_is_rebuilt(built: Path) -> None:
    config = recipe(stages=STAGES, allow_code=True)
    assert build(built, config, last="language").ran == ["language"]
    assert all(texts(built / "run/corpus/02-language/data"))
    assert build(built, config).ran == []


def test_a_crash_is_charged_to_the_stage_that_crashed(tmp_path: Path) -> None:
    rows = [json.dumps({"text": text, "id": name}) for name, text in PROSE.items()]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    (tmp_path / "mine.py").write_text(MINE)
    source = {"name": "rows", "type": "jsonl", "paths": ["rows.jsonl"], "id_key": "id"}
    config = recipe(
        sources=[source],
        stages=["extract", {"use": "mine.py:deadly"}],
        allow_code=True,
        executor={"workers": 2, "retries": 0, "max_failures": 1},
    )
    build(tmp_path, config)
    stats = [json.loads(path.read_text()) for path in sorted((tmp_path / "run/corpus").glob("*/stats.json"))]
    assert [stage["dropped"] for stage in stats] == [{}, {"crashed": 1}]
    assert "sourdough" in str(texts(tmp_path / "run/corpus/02-deadly/dropped"))


def table(numbers: range, *, with_text: bool = True) -> pa.Table:
    rows = [
        {"id": document_id("d", n), "text": f"text {n}" if with_text or n == 4 else None, "bytes": 6 + (n > 9)}
        for n in numbers
    ]
    return pa.Table.from_pylist(rows, schema=BASE_SCHEMA)


def test_texts_of_an_earlier_file_that_lacks_some_are_refused(tmp_path: Path) -> None:
    with parquet_file(tmp_path / "a.parquet", BASE_SCHEMA) as write:
        for start in range(0, 20, 5):
            write(table(range(start, start + 5)))
    left = BASE_SCHEMA.with_metadata({TEXTS: b"../a.parquet"})
    with parquet_file(tmp_path / "later/b.parquet", left) as write:
        write(table(range(3, 20, 2), with_text=False))
        write(table(range(20, 21), with_text=False))
    read = []
    first = next(read_batches(tmp_path / "later/b.parquet", ["text"], rows=3, count=read.append))
    assert first.to_pydict() == {"text": ["text 3", "text 5", "text 7"]}
    assert sum(read) == 10 * 6  # two row groups of the earlier file
    with pytest.raises(PipelineError, match=r"a\.parquet: lacks texts"):
        list(read_batches(tmp_path / "later/b.parquet"))


def test_regrouped_tables_hold_the_same_rows() -> None:
    parts = [table(range(start, start + 3)) for start in range(0, 12, 3)]
    whole = [one.num_rows for one in regroup(parts, rows=7)]
    assert whole == [6, 6]
    assert pa.concat_tables(regroup(parts, rows=7)).equals(pa.concat_tables(parts).combine_chunks())


def test_busy_workers_are_averaged_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = Effort(started=100.0)
    receipt: dict[str, Any] = {"effort": {"seconds": 4.0, "text_read": 1, "text_written": 2}}
    for start in (90.0, 100.0):  # the first began before the stage did
        effort.add(receipt | {"worked": [start, 20.0]})
    effort.add(receipt)  # ran inside another stage's task
    monkeypatch.setattr("pipeline.effort.time.time", lambda: 140.0)
    fields = effort.fields()
    assert fields["busy"] == [2.0] * (SLICES // 4) + [1.0] * (SLICES // 4) + [0.0] * (SLICES // 2)
    assert (fields["core_seconds"], fields["text_read"], fields["first_task"]) == (12.0, 3, 100.0)
