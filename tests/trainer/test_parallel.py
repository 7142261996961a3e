"""Several processes train as one: same samples in each step, same losses, one set of files, whole or sharded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed import TCPStore

from common.files import sha256
from tests.faults.harness import Commands
from tests.faults.test_faults import flip
from tests.trainer.conftest import small_run
from tests.trainer.test_recorder import recorded
from trainer.checkpoint import load
from trainer.config import TrainConfig
from trainer.loop import train
from trainer.trained import load_model

ROOT = Path(__file__).parents[2]


def torchrun(config: TrainConfig, shards: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """`pretrain train` in two processes over gloo, as a user starts it."""
    recipe = output.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"train": config.model_dump(mode="json")}))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "cli.main", "train", str(recipe), "--shards", str(shards), "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


class Ranks:
    """Runs of several processes as torchrun would start them, each forked in a moment (tests.faults.zygote)."""

    def __init__(self, commands: Commands, shards: Path, folder: Path) -> None:
        self.commands, self.shards, self.folder = commands, shards, folder
        self.output = folder / "train"

    def start(self, size: int, config: TrainConfig) -> list[int]:
        """Process ids, by rank."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump({"train": config.model_dump(mode="json")}))
        (self.folder / "log").write_text("")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        world = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        arguments = ["train", "recipe.yaml", "--shards", str(self.shards), "--output", str(self.output)]
        places = [world | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
        return [self.commands.start(self.folder, *arguments, environment=place) for place in places]

    def run(self, size: int, **fields: Any) -> str:
        """What the processes said, all of which must end well."""
        codes = [self.commands.wait(pid) for pid in self.start(size, run(parallel="fsdp", **fields))]
        said = (self.folder / "log").read_text()
        assert codes == [0] * size, said
        return said

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every tensor file and of metrics.jsonl."""
        files = [*self.output.glob("checkpoints/step-????????/*.safetensors"), self.output / "metrics.jsonl"]
        return {str(path.relative_to(self.output)): sha256(path) for path in sorted(files)}


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in rows(output) if row["kind"] == "train"]


def run(**fields: Any) -> TrainConfig:
    """A run whose learning rates do not depend on its length."""
    return small_run(log_every=1, schedule={"warmup": 2, "decay": 0.0}, **fields)


def test_two_processes_train_as_one_whole_or_sharded(shards: Path, tmp_path: Path) -> None:
    """DDP begins, FSDP goes on from its checkpoint; a single process has trained the same."""
    alone, output = tmp_path / "alone", tmp_path / "train"
    train(run(record_losses=True), shards, alone)
    for config in (run(parallel="ddp", steps=8, record_losses=True), run(parallel="fsdp", record_losses=True)):
        done = torchrun(config, shards, output)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (done.stdout + done.stderr).count(f"train: step {config.steps} of {config.steps}") == 1
    mine, theirs = rows(output), rows(alone)
    assert len(losses(alone)) == 12
    assert losses(output) == pytest.approx(losses(alone), abs=1e-4)
    assert mine[-1]["loss"] == pytest.approx(theirs[-1]["loss"], abs=1e-4)  # of the last evaluation
    pieces, once = recorded(output), recorded(alone)
    assert [row.pop("loss") for row in pieces] == pytest.approx([row.pop("loss") for row in once], abs=1e-3)
    assert pieces == once
    ours, expected = (load(folder / "checkpoints" / "step-00000012") for folder in (output, alone))
    for found, whole in ((ours.model, expected.model), (ours.optimizer, expected.optimizer)):
        assert set(found) == set(whole)
        for name in set(whole) - {"random.cpu"}:
            torch.testing.assert_close(found[name], whole[name], atol=5e-3, rtol=5e-2, msg=name)


def test_a_process_that_fails_ends_the_job_with_its_error(shards: Path, tmp_path: Path) -> None:
    done = torchrun(small_run(global_batch_tokens=32 * 7), shards, tmp_path / "train")
    assert done.returncode != 0
    assert "7 sequences of 32 tokens cannot be shared evenly by 2 processes" in " ".join(done.stderr.split())


JOIN = """
import torch
from trainer.parallel import World
world = World.join(torch.device("cpu"))
print(int(world.total(torch.tensor(world.rank + 1))))
"""


def test_a_restarted_process_does_not_read_what_an_earlier_start_left() -> None:
    """torchrun's restarts share a store, which keeps the addresses of the processes that were killed."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}

    def start(rank: int) -> subprocess.Popen[str]:
        environment = os.environ | place | {"RANK": str(rank), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, "-c", JOIN], env=environment, stdout=subprocess.PIPE, text=True)

    def asked() -> bytes | None:
        return server.get("ask/1") if server.check(["ask/1"]) else None

    for _ in range(2):
        before, processes, end = asked(), [start(1)], time.monotonic() + 60
        try:
            while asked() == before:  # it comes first, when the store has nothing but old addresses
                assert time.monotonic() < end, "the process did not ask for this start's name"
                time.sleep(0.02)
            processes.append(start(0))
            assert [process.communicate(timeout=60)[0] for process in processes] == ["3\n"] * 2
        finally:
            for process in processes:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as running:
        yield running


