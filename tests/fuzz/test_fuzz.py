"""Damaged inputs end no stage, take no time, and are accounted for; the long form is `python -m tests.fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import ROUND
from tests.fuzz.harness import KINDS, run_round


def check(folder: Path, numbers: range, seed: int) -> None:
    found = run_round(folder, numbers, seed)
    assert found.lost == []
    assert found.documents >= found.inputs * 0.9
    assert found.kept >= found.inputs * 0.2


def test_a_few_hundred_damaged_inputs(tmp_path: Path) -> None:
    check(tmp_path, range(60), seed=1)


@pytest.mark.long
def test_ten_thousand_damaged_inputs(tmp_path: Path) -> None:
    for start in range(0, 10_000 // len(KINDS), ROUND):
        check(tmp_path / str(start), range(start, start + ROUND), seed=2)
