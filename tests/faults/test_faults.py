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


def test_preemption_ends_with_a_code_to_requeue_on(commands: Commands, whole, tmp_path: Path) -> None:
    folder = trained_copy(whole[0], tmp_path / "run")
    assert stop_after(commands, folder, "step 5") == 128 + signal.SIGTERM
    assert "the same command resumes" in (folder / "log").read_text()
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
    assert log.count("No space left on device") >= 2, log
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


def test_damaged_files_are_named_or_rebuilt(commands: Commands, whole, tmp_path: Path) -> None:
    """A stage's output before the next stage reads it, a shard before training, the newest checkpoint."""
    folder = write_recipe(tmp_path / "run")
    run = folder / "runs/tiny"
    assert commands.run(folder, "corpus", "recipe.yaml", "--to", "language") == 0
    flip(run / "corpus/02-language/data/00000.parquet")
    assert commands.run(folder, "corpus", "recipe.yaml") == 1
    damaged = "02-language/data/00000.parquet: the file is missing or differs from its manifest"
    assert damaged in (folder / "log").read_text()
    shutil.rmtree(run / "corpus/02-language")  # as the message says
    assert commands.run(folder, "corpus", "recipe.yaml", "--to", "dedup") == 0
    truncate(run / "corpus/03-dedup/data/00000.parquet")
    assert commands.run(folder, "corpus", "recipe.yaml") == 0
    for damage in (flip, truncate):
        shard = sorted((run / "shards/train").rglob("*.mds*"))[0]
        undamaged = shard.read_bytes()
        damage(shard)
        assert commands.run(folder, "train", "recipe.yaml") == 1
        assert shard.name in (folder / "log").read_text()
        shard.write_bytes(undamaged)
    stop_after(commands, folder, "step 25")
    newest = sorted(path for path in (run / "train/checkpoints").iterdir() if path.suffix != ".unused")[-1]
    flip(newest / "optimizer.safetensors")
    assert commands.run(folder, "train", "recipe.yaml") == 0
    assert f"{newest.name} is damaged" in (folder / "log").read_text()
    assert hashes(folder) == whole[1]


def stop_after(commands: Commands, folder: Path, said: str) -> int:
    """Exit status of a training run that is sent SIGTERM once it has said so much."""
    (folder / "log").write_text("")
    pid = commands.start(folder, "train", "recipe.yaml")
    while said not in (folder / "log").read_text():
        time.sleep(0.002)
    os.kill(pid, signal.SIGTERM)
    return commands.wait(pid)


def trained_copy(source: Path, target: Path) -> Path:
    """A working folder with the corpus of another, without its training."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "runs/tiny/train")
    (target / "log").write_text("")
    return target


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])
