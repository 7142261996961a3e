"""Faults from outside: after each, the same command gives the undisturbed run's bytes. The long form: `make faults`."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Commands, hashes, kill_round, undisturbed, write_recipe
from tests.faults.zygote import NOT_ALLOWED


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as running:
        yield running


@pytest.fixture(scope="module")
def whole(
    commands: Commands, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str], dict[str, float]]:
    folder = tmp_path_factory.mktemp("faults") / "whole"
    return folder, *undisturbed(commands, folder)


def test_killed_in_five_places_and_still_the_same_bytes(commands: Commands, whole, tmp_path: Path) -> None:
    _, expected, seconds = whole
    stages = ("extract", "dedup", "tokenize", "train", "train")
    kills = kill_round(commands, tmp_path / "run", stages, seconds, random.Random(1))
    assert sum(kill.hit != "had ended" for kill in kills) >= 4, kills
    assert hashes(tmp_path / "run") == expected, kills


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_preemption_ends_with_a_code_to_requeue_on(commands: Commands, whole, tmp_path: Path, kind: int) -> None:
    folder = trained_copy(whole[0], tmp_path / "run")
    pid = commands.start(folder, "train", "recipe.yaml")
    while "step 5" not in (folder / "log").read_text():
        time.sleep(0.002)
    os.kill(pid, kind)
    assert commands.wait(pid) == 128 + kind
    assert "the same command goes on" in (folder / "log").read_text()
    assert commands.run(folder, "train", "recipe.yaml") == 0
    assert hashes(folder) == whole[1]


def test_a_full_disk_stops_cleanly_and_room_lets_it_go_on(commands: Commands, whole, tmp_path: Path) -> None:
    """The run folder is a file system too small for the corpus, then for the checkpoints, then large enough."""
    folder = write_recipe(tmp_path / "run")
    status = commands.run(folder, "run", "recipe.yaml", disk=[300, 1500, 64_000])
    if status == NOT_ALLOWED:
        pytest.skip("this machine lets nobody mount a file system in memory")
    log = (folder / "log").read_text()
    assert json.loads((folder / "kept.json").read_text()) == [1, 1, 0], log
    assert log.count("No space left on device") == 2, log
    assert "Traceback" not in log
    shutil.copytree(folder / "kept", folder / "runs", dirs_exist_ok=True)
    assert hashes(folder) == whole[1]


def test_two_runs_on_one_folder(commands: Commands, whole, tmp_path: Path) -> None:
    """The second is refused and leaves no trace; the first notices nothing."""
    folder = write_recipe(tmp_path / "run")
    write_recipe(tmp_path / "other", seed=2)
    for command, running in (("corpus", "extract: started"), ("train", "step 5")):
        (folder / "log").write_text("")
        first = commands.start(folder, command, "recipe.yaml")
        while running not in (folder / "log").read_text():
            time.sleep(0.002)
        shutil.copy(tmp_path / "other/recipe.yaml", folder / "other.yaml")
        second = commands.start(folder, command, "other.yaml")
        assert commands.wait(second) == 1
        assert "another process (pid" in (folder / "log").read_text()
        assert commands.wait(first) == 0, (folder / "log").read_text()
    assert hashes(folder) == whole[1]
    assert "seed: 1\n" in (folder / "runs/tiny/recipe.yaml").read_text()


def test_a_clock_that_jumps(commands: Commands, whole, tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "run")
    assert commands.run(folder, "run", "recipe.yaml", clock=True) == 0, (folder / "log").read_text()
    assert hashes(folder) == whole[1]


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damaged_files_are_named_or_rebuilt(commands: Commands, whole, tmp_path: Path, damage: str) -> None:
    """A stage's output before the next stage reads it, a shard before training, the newest checkpoint."""
    folder = write_recipe(tmp_path / "run")
    run = folder / "runs/tiny"
    assert commands.run(folder, "corpus", "recipe.yaml", "--to", "language") == 0
    break_file(run / "corpus/02-language/data/00000.parquet", damage)
    if commands.run(folder, "corpus", "recipe.yaml"):
        assert "02-language/data/00000.parquet: the file is not what its manifest says" in (folder / "log").read_text()
        shutil.rmtree(run / "corpus/02-language")
        assert commands.run(folder, "corpus", "recipe.yaml") == 0
    shard = sorted((run / "shards/train").rglob("*.mds*"))[0]
    whole_shard = shard.read_bytes()
    break_file(shard, damage)
    assert commands.run(folder, "train", "recipe.yaml") == 1
    assert shard.name in (folder / "log").read_text()
    shard.write_bytes(whole_shard)
    assert commands.run(folder, "train", "recipe.yaml", "--set", "train.steps=16") == 0
    break_file(run / "train/checkpoints/step-00000016/optimizer.safetensors", damage)
    assert commands.run(folder, "train", "recipe.yaml") == 0
    assert "step-00000016 is damaged" in (folder / "log").read_text()
    assert {name: value for name, value in hashes(folder).items() if ".unused" not in name} | {
        name: value for name, value in whole[1].items() if "safetensors" in name or "metrics" in name
    } == whole[1] | {}


def trained_copy(source: Path, target: Path) -> Path:
    """A working folder with the corpus of another, without its training."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "runs/tiny/train")
    (target / "log").write_text("")
    return target


def break_file(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) * (1 if damage == "flipped" else 2) // 2] if damage == "flipped" else data[:-7])
