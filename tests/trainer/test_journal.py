"""Trackers: each step once and in one run, however often the training is killed; none that fails ends it."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainer.conftest import Crash, Recorder, small_run
from trainer import journal
from trainer.journal import Tracker
from trainer.loop import train


def test_tensorboard_shows_each_step_once(shards: Path, tmp_path: Path) -> None:
    config = small_run(track=["tensorboard"], log_every=1)
    for die_at in (3, 7, 11):
        with pytest.raises(Crash):
            train(config, shards, tmp_path, Recorder(die_at))
    train(config, shards, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == list(range(1, 13))
    assert [point.step for point in events.Scalars("validation/loss")] == [5, 10, 12]


def test_mlflow_keeps_one_run(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/store")
    config = small_run(track=["mlflow"], log_every=1)
    for die_at in (3, 7, 11):
        with pytest.raises(Crash):
            train(config, shards, tmp_path / "out", Recorder(die_at))
    train(config, shards, tmp_path / "out")
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    points = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, 13))


@pytest.mark.parametrize("knows", [True, False])
def test_wandb_receives_each_step_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    """Against a stand-in: a resumed run knows its last step from the server, or offline from metrics.jsonl."""
    asked: list[str] = []
    sent: list[int] = []

    def init(**given: Any) -> Any:
        asked.append(given["id"])
        log = lambda values, step: sent.append(step) if "train/loss" in values else None  # noqa: E731
        return SimpleNamespace(step=sent[-1] + 1 if knows and sent else 0, log=log, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    config = small_run(track=["wandb"], log_every=1)
    with pytest.raises(Crash):
        train(config, shards, tmp_path, Recorder(7))
    train(config, shards, tmp_path)
    assert len(set(asked)) == 1
    assert sent == list(range(1, 13))


def test_wandb_writes_each_step_once_offline(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own files: one of each start, all of one run."""
    wandb = pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "SILENT": "true", "PROJECT": "test"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    config = small_run(track=["wandb"], log_every=1)
    for die_at in (3, 7):
        with pytest.raises(Crash):
            train(config, shards, tmp_path, Recorder(die_at))
    recorder = Recorder()
    train(config, shards, tmp_path, recorder)
    assert recorder.warnings == []
    wandb.teardown()  # its process writes to the end
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 3
    assert len({path.stem for path in files}) == 1
    steps = [step for path in files for step in wandb_steps(path)]
    assert steps == list(range(1, 13))


def wandb_steps(path: Path) -> list[int]:
    """Steps with a training loss in a .wandb file: records in LevelDB's log format, behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, begun, steps = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no room for a record's head: the block is padded
            place += 32768 - place % 32768
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        begun += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            (record := Record()).ParseFromString(begun)
            values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            steps += [int(values["_step"])] if "train/loss" in values else []
            begun = b""
    return steps


@pytest.mark.parametrize("when", ["start", "log", "close"])
def test_a_tracker_that_fails_is_left_out(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def fail(*_: object) -> Any:
        raise ConnectionError("server gone\nand a long trace")

    def begin(*_: object) -> Tracker:
        if when == "start":
            fail()
        return Tracker(fail if when == "log" else lambda step, values: None, fail if when == "close" else lambda: None)

    monkeypatch.setitem(journal.TRACKERS, "wandb", begin)
    recorder = Recorder()
    assert train(small_run(track=["wandb"]), shards, tmp_path, recorder).step == 12
    (warning,) = recorder.warnings
    assert warning == "track: wandb failed and is left out (ConnectionError: server gone); training continues"


def test_mlflow_names_its_run_in_the_output(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in, where mlflow is not installed: which run is asked for, which steps are sent."""
    asked, sent = [], []
    client = SimpleNamespace(get_metric_history=lambda *_: [SimpleNamespace(step=step) for step in sent])

    def start_run(**given: str) -> Any:
        asked.append(given)
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    module = SimpleNamespace(
        start_run=start_run, end_run=lambda: None, log_dict=lambda *_: None, MlflowClient=lambda: client,
        log_metrics=lambda values, step: sent.append(step) if "train/loss" in values else None,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mlflow", module)
    config = small_run(track=["mlflow"], log_every=1)
    with pytest.raises(Crash):
        train(config, shards, tmp_path, Recorder(7))
    train(config, shards, tmp_path)
    assert asked == [{"run_name": tmp_path.parent.name}, {"run_id": "r1"}]
    assert sent == list(range(1, 13))
