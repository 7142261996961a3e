"""Anomalies are stopped at, skipped or rolled back over, and every way of interrupting that gives the same run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import Crash, Recorder, small_run
from tests.trainer.test_train import hashes, rows
from trainer import train as training
from trainer.anomalies import Entry, Ledger, Watch, parse_steps
from trainer.config import AnomalyConfig
from trainer.errors import TrainerError
from trainer.train import train


def test_what_counts_as_an_anomaly() -> None:
    watch = Watch(AnomalyConfig(policy="skip", sigma=3.0, window=8), [])
    for number in range(8):
        assert watch.judge(2.0 + 0.01 * (number % 2), 1.0 + 0.1 * (number % 2)) is None
    assert "loss 2.1 is more than 3 standard deviations" in str(watch.judge(2.1, 1.0))
    assert "gradient norm 9 is more than 3" in str(watch.judge(2.0, 9.0))
    assert watch.judge(math.nan, 1.0) == "loss nan"
    assert watch.judge(2.0, math.inf) == "gradient norm inf"
    assert len(watch.history) == 8
    assert watch.judge(1.0, 0.5) is None  # a fall is no spike
    assert Watch(AnomalyConfig(policy="skip"), []).judge(1e9, 1e9) is None


def test_the_ledger_decides_which_checkpoints_belong_to_the_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    state = {"step": 10, "ledger": []}
    assert ledger.knows(state)
    ledger.add(Entry(11, 12, "user", "x"))
    assert ledger.knows(state)
    ledger.add(Entry(9, 10, "rollback", "y"))
    assert not ledger.knows(state)
    again = Ledger(tmp_path / "ledger.json")
    assert again.entries == ledger.entries
    assert again.knows({"step": 12, "ledger": again.dump()})
    assert [again.covering(step) is not None for step in (8, 9, 11, 12, 13)] == [False, True, True, True, False]
    (tmp_path / "ledger.json").write_text("[{}]")
    with pytest.raises(TrainerError, match=r"ledger.json is not a ledger"):
        Ledger(tmp_path / "ledger.json")


@pytest.mark.parametrize("text", ["5", "0:3", "7:3", "a:b", "-1:2"])
def test_ranges_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(TrainerError, match="expected FIRST:LAST"):
        parse_steps(text)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> int:
    """The losses that step 7 sees are infinite, whatever its state: what a bad batch does."""
    judge = Watch.judge
    update = training._Run._update

    def bad(self: Any) -> None:
        self.watch.bad = self.step + 1 == 7
        update(self)

    def judged(self: Any, loss: float, norm: float) -> str | None:
        return judge(self, math.inf if self.bad else loss, norm)

    monkeypatch.setattr(training._Run, "_update", bad)
    monkeypatch.setattr(Watch, "judge", judged)
    return 7


def run(shards: Path, output: Path, policy: str, observer: Recorder | None = None, skip: str | None = None) -> None:
    train(small_run(anomalies={"policy": policy, "span": 4}), shards, output, observer, skip)


def test_stop_names_the_step_and_the_ways_out(poisoned: int, shards: Path, tmp_path: Path) -> None:
    config = small_run(anomalies={"sigma": 6.0})
    with pytest.raises(TrainerError, match=r"stopped at step 7: loss inf.*--skip-steps 7:7.*`rollback`"):
        train(config, shards, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000004"]
    train(config, shards, tmp_path, None, "7:7")
    assert [row["step"] for row in rows(tmp_path) if row["kind"] == "skipped"] == [7]


@pytest.mark.parametrize(("policy", "left_out"), [("skip", [7]), ("rollback", [4, 5, 6, 7])])
def test_a_policy_leaves_steps_out_and_an_interrupted_run_honours_it(
    poisoned: int, shards: Path, tmp_path: Path, policy: str, left_out: list[int]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    recorder = Recorder()
    run(shards, whole, policy, recorder)
    assert [row["step"] for row in rows(whole) if row["kind"] == "skipped"] == left_out
    assert json.loads((whole / "ledger.json").read_bytes()) == [
        {"first": left_out[0], "last": 7, "policy": policy, "reason": "loss inf"}
    ]
    with pytest.raises(Crash):
        run(shards, cut, policy, Recorder(die_at=6 if policy == "skip" else 3))
    with pytest.raises(Crash):
        run(shards, cut, policy, Recorder(die_at=9))
    run(shards, cut, policy)
    assert hashes(cut) == hashes(whole)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_run_that_only_goes_wrong_stops_at_the_limit(shards: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Watch, "judge", lambda self, loss, norm: "loss nan")
    config = small_run(anomalies={"policy": "rollback", "span": 1, "limit": 3})
    with pytest.raises(TrainerError, match=r"stopped at step 4 after 3 anomalies \(`anomalies.limit`\): loss nan"):
        train(config, shards, tmp_path)


def test_skipping_steps_of_the_past_takes_the_run_back(shards: Path, tmp_path: Path) -> None:
    """A finished run that is told to leave out steps 6 and 7 ends as one that was told so from the start."""
    ahead, back = tmp_path / "ahead", tmp_path / "back"
    run(shards, ahead, "stop", skip="6:7")
    first = train(small_run(checkpoint={"every": 4, "keep_last": 3}), shards, back)
    recorder = Recorder()
    result = train(small_run(checkpoint={"every": 4, "keep_last": 3}), shards, back, recorder, "6:7")
    assert recorder.resumes == [4]
    assert result.loss != first.loss
    assert hashes(ahead).items() <= hashes(back).items()
    assert (back / "metrics.jsonl").read_bytes() == (ahead / "metrics.jsonl").read_bytes()
    assert train(small_run(checkpoint={"every": 4, "keep_last": 3}), shards, back, None, "6:7") == result
