"""A run folder in object storage: the local bytes, killed controllers, half an upload, two controllers, commands."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.commands import app
from common.errors import PipelineError, PretrainError
from common.files import describe, list_files, write_json
from pipeline import build as building
from pipeline import depot as module
from pipeline.build import build_corpus
from pipeline.config import ExecutorConfig
from pipeline.depot import Depot
from pipeline.documents import BASE_SCHEMA, read_rows, read_schema
from pipeline.executors import Executor, LocalPool, Unfinished
from pipeline.forgotten import NOTHING
from pipeline.language.identify import find_model
from pipeline.task import Pass, Task, TaskReport
from recipes.load import load_recipe
from tests.pipeline.killing_passes import KillPass
from tests.pipeline.test_build import Recorder, build, hashes, inputs, recipe
from tests.scale import storage

# Every kind of pass: domains counted, lines and passages cut, a share kept by score.
EVERYTHING: dict[str, Any] = {
    "extract": {"task_bytes": 1, "domain_limit": 3},
    "dedup": {"verify": 0.9, "line_documents": 2, "substrings": {"min_bytes": 100}},
    "quality": {"models": {"english": {"path": str(find_model()), "label": "en", "keep": 0.8}}},
    # None is held out: with three documents or fewer, all of them might be.
    "tokenize": {"tokenizer": {"vocab_size": 400}, "sequence_length": 64, "validation": 0.0},
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    with storage.bucket() as files:
        yield files


@pytest.fixture(scope="module")
def local(bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus in a local run folder."""
    folder = tmp_path_factory.mktemp("local")
    inputs(folder)
    storage.upload_inputs(bucket, folder)
    build(folder, recipe(**EVERYTHING))
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's own folders: the working folder, and in it the one for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(module.tempfile, "tempdir", None)
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def depot(bucket: Any, machine: Path, request: pytest.FixtureRequest) -> Depot:
    """An empty one."""
    (machine / "run").mkdir()
    return Depot(f"s3://bucket/{request.node.name}", Path("run"))


@pytest.fixture(scope="module")
def replaced(bucket: Any, local: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """What the second of two controllers does, each on its own machine; the first was killed in the third stage."""
    first, second = (
        storage.write_recipe(tmp_path_factory.mktemp("machine") / "killed.yaml", recipe(workers=2, **EVERYTHING))
        for _ in range(2)
    )
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        patch.setattr(module.tempfile, "tempdir", None)
        process = storage.command(first)
        while not bucket.glob("bucket/runs/killed/corpus/.03-dedup.*/.receipts/signatures-*"):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # its workers are gone, too
        patch.chdir(second.parent)
        loaded = load_recipe(second)
        depot = Depot(loaded.address, Path("run"))
        build_corpus(loaded.recipe, depot.run, second.parent, observer=recorder, depot=depot)
    return recorder


def test_a_killed_controller_is_replaced_and_the_bytes_are_those_of_a_local_run(
    bucket: Any, local: Path, replaced: Recorder, tmp_path: Path
) -> None:
    assert (replaced.skipped, replaced.ran) == (["extract", "language"], ["dedup", "quality", "tokenize"])
    log = [json.loads(line) for line in bucket.cat("bucket/runs/killed/log.jsonl").splitlines()]
    assert [row["stage"] for row in log] == ["extract", "language", "dedup", "quality", "tokenize"]
    assert storage.published(bucket, "killed", tmp_path / "fetched") == hashes(local)


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments])


def test_commands_take_the_address(replaced: Recorder, machine: Path) -> None:
    address = "s3://bucket/runs/killed"
    status = json.loads(call("status", address, "--json").stdout)
    assert (status["run"], status["state"], status["process"]) == (address, "finished", None)
    page = Path(json.loads(call("report", address, "--json").stdout)["report"])
    assert "killed" in page.read_text()
    assert not list(machine.glob("runs/**/*.mds*"))
    assert "near_duplicate" in call("inspect", address, "--stage", "dedup", "--dropped").stdout


def test_documents_are_taken_out_as_of_a_local_run(bucket: Any, local: Path, machine: Path) -> None:
    url, address = "https://a.example/fox", "s3://bucket/runs/forgetful"
    small = recipe(stages=["extract", "dedup", "tokenize"], tokenize=EVERYTHING["tokenize"])
    built = call("corpus", str(storage.write_recipe(machine / "forgetful.yaml", small)))
    assert built.exit_code == 0, built.output
    assert call("forget", address + "/", "--url", url, "--apply").exit_code == 2  # another spelling, another copy
    plan = json.loads(call("forget", address, "--url", url, "--plan", "--json").stdout)
    taken = call("forget", address, "--url", url, "--apply", "--json")
    assert json.loads(taken.stdout)["applied"]["forgotten"] == plan["plan"]["documents"] > 1
    (local / "forgetful").mkdir()
    NOTHING.with_more([row["id"] for row in plan["documents"]], [url]).write(local / "forgetful")
    build(local, small, run="forgetful")
    assert storage.published(bucket, "forgetful", machine / "fetched") == hashes(local, "forgetful")
    assert "taken out before" in call("forget", address, "--url", url).output


