"""Anomalies are stopped at, skipped or rolled back over, and every way of interrupting that gives the same run."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from common.errors import TrainerError
from tests.trainer.conftest import Crash, Recorder, small_run
from tests.trainer.corpus import PROSE, write_shards
from tests.trainer.test_loop import hashes, rows
from trainer.anomalies import Entry, Ledger, Watch, parse_steps
from trainer.config import AnomalyConfig, TrainConfig
from trainer.loop import train


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


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prose with four hundred random Chinese characters in it, whose bytes a model of English does not expect."""
    noise = "".join(map(chr, np.random.default_rng(3).integers(0x4E00, 0x9FFF, 400)))
    parts = [part for part in PROSE.split("\n\n") if part.strip()]
    streams = {"train/a": ([*parts[:-4], noise], 1.0), "validation/a": (parts[-4:], 1.0)}
    return write_shards(tmp_path_factory.mktemp("noisy") / "shards", streams)


def noisy_run(policy: str) -> TrainConfig:
    return small_run(
        steps=24,
        seed=2,
        optimizer={"lr": 0.01, "muon_lr": 0.01},
        anomalies={"policy": policy, "sigma": 2.5, "window": 8, "span": 4},
    )


def test_stop_names_the_step_and_the_ways_out(noisy: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"stopped at step \d+: .*--skip-steps \d+:\d+.*`rollback`") as stopped:
        train(noisy_run("stop"), noisy, tmp_path)
    step = str(stopped.value).split("step ")[1].split(":")[0]
    assert all(path.name < f"step-{step:0>8}" for path in (tmp_path / "checkpoints").iterdir())
    train(noisy_run("skip"), noisy, tmp_path, None, f"{step}:{step}")
    assert next(row for row in rows(tmp_path) if row["kind"] == "skipped")["reason"] == "--skip-steps"


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_policy_leaves_steps_out_and_an_interrupted_run_honours_it(noisy: Path, tmp_path: Path, policy: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(noisy_run(policy), noisy, whole)
    entries = json.loads((whole / "ledger.json").read_bytes())
    assert entries[0]["policy"] == policy
    assert entries[0]["last"] - entries[0]["first"] == (0 if policy == "skip" else 3)
    left_out = {step for entry in entries for step in range(entry["first"], entry["last"] + 1)}
    assert [row["step"] for row in rows(whole) if row["kind"] == "skipped"] == sorted(left_out)
    for step in (12, 15, 18, 21):
        with contextlib.suppress(Crash):
            train(noisy_run(policy), noisy, cut, Recorder(die_at=step))
    train(noisy_run(policy), noisy, cut)
    assert hashes(cut) == hashes(whole)
    for name in ("metrics.jsonl", "ledger.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_that_only_goes_wrong_stops_at_the_limit(shards: Path, tmp_path: Path) -> None:
    config = small_run(
        optimizer={"name": "adamw", "lr": 1e30, "clip": 0},
        schedule={"warmup": 0},
        anomalies={"policy": "skip", "limit": 3},
    )
    with pytest.raises(TrainerError, match=r"stopped at step \d+ after 3 anomalies \(`anomalies.limit`\): loss"):
        train(config, shards, tmp_path)


def test_skipping_steps_of_the_past_takes_the_run_back(shards: Path, tmp_path: Path) -> None:
    """A finished run that is told to leave out steps 6 and 7 ends as one that was told so from the start."""
    ahead, back = tmp_path / "ahead", tmp_path / "back"
    train(small_run(), shards, ahead, None, "6:7")
    first = train(small_run(checkpoint={"every": 4, "keep_last": 3}), shards, back)
    recorder = Recorder()
    result = train(small_run(checkpoint={"every": 4, "keep_last": 3}), shards, back, recorder, "6:7")
    assert recorder.resumes == [4]
    assert result.loss != first.loss
    assert hashes(ahead).items() <= hashes(back).items()
    assert (back / "metrics.jsonl").read_bytes() == (ahead / "metrics.jsonl").read_bytes()
    assert train(small_run(checkpoint={"every": 4, "keep_last": 3}), shards, back, None, "6:7") == result
