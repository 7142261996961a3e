"""Two processes under torchrun train as one: same samples in each step, same losses, one set of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import small_run
from tests.trainer.corpus import PROSE, write_mds
from trainer.config import TrainConfig
from trainer.train import train

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, torch
from pathlib import Path
from trainer.config import TrainConfig
from trainer.train import train
torch.set_num_threads(1)
train(TrainConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
"""


def torchrun(config: TrainConfig, shards: Path, output: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Train as a user does: one torchrun over gloo."""
    program = output.parent / "program.py"
    program.write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launch, str(program), config.model_dump_json(), str(shards), str(output)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def run(**fields: Any) -> TrainConfig:
    """A run whose learning rates do not depend on its length."""
    return small_run(log_every=1, schedule={"warmup": 2, "decay": 0.0}, **fields)


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone") / "train"
    train(run(), shards, output)
    return output


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_as_one_and_go_on_from_its_checkpoint(
    kind: str, alone: Path, shards: Path, tmp_path: Path
) -> None:
    output = tmp_path / "train"
    first = torchrun(run(parallel=kind, steps=8), shards, output)
    assert first.returncode == 0, first.stderr[-3000:]
    second = torchrun(run(parallel=kind), shards, output)
    assert second.returncode == 0, second.stderr[-3000:]
    mine, theirs = rows(output), rows(alone)
    steps = [row["step"] for row in mine if row["kind"] == "train"]
    assert steps == list(range(1, 13))
    found, expected = ([row["loss"] for row in those if row["kind"] == "train"] for those in (mine, theirs))
    assert found == pytest.approx(expected, abs=1e-4)
    assert mine[-1]["loss"] == pytest.approx(theirs[-1]["loss"], abs=1e-4)  # of the last evaluation
    weights = load_file(output / "checkpoints" / "step-00000012" / "model.safetensors")
    for name, tensor in load_file(alone / "checkpoints" / "step-00000012" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, atol=2e-3, rtol=2e-2)


def test_a_process_that_dies_ends_the_job_with_its_error(shards: Path, tmp_path: Path) -> None:
    done = torchrun(small_run(global_batch_tokens=32 * 7), shards, tmp_path / "train")
    assert done.returncode != 0
    assert "7 sequences of 32 tokens cannot be shared evenly by 2 processes" in done.stderr


def test_the_command_trains_under_torchrun_on_any_mds_folder_and_speaks_once(tmp_path: Path) -> None:
    data = np.frombuffer(PROSE.encode()[: 33 * 128], np.uint8).reshape(-1, 33).astype(np.uint16)
    write_mds(tmp_path / "set", [{"tokens": row} for row in data], {"tokens": "ndarray:uint16"})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "recipes.cli"]
    fields = {"global_batch_tokens": 256, "steps": 3, "compile": "false", "log_every": 1, "precision": "fp32"}
    settings = [part for name, value in fields.items() for part in ("--set", f"train.{name}={value}")]
    command = [*launch, "train", "--shards", str(tmp_path / "set"), "--preset", "tiny", *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("train: step 3 of 3") == 1
    assert [row["step"] for row in rows(tmp_path / "train")] == [1, 2, 3]
