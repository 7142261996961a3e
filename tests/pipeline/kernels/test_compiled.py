"""Kernels kept on disk are compiled anew when what they call changes."""

import os
import subprocess
import sys
from pathlib import Path

CALLER = """
from callee import add
from pipeline.kernels.compiled import kernel

@kernel()
def run(x):
    return add(x)

print(run(1), sum(run.stats.cache_hits.values()))
"""
CALLEE = """
from pipeline.kernels.compiled import njit

@njit
def add(x):
    return x + {number}
"""


def result(folder: Path, number: int) -> list[int]:
    """What `run(1)` gives in a new process, and how many compiled versions came from the disk."""
    (folder / "callee.py").write_text(CALLEE.format(number=number))
    environment = os.environ | {"PYTHONPATH": f"{folder}:{Path(__file__).parents[3]}"}
    command = [sys.executable, str(folder / "caller.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_a_changed_callee_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    assert result(tmp_path, 1) == [2, 0]
    assert result(tmp_path, 1) == [2, 1]
    assert result(tmp_path, 10) == [11, 0]
