"""Learning rates at the steps that matter, worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from trainer.config import ScheduleConfig
from trainer.schedule import ramped_sizes, rate


def test_wsd_warms_up_holds_and_decays_to_the_floor() -> None:
    config = ScheduleConfig(name="wsd", warmup=10, decay=0.2, floor=0.1)
    rates = [rate(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert set(rates[10:80]) == {1.0}
    assert rates[80] == pytest.approx(1 - 0.9 / 20)
    assert rates[89] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.1)


def test_cosine_falls_from_the_peak_to_the_floor() -> None:
    config = ScheduleConfig(name="cosine", warmup=20, floor=0.0)
    rates = [rate(config, step, 120) for step in range(120)]
    assert rates[19] == 1.0
    assert rates[69] == pytest.approx(0.5)
    assert rates[44] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert rates[119] == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(rates[19:]))


def test_no_warmup_no_decay_and_runs_shorter_than_their_warmup() -> None:
    assert [rate(ScheduleConfig(warmup=0, decay=0.0), step, 5) for step in range(5)] == [1.0] * 5
    assert [rate(ScheduleConfig(warmup=100), step, 4) for step in range(4)] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert rate(ScheduleConfig(name="cosine", warmup=0, floor=0.1), 0, 1) == pytest.approx(0.1)
    decay_all = [rate(ScheduleConfig(warmup=5, decay=1.0, floor=0.0), step, 10) for step in range(10)]
    assert decay_all == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


def test_the_batch_grows_by_eighths() -> None:
    assert ramped_sizes(16, 64) == [8, 8, 16, 16, 24, 24, 32, 32, 40, 40, 48, 48, 56, 56, 64, 64]
    assert ramped_sizes(0, 64) == []
    assert ramped_sizes(2, 4) == [1, 2]
