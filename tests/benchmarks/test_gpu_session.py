"""All parts of the GPU session on a CPU, with a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.corpus import prose_shards

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu_session.py"


@pytest.mark.long
def test_a_session_checks_resumes_learns_and_times(tmp_path):
    shards = prose_shards(tmp_path / "shards")
    command = [sys.executable, str(SCRIPT), str(shards), str(tmp_path / "out"), "--dry", "--minutes", "60"]
    subprocess.run(command, check=True, timeout=1800)
    session = json.loads((tmp_path / "out/session.json").read_text())
    assert list(session) == ["check", "resume", "learn", "speed"]
    assert [row["holds"] for row in session["check"] if "case" in row] == [True, True]
    assert session["resume"][-1] == {"holds": True}
    validation, speed, profile = session["learn"]
    assert validation["validation"]["bits_per_byte"] > 0
    assert speed["speed"]["tokens_per_second"] > 0
    assert profile["profile"]["parts"]["matrix products"] > 0
    failed = [row["variant"]["attention"] for row in session["speed"] if "failed" in row]
    assert failed == ["FA3", "FA4"]  # without a GPU; the variants after them are timed all the same
    assert len(session["speed"]) == 6
