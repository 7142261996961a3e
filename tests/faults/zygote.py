"""Runs `pretrain` commands in children forked from one process that has imported everything: a start costs 10 ms.

Reads one JSON request a line and answers each with one JSON line. {"run": [arguments], "folder": working directory,
"log": file for both outputs} answers the child's process id (of a session of its own, so that it can be killed with
its workers); {"wait": pid} answers its exit status, negative for a signal. "environment" adds variables. Faults that
a request may ask for:

- "clock": true: `time.time` jumps about by years;
- "disk": [size, ...]: `runs` is a file system of so many kilobytes, and the command runs once for each size; what
  lies there in the end is copied to `kept`, and the exit statuses to `kept.json`. 77 where mounting is not allowed.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from cli import main

WARM = (
    "pipeline.dedup.stage", "pipeline.extract.stage", "pipeline.language.stage", "pipeline.quality.stage",
    "pipeline.tokenize.stage", "pipeline.build", "cli.commands", "trainer.loop",
)  # fmt: skip
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18  # linux/mount.h
NOT_ALLOWED = 77


def serve() -> None:
    """Answer requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork() or child(request)
        print(json.dumps(answer), flush=True)


def child(request: dict[str, Any]) -> int:
    """Run the request's command in place of this process."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(0)
    os.chdir(request["folder"])
    os.environ.update(request.get("environment", {}))
    if request.get("clock"):
        years = itertools.cycle([-50, 3, 0, 1000, -2])
        now = time.time
        time.time = lambda: now() + next(years) * 3.15e7
    if "disk" in request:
        os._exit(on_small_disk(request["run"], request["disk"]))
    os._exit(command(request["run"]))


def command(arguments: list[str]) -> int:
    """Exit status of `pretrain arguments`."""
    sys.argv = ["pretrain", *arguments]
    torch.set_num_threads(1)
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def on_small_disk(arguments: list[str], sizes: list[int]) -> int:
    """Run a command on a disk of each size in turn, keeping what lies on it."""
    runs = Path("runs")
    runs.mkdir()
    statuses = []
    for number, size in enumerate(sizes):
        if not mount(runs.resolve(), size, again=number > 0):
            return NOT_ALLOWED
        statuses.append(command(arguments))
    shutil.copytree(runs, "kept")
    Path("kept.json").write_text(json.dumps(statuses))
    return 0


def mount(folder: Path, kilobytes: int, *, again: bool) -> bool:
    """Mount (or resize) a file system in memory for this process alone; False where the machine does not allow it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not again:
        user, group = os.getuid(), os.getgid()
        if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
            return False
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        if libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
            return False
    flags = MS_REMOUNT if again else 0
    return not libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={kilobytes}k".encode())


if __name__ == "__main__":
    for module in WARM:
        importlib.import_module(module)
    serve()
