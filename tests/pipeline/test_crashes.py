"""Documents that kill or fail the process which works on them: retried, found, refused or dropped, always the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import PipelineError
from common.observe import Observer
from pipeline.build import StageRun
from pipeline.config import ExecutorConfig
from pipeline.documents import BASE_SCHEMA, document_id
from pipeline.executors import Executor, LocalPool
from pipeline.stage import Build, Stage
from pipeline.task import Pass
from tests.conftest import write_warc
from tests.pipeline.killing_passes import KillPass, NamePass
from tests.pipeline.test_build import build, inputs, recipe, rows

# resiliparse needs some 40 times a page of this kind and fails where it cannot have them; other pages are far below.
HUNGRY = b"<html><body>" + b"<i>a</i>" * 500_000
LIMIT = {"memory_gb": 0.1, "retries": 0}
RESILIPARSE = {"extract": {"task_bytes": 1, "extractor": "resiliparse", "max_bytes": 40_000_000}}
SMALL = RESILIPARSE | {"stages": ["extract"]}


def passes(build: Build) -> Iterator[Pass]:
    """A stage of two passes, the second of which meets the documents."""
    if "second" in build.fingerprint:
        yield NamePass("name", build.workdir, 1)
    yield KillPass("kill", build.workdir, build.inputs)


def build_of(folder: Path, name: str, fingerprint: str = "first") -> Build:
    """Three files of documents, two of which kill and one of which fails."""
    files = []
    for number, texts in enumerate([["a", "kill", "b"], ["c"], ["fail", "d", "kill"]]):
        files.append(folder / f"before/data/{number:05d}.parquet")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        table = [
            {"text": text, "id": document_id(f"f{number}", row), "source": "s", "path": f"f{number}", "offset": row}
            for row, text in enumerate(texts)
        ]
        pq.write_table(pa.Table.from_pylist(table, schema=BASE_SCHEMA), files[-1])
    work = folder / name
    work.mkdir(parents=True)
    return Build(None, (), 1, folder, tuple(files), work, fingerprint)


def run(build: Build, workers: int, **settings: Any) -> dict[str, Any]:
    stage: Stage[Any] = Stage("killing", __name__, (), passes)
    with LocalPool(workers) as pool:
        executor = Executor(ExecutorConfig(**settings), pool)
        return StageRun(stage, build, None, executor, build.workdir.parent, Observer()).run_passes()[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def test_documents_that_kill_are_dropped_one_by_one_whoever_runs_them(tmp_path: Path) -> None:
    one = build_of(tmp_path, "one")
    counts = run(one, 1, max_failures=3, retries=0)
    assert counts["documents_in"] == 7
    assert counts["documents_kept"] == 4
    assert counts["dropped"] == {"crashed": 3}
    dropped = pq.read_table(one.workdir / "dropped/crashed.parquet").to_pylist()
    assert [(row["text"], row["rule"], row["path"]) for row in dropped] == [
        ("kill", "crashed", "f0"),
        ("fail", "crashed", "f2"),
        ("kill", "crashed", "f2"),
    ]
    kept = [row["text"] for path in sorted(one.workdir.glob("data/*")) for row in pq.read_table(path).to_pylist()]
    assert kept == ["a", "b", "c", "d"]
    two = build_of(tmp_path, "two", "second")
    run(two, 2, max_failures=5, retries=0)
    assert contents(two.workdir) == contents(one.workdir)


def test_one_more_than_allowed_is_named_and_finished_tasks_are_kept(tmp_path: Path) -> None:
    build = build_of(tmp_path, "work")
    with pytest.raises(PipelineError, match=r"f0 at offset 1.*its process died.*max_failures=2"):
        run(build, 2, retries=0)
    assert (build.workdir / ".receipts/kill-00001.json").is_file()
    with pytest.raises(PipelineError, match=r"max_failures=3.*now: 2 per stage"):
        run(build, 2, retries=0, max_failures=2)
    assert run(build, 2, retries=0, max_failures=3)["dropped"] == {"crashed": 3}
    # With fewer allowed than were dropped, the stage is built anew, and refused again.
    with pytest.raises(PipelineError, match="f0 at offset 1"):
        run(build, 2, retries=0)


def test_a_page_that_wants_too_much_memory_is_dropped_with_its_reason(tmp_path: Path) -> None:
    inputs(tmp_path)
    write_warc(tmp_path / "web/e.warc.gz", {"https://e.example/hungry": HUNGRY})
    with pytest.raises(PipelineError, match=r"web/e\.warc\.gz at offset 0.*max_failures=1"):
        build(tmp_path, recipe(workers=1, executor=LIMIT, **SMALL))
    for run_name, workers in (("run", 1), ("other", 2)):
        build(tmp_path, recipe(executor=LIMIT | {"workers": workers, "max_failures": 1}, **SMALL), run=run_name)
    found = [row for row in rows(tmp_path, "extract", "dropped") if row["path"] == "web/e.warc.gz"]
    assert [(row["rule"], row["url"], row["text"]) for row in found] == [("crashed", "https://e.example/hungry", "")]
    first, second = (
        json.loads((tmp_path / name / "corpus/01-extract/manifest.json").read_text()) for name in ("run", "other")
    )
    assert first["files"] == second["files"]
    # Without a limit it is a page like others.
    build(tmp_path, recipe(**SMALL), run="free")
    free = json.loads((tmp_path / "free/corpus/01-extract/stats.json").read_text())
    assert "crashed" not in free["dropped"]