class Counting(Pass):
    """Writes a file a task, and notes outside of the run that it ran; task 2 fails while `broken` is there."""

    def __init__(self, workdir: Path, outside: Path) -> None:
        super().__init__("counting", workdir, 4)
        self.outside = outside

    def process(self, rank: int, task: Task) -> TaskReport:
        assert not Path("broken").exists(), "a task works in the controller's folder"
        with (self.outside / "ran").open("a") as ran:
            ran.write(f"{rank}\n")
        path = self.workdir / f"data/{rank}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"task {rank}")
        if rank == 2 and (self.outside / "broken").exists():
            raise PipelineError("broken")
        return TaskReport(files=[path])


def test_finished_tasks_are_kept_and_half_an_upload_is_not_trusted(bucket: Any, depot: Depot, machine: Path) -> None:
    pass_ = Counting(depot.run / "corpus/.01-counting.x", machine)
    (machine / "broken").touch()
    with LocalPool(2) as pool:
        executor = Executor(ExecutorConfig(retries=0), pool, depot)
        executor.run(pass_, [0, 1, 3], depot.run / "logs")
        with pytest.raises(PipelineError, match=r"^broken$"):
            executor.run(pass_, [2], depot.run / "logs")
        assert b"PipelineError" in bucket.cat(f"bucket/{depot.address[12:]}/logs/attempt-0/task-00002.txt")
        (machine / "broken").unlink()
        # A task that died while it stored its files: one is another's, one has no receipt at all.
        for name in ("2.txt", "9.txt"):
            bucket.pipe_file(depot.key(pass_.workdir / "data" / name), b"half")
        depot.begin([])
        depot.sync(pass_.workdir)
        assert pass_.unfinished(verify=False) == [2]
        executor.run(pass_, [2], depot.run / "logs")
    assert sorted((machine / "ran").read_text().split()) == ["0", "1", "2", "2", "3"]
    depot.publish(pass_.workdir, depot.run / "corpus/01-counting", {})
    names = [f"data/{rank}.txt" for rank in range(4)]
    assert [str(path.relative_to(depot.run / "corpus")) for path in depot.names(depot.run / "corpus")] == [
        f"01-counting/{name}" for name in [*names, "manifest.json"]
    ]
    assert bucket.cat(depot.key(depot.run / "corpus/01-counting/data/2.txt")) == b"task 2"


class Reading(Pass):
    """Reads what `Counting` wrote."""

    def __init__(self, workdir: Path, name: str) -> None:
        super().__init__("reading", workdir, 1)
        self.file = name

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.workdir / self.file]

    def process(self, rank: int, task: Task) -> TaskReport:
        return TaskReport({"read": len(list(self.workdir.glob(self.file)))})


def test_a_task_finds_what_it_reads_and_refuses_what_changed(bucket: Any, depot: Depot, machine: Path) -> None:
    workdir = depot.run / "corpus/.01-counting.x"
    with LocalPool(2) as pool:
        executor = Executor(ExecutorConfig(retries=0), pool, depot)
        executor.run(Counting(workdir, machine), [0, 1, 2, 3], depot.run / "logs")
        shutil.rmtree(module.scratch_folder())  # as on another machine
        executor.run(reading := Reading(workdir, "data/*.txt"), [0], depot.run / "logs")
        assert reading.total("counts") == {"read": 4}
        with pytest.raises(PipelineError, match=r"data/7.txt: no finished task wrote this file"):
            executor.run(Reading(workdir, "data/7.txt"), [0], depot.run / "logs")
        bucket.pipe_file(depot.key(workdir / "data/1.txt"), b"task 7")
        with pytest.raises(PipelineError, match=r"data/1.txt: the file was changed"):
            executor.run(Reading(workdir, "data/1.txt"), [0], depot.run / "logs")


class Apart(LocalPool):
    """Runs each task as on a machine of its own."""

    def run(self, tasks: Unfinished, *, apart: bool) -> None:
        for rank in range(len(tasks.ranks)):
            shutil.rmtree(module.scratch_folder())
            tasks.run(rank=rank)


