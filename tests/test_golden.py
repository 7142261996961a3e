"""The bytes of a corpus and of twenty training steps are those recorded in tests/golden.json (see tests/golden.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import digests

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("golden")
    command = [sys.executable, "-m", "cli.main", "run", str(HERE / "golden.yaml")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return digests(folder / "runs/golden")


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads((HERE / "golden.json").read_text("utf-8"))


def test_documents_of_every_stage(made: dict, recorded: dict) -> None:
    assert made["corpus"] == recorded["corpus"]


def test_shards(made: dict, recorded: dict) -> None:
    assert made["shards"] == recorded["shards"]


def test_training(made: dict, recorded: dict) -> None:
    assert made["losses"] == pytest.approx(recorded["losses"], rel=1e-4)
    if made["machine"] == recorded["machine"]:
        assert (made["weights"], made["losses"]) == (recorded["weights"], recorded["losses"])
