"""Two processes under torchrun train as one: same samples in each step, same losses, one set of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.trainer.conftest import small_run
from trainer.config import TrainConfig
from trainer.train import train

ROOT = Path(__file__).parents[2]


def torchrun(config: TrainConfig, shards: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """`pretrain train` in two processes over gloo, as a user starts it."""
    recipe = output.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"train": config.model_dump(mode="json")}))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "recipes.cli", "train", str(recipe), "--shards", str(shards), "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def run(**fields: Any) -> TrainConfig:
    """A run whose learning rates do not depend on its length."""
    return small_run(log_every=1, schedule={"warmup": 2, "decay": 0.0}, **fields)


def test_two_processes_train_as_one_whole_or_sharded(shards: Path, tmp_path: Path) -> None:
    """DDP begins, FSDP goes on from its checkpoint; a single process has trained the same."""
    alone, output = tmp_path / "alone", tmp_path / "train"
    train(run(), shards, alone)
    for config in (run(parallel="ddp", steps=8), run(parallel="fsdp")):
        done = torchrun(config, shards, output)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (done.stdout + done.stderr).count(f"train: step {config.steps} of {config.steps}") == 1
    mine, theirs = rows(output), rows(alone)
    found, expected = ([row["loss"] for row in those if row["kind"] == "train"] for those in (mine, theirs))
    assert len(expected) == 12
    assert found == pytest.approx(expected, abs=1e-4)
    assert mine[-1]["loss"] == pytest.approx(theirs[-1]["loss"], abs=1e-4)  # of the last evaluation
    last = Path("checkpoints") / "step-00000012"
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours = load_file(output / last / file)
        for name, tensor in load_file(alone / last / file).items():
            if not name.startswith("random"):
                torch.testing.assert_close(ours[name], tensor, atol=5e-3, rtol=5e-2, msg=name)


def test_a_process_that_fails_ends_the_job_with_its_error(shards: Path, tmp_path: Path) -> None:
    done = torchrun(small_run(global_batch_tokens=32 * 7), shards, tmp_path / "train")
    assert done.returncode != 0
    assert "7 sequences of 32 tokens cannot be shared evenly by 2 processes" in " ".join(done.stderr.split())