def test_each_task_brings_all_that_it_reads(
    bucket: Any, local: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = {"name": "web", "type": "warc", "paths": ["web/b.warc.gz"]}
    build(local, recipe(stages=["extract", "dedup"], sources=[copy], dedup={"verify_by": "exact"}), run="earlier")
    earlier = {"against": [str(local / "earlier")], "verify_by": "exact"}
    changes = EVERYTHING | {"dedup": EVERYTHING["dedup"] | earlier}
    build(local, recipe(**changes), run="apart")
    loaded = load_recipe(storage.write_recipe(machine / "apart.yaml", recipe(**changes)))
    monkeypatch.setattr(building, "LocalPool", Apart)
    build_corpus(loaded.recipe, Path("run"), machine, depot=Depot(loaded.address, Path("run")))
    assert storage.published(bucket, "apart", machine / "fetched") == hashes(local, "apart")


def test_a_document_that_kills_its_task_is_found(depot: Depot) -> None:
    stage = depot.run / "corpus/01-before"
    (stage / "data").mkdir(parents=True)
    files = [stage / f"data/{number:05d}.parquet" for number in range(2)]
    for path, texts in zip(files, (["a", "kill", "b"], ["c"]), strict=True):
        rows = [{"text": text, "id": text, "source": "s"} for text in texts]
        pq.write_table(pa.Table.from_pylist(rows, BASE_SCHEMA), path)
    write_json(stage / "manifest.json", {"files": list_files(stage)})
    depot.put(files)
    with LocalPool(2) as pool:
        executor = Executor(ExecutorConfig(retries=0), pool, depot)
        pass_ = KillPass("kill", depot.run / "corpus/.02-kill.x", files)
        crashed = executor.run(pass_, [0, 1], depot.run / "logs")
    ((position, error),) = crashed.items()
    assert (Path(position.file).name, position.offset) == ("00000.parquet", 1)
    assert "its process died" in error
    assert pass_.unfinished(verify=False) == [0]


FATAL = """
import os

def fatal(document):
    if "river" in document["text"] and document["source"] == "rows":
        os.kill(os.getpid(), 9)
"""


def test_a_document_that_kills_a_later_stage_is_dropped_as_in_a_local_run(
    bucket: Any, local: Path, machine: Path
) -> None:
    for folder in (local, machine):
        (folder / "mine.py").write_text(FATAL)
    stages = ["extract", "language", {"use": "mine.py:fatal"}, "dedup", "quality", "tokenize"]
    changes: dict[str, Any] = {"stages": stages, "allow_code": True, "tokenize": EVERYTHING["tokenize"]}
    allowed = recipe(executor={"workers": 2, "retries": 0, "max_failures": 1}, **changes)
    build(Path(os.path.relpath(local)), allowed, run="fatal")
    loaded = load_recipe(storage.write_recipe(machine / "fatal.yaml", allowed))
    depot = Depot(loaded.address, Path("there"))
    refused = loaded.recipe.model_copy(update={"executor": ExecutorConfig(workers=2, retries=0)})
    with pytest.raises(PipelineError, match=r"document .*rows.jsonl at offset .*its process died.*max_failures=1"):
        build_corpus(refused, depot.run, machine, depot=depot)
    build_corpus(loaded.recipe, depot.run, machine, depot=depot)
    assert storage.published(bucket, "fatal", machine / "fetched") == hashes(local, "fatal")
    (row,) = pq.read_table(machine / "fetched/corpus/03-fatal/dropped/crashed.parquet").to_pylist()
    assert (row["rule"], row["source"]) == ("crashed", "rows")
    assert "river" in row["text"]


def test_an_outline_has_size_footer_and_no_data(depot: Depot) -> None:
    stage = depot.run / "corpus/01-x"
    columns = {f"column {number:05d}": np.random.default_rng(number).random(3000) for number in range(900)}
    (stage / "data").mkdir(parents=True)
    pq.write_table(table := pa.table(columns), path := stage / "data/00000.parquet")
    assert path.stat().st_size - pq.read_metadata(path).serialized_size < path.stat().st_size - (1 << 16)
    write_json(stage / "stats.json", {})
    write_json(stage / "manifest.json", {"files": {"data/00000.parquet": (described := describe(path))}})
    depot.put([path, stage / "stats.json", stage / "manifest.json"])
    depot.begin([stage])
    assert path.stat().st_size == described["bytes"]
    assert path.stat().st_blocks * 512 < path.stat().st_size // 10
    assert read_schema(path) == table.schema
    assert read_rows(path) == 3000


def test_of_two_controllers_one_works(bucket: Any, depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.1)
    monkeypatch.setattr(module, "LEASE", 3.0)
    other, lock = Depot(depot.address, depot.run), depot.key(depot.run / ".lock")
    with depot.held():
        assert depot.holder() == f"pid {os.getpid()} on {platform.node()}"
        with pytest.raises(PretrainError, match=r"another controller .* is at work there"), other.held():
            pass
        while not depot.lost:
            bucket.pipe_file(lock, b"token elsewhere 1 0")
        with pytest.raises(PretrainError, match=r"another controller \(pid 1 on elsewhere\) took over"):
            depot.take_stock(Reading(depot.run / "x", "y"))
    assert bucket.exists(lock)
    with other.held():  # the one elsewhere shows no sign of life
        assert other.holder() == f"pid {os.getpid()} on {platform.node()}"
    assert not bucket.exists(lock)