@pytest.fixture(scope="module")
def sharded(commands: Commands, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Twelve steps of two processes, undisturbed."""
    ranks = Ranks(commands, shards, tmp_path_factory.mktemp("sharded") / "whole")
    ranks.run(2)
    return ranks


def test_each_process_writes_its_rows_and_anyone_reads_them(sharded: Ranks) -> None:
    folder = sharded.output / "checkpoints" / "step-00000012"
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "model.0-of-2.safetensors",
        "model.1-of-2.safetensors",
        "optimizer.0-of-2.safetensors",
        "optimizer.1-of-2.safetensors",
        "state.json",
    ]
    sizes = [(folder / f"optimizer.{rank}-of-2.safetensors").stat().st_size for rank in (0, 1)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)
    assert not list(folder.parent.glob(".step*"))
    model, state = load_model(sharded.output)
    assert state["step"] == 12
    halves = [load_file(folder / f"model.{rank}-of-2.safetensors") for rank in (0, 1)]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, torch.cat([half[name] for half in halves if name in half]))


@pytest.mark.parametrize("size", [1, 4])
def test_a_sharded_checkpoint_goes_on_with_another_number_of_processes(
    sharded: Ranks, shards: Path, tmp_path: Path, size: int
) -> None:
    train(run(), shards, tmp_path / "alone")
    ranks = Ranks(sharded.commands, shards, tmp_path / "ranks")
    ranks.run(2, steps=8)
    assert "resumes after step 8" in ranks.run(size)
    assert losses(ranks.output) == pytest.approx(losses(tmp_path / "alone"), abs=1e-4)


def test_a_killed_process_of_a_sharded_run_costs_no_bit(sharded: Ranks, shards: Path, tmp_path: Path) -> None:
    """Once with a checkpoint under way, once between two, whoever dies first."""
    ranks = Ranks(sharded.commands, shards, tmp_path / "ranks")
    for victim, sign in ((1, ".step-00000004.partial"), (0, "step 7 of")):
        pids = ranks.start(2, run(parallel="fsdp"))
        while not (list(ranks.output.glob(f"checkpoints/{sign}")) or sign in (ranks.folder / "log").read_text()):
            time.sleep(0.001)
            if (ranks.output / "checkpoints/step-00000004").exists() and sign.startswith("."):
                break  # written between two looks
        for pid in (pids[victim], pids[1 - victim]):
            os.kill(pid, signal.SIGKILL)
        assert [ranks.commands.wait(pid) for pid in pids] == [-signal.SIGKILL] * 2
    ranks.run(2)
    assert ranks.hashes() == sharded.hashes()


def test_an_anomaly_is_told_with_the_documents_of_all_processes(sharded: Ranks, shards: Path, tmp_path: Path) -> None:
    ranks = Ranks(sharded.commands, shards, tmp_path / "ranks")
    wild = {"name": "adamw", "lr": 1e38, "clip": 0}
    pids = ranks.start(2, small_run(parallel="fsdp", optimizer=wild, schedule={"warmup": 0}))
    assert [ranks.commands.wait(pid) for pid in pids] == [1, 1]
    told = json.loads(next(ranks.output.glob("blame/step-*.json")).read_bytes())
    assert "diverged" in told["reason"]
    assert len(told["sequences"]) == 8


def test_a_damaged_part_is_named_and_the_checkpoint_before_used(sharded: Ranks, shards: Path, tmp_path: Path) -> None:
    ranks = Ranks(sharded.commands, shards, tmp_path / "ranks")
    shutil.copytree(sharded.folder, ranks.folder)
    shutil.rmtree(ranks.output / "checkpoints/step-00000012")
    (ranks.output / "result.json").unlink()
    ranks.run(2)
    flip(ranks.output / "checkpoints/step-00000012/optimizer.1-of-2.safetensors")
    said = " ".join(ranks.run(2).split())
    assert "step-00000012 is damaged: the SHA-256 of optimizer.1-of-2.safetensors is not the one recorded" in said
    assert "resuming from step-00000008" in said
    assert ranks.hashes() == sharded.hashes()


@pytest.mark.long
def test_a_compiled_sharded_run_has_the_losses_of_one_that_is_not(sharded: Ranks, shards: Path, tmp_path: Path) -> None:
    ranks = Ranks(sharded.commands, shards, tmp_path / "ranks")
    assert "does not work" not in ranks.run(2, compile=True)
    assert losses(ranks.output) == pytest.approx(losses(sharded.output), abs=1e-4)
