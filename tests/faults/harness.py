"""Start `pretrain` commands, kill them at seeded moments of a chosen stage, and compare what they leave.

A *round* takes a fresh folder through `pretrain corpus` and `pretrain train`: for each stage in turn the command is
started, killed (SIGKILL to its whole session) at a random moment of that stage, and started again for the next one;
at the end both commands run to their end, and every manifest of the corpus, every checkpoint's tensors and
metrics.jsonl must be those of a run that nobody disturbed. A kill that comes too late, after the stage's end, hits
whatever the command does then; the table says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

ROOT = Path(__file__).parents[2]
STAGES = ("extract", "language", "dedup", "quality", "tokenize")
RECIPE = {
    "name": "tiny",
    "sources": [{"name": "sample", "type": "warc", "paths": [str(ROOT / "data/sample.warc.gz")], "limit": 120}],
    "extract": {"task_bytes": 100_000},
    "tokenize": {"tokenizer": {"vocab_size": 400}, "sequence_length": 64, "validation": 0.1},
    "executor": {"workers": 1},
    "train": {
        "preset": "tiny",
        "model": {"layers": 2, "width": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "ffn": 128},
        "steps": 60,
        "global_batch_tokens": 512,
        "micro_batch": 3,
        "precision": "fp32",
        "compile": False,
        "log_every": 5,
        "schedule": {"warmup": 5},
        "checkpoint": {"every": 8},
        "evaluation": {"every": 12, "batches": 2},
    },
}


@dataclass(frozen=True)
class Kill:
    """One kill of a round: aimed at `stage`, `delay` seconds after its start; `hit` says where the command was."""

    stage: str
    delay: float
    hit: str
    equal: bool | None = None


class Commands:
    """`pretrain` commands in one working folder, through tests.faults.zygote."""

    def __enter__(self) -> Self:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()

    def start(self, folder: Path, *arguments: str, **more: Any) -> int:
        """Process id of `pretrain arguments`, whose output goes to `folder/log`; `more` as the zygote has it."""
        return self._ask({"run": arguments, "folder": str(folder), "log": str(folder / "log")} | more)

    def wait(self, pid: int) -> int:
        """Exit status, negative for a signal."""
        return self._ask({"wait": pid})

    def run(self, folder: Path, *arguments: str, **more: Any) -> int:
        """Exit status of a command run to its end."""
        return self.wait(self.start(folder, *arguments, **more))

    def _ask(self, request: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def write_recipe(folder: Path, **changes: Any) -> Path:
    """`recipe.yaml` in a new working folder."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | changes))
    return folder


def undisturbed(commands: Commands, folder: Path, **changes: Any) -> tuple[dict[str, str], dict[str, float]]:
    """Hashes of an undisturbed run, and how long each stage took."""
    write_recipe(folder, **changes)
    for command in ("corpus", "train"):
        begun = time.monotonic()
        if commands.run(folder, command, "recipe.yaml"):
            raise AssertionError((folder / "log").read_text())
    log = [json.loads(line) for line in (folder / "runs/tiny/log.jsonl").read_text().splitlines()]
    seconds = {row["stage"]: row["seconds"] for row in log if row["event"] == "stage"}
    return hashes(folder), seconds | {"train": time.monotonic() - begun}


def kill_round(
    commands: Commands,
    folder: Path,
    stages: Sequence[str],
    seconds: dict[str, float],
    chance: random.Random,
    **changes: Any,
) -> list[Kill]:
    """Kill a run in each of `stages` in turn, then let it come to its end."""
    write_recipe(folder, **changes)
    kills = []
    for stage in stages:
        command = "train" if stage == "train" else "corpus"
        if command == "train" and not (folder / "runs/tiny/shards/manifest.json").is_file():
            commands.run(folder, "corpus", "recipe.yaml")
        kills.append(_kill(commands, folder, command, stage, seconds[stage] * chance.random()))
    for command in ("corpus", "train"):
        if commands.run(folder, command, "recipe.yaml"):
            raise AssertionError((folder / "log").read_text())
    return kills


def _kill(commands: Commands, folder: Path, command: str, stage: str, delay: float) -> Kill:
    log = folder / "log"
    log.write_text("")
    pid = commands.start(folder, command, "recipe.yaml")
    sign = f"{stage}:" if command == "corpus" else ""  # of the stage's start, or that it is skipped
    while sign not in log.read_text() and Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z":
        time.sleep(0.002)
    time.sleep(delay)
    os.killpg(pid, signal.SIGKILL)
    status = commands.wait(pid)
    return Kill(stage, delay, _place(folder, log.read_text(), command) if status == -signal.SIGKILL else "had ended")


def _place(folder: Path, log: str, command: str) -> str:
    """Where a killed command was, by what it had said and left."""
    if command == "train":
        steps = re.findall(r"step (\d+)", log)
        half = any((folder / "runs/tiny/train/checkpoints").glob(".step-*"))
        return f"train, {f'after step {steps[-1]}' if steps else 'starting'}{', writing a checkpoint' if half else ''}"
    stages = re.findall(r"^(\w+): started", log, re.MULTILINE)
    ended = re.findall(r"^(\w+): \d+ of", log, re.MULTILINE)
    if not stages:
        return "starting"
    return stages[-1] if len(ended) < len(stages) else f"between {stages[-1]} and the next"


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of everything of a run that must not depend on how often it was killed."""
    run = folder / "runs/tiny"
    names = [
        "corpus/*/manifest.json",
        "shards/manifest.json",
        "train/metrics.jsonl",
        "train/checkpoints/*/*.safetensors",
    ]
    found = [path for name in names for path in sorted(run.glob(name)) if path.parent.suffix != ".unused"]
    return {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def judged(kills: Sequence[Kill], equal: bool) -> list[Kill]:
    """The kills of a round with its verdict."""
    return [replace(kill, equal=equal) for kill in kills]
