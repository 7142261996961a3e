"""Losses of documents: named at an anomaly, the same from a table or a repetition, complete after interruptions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from common.errors import TrainerError
from common.runfolder import ACCOUNT
from tests.trainer.conftest import Crash, Recorder, small_run
from tests.trainer.corpus import PROSE, document_id, write_shards
from trainer.loop import train
from trainer.pieces import PieceLoss, ranked
from trainer.replay import replay
from trainer.shards import open_shards

PARTS = [part for part in PROSE.split("\n\n") if part.strip()][:40]


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prose with one document of random bytes, the last one."""
    noise = "".join(map(chr, np.random.default_rng(3).integers(0x4E00, 0x9FFF, 40)))
    return write_shards(tmp_path_factory.mktemp("poisoned") / "shards", {"train/a": ([*PARTS, noise], 1.0)})


def recorded(output: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((output / "losses").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_an_anomaly_names_the_document_that_made_it(poisoned: Path, tmp_path: Path) -> None:
    config = small_run(
        steps=40,
        optimizer={"lr": 0.01, "muon_lr": 0.01},
        anomalies={"policy": "skip", "sigma": 4.0, "window": 8},
        checkpoint={"every": 4, "keep_last": 20},
    )
    train(config, poisoned, tmp_path)
    poison = document_id(len(PARTS))
    entry = json.loads((tmp_path / "ledger.json").read_bytes())[0]
    told = json.loads(sorted(tmp_path.glob("blame/*"))[0].read_bytes())
    assert told["step"] == entry["first"]
    assert told["reason"] == entry["reason"]
    assert told["documents"][0]["id"] == poison == entry["documents"][0]
    assert told["documents"][0]["above"] > 2
    assert told["sequences"][0]["sample"] == told["documents"][0]["sample"]
    assert set(told["documents"][0]["excerpt"]) - {"\ufffd"}
    again = replay(tmp_path, poisoned, entry["first"])
    assert again == told | {"reason": "asked for"}  # bit for bit, though the run skipped the step


def test_recorded_losses_are_those_of_a_repetition_and_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train/a": (PARTS[:12], 1.0)})  # two epochs in 24 steps
    config = small_run(steps=24, record_losses=True, checkpoint={"every": 5, "keep_last": 2})
    train(config, shards, tmp_path / "whole")
    for step in (3, 12, 18):
        with pytest.raises(Crash):
            train(config, shards, tmp_path / "cut", Recorder(die_at=step))
    train(config, shards, tmp_path / "cut")
    rows = recorded(tmp_path / "whole")
    assert recorded(tmp_path / "cut") == rows
    assert {row["step"] for row in rows} == set(range(1, 25))
    keys = [(row["sample"], row["offset"], row["epoch"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {row["epoch"] for row in rows} >= {0, 1}
    first = replay(tmp_path / "whole", shards, 23)
    mine = {(row["sample"], row["offset"]): row["loss"] for row in rows if row["step"] == 23}
    theirs = {(row["sample"], row["span"][0]): row["loss"] for row in first["documents"]}
    assert mine == pytest.approx(theirs, rel=1e-6)
    logged = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in logged if row["kind"] == "train"}
    steps = [[row for row in rows if row["step"] == step] for step in (22, 23, 24)]
    means = [sum(row["loss"] * row["targets"] for row in of) / sum(row["targets"] for row in of) for of in steps]
    assert losses[24] == pytest.approx(sum(means) / 3, rel=1e-6)  # every target is in one piece


def test_losses_that_are_no_numbers_are_blamed_on_the_step_that_broke_the_weights(
    poisoned: Path, tmp_path: Path
) -> None:
    config = small_run(optimizer={"name": "adamw", "lr": 1e38, "clip": 0}, schedule={"warmup": 0}, log_every=6, steps=6)
    with pytest.raises(TrainerError, match="training diverged"):
        train(config, poisoned, tmp_path)
    told = json.loads(sorted(tmp_path.glob("blame/*"))[0].read_bytes())
    assert told["reason"].startswith("training diverged")
    assert told["step"] < 6
    assert told["loss"] is not None


def test_few_tokens_count_less_and_what_is_no_number_leads() -> None:
    def piece(name: str, targets: int, loss: float) -> PieceLoss:
        return PieceLoss(name, "a", 0, 0, targets, targets, loss, 0)

    pieces = [piece(f"plain {number}", 100, 3.0 + number / 10) for number in range(5)]
    order = ranked([*pieces, piece("short", 4, 6.0), piece("long", 400, 5.5), piece("nan", 10, math.nan)])
    assert [each.document for each, _ in order[:3]] == ["nan", "long", "short"]
    assert order[1][1] == pytest.approx(5.5 - 3.3)  # the median of the seven that are numbers


def test_a_step_that_cannot_be_repeated_is_refused(poisoned: Path, tmp_path: Path) -> None:
    train(small_run(), poisoned, tmp_path)
    with pytest.raises(TrainerError, match="step 13 is not one of the run's steps, 1 to 12"):
        replay(tmp_path, poisoned, 13)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    told = replay(tmp_path, poisoned, 9)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / ACCOUNT.format(9)).exists()
    assert len(told["sequences"]) == 8
    assert open_shards(poisoned, tmp_path / "shards-cache").train[0].name == told["documents"][0]["stream"]
