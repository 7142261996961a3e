"""Run one pass with the recipe's executor while a thread reports its progress.

Tasks write heartbeats to small files (`pipeline.step.Heartbeat`), which work the same for threads, processes
and machines; the thread adds them up twice a second, weighted by the size of each task's input.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from pipeline.config import ExecutorConfig
from pipeline.executors import run_tasks, unfinished
from pipeline.local import LocalPool
from pipeline.progress import Observer, Progress
from pipeline.step import HEARTBEAT_SECONDS, CorpusStep


def execute(
    step: CorpusStep,
    config: ExecutorConfig,
    pool: LocalPool,
    logs: Path,
    stage: str,
    observer: Observer,
    started: float,
) -> None:
    """Run all tasks of `step` that have no receipt yet. Raises what `pipeline.executors.run_tasks` raises."""
    ranks = unfinished(step)
    if not ranks:
        return
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(step, stage, observer, started, stop), daemon=True)
    watcher.start()
    try:
        run_tasks(step, ranks, config, pool, logs)
    finally:
        stop.set()
        watcher.join()


def _watch(step: CorpusStep, stage: str, observer: Observer, started: float, stop: threading.Event) -> None:
    """Report the sum of all heartbeats until told to stop."""
    weights = [max(step.weight(rank), 1.0) for rank in range(step.tasks)]
    total = sum(weights)
    finished = False
    while not finished:
        finished = stop.wait(HEARTBEAT_SECONDS)
        documents, size, done = 0, 0, 0.0
        for rank, weight in enumerate(weights):
            beat = _read_beat(step.workdir / ".progress" / f"{step.name}-{rank:05d}")
            documents, size, done = documents + beat[0], size + beat[1], done + beat[2] * weight
        observer.stage_progress(stage, Progress(documents, size, done / total, time.monotonic() - started))


def _read_beat(path: Path) -> tuple[int, int, float]:
    """(documents, bytes, fraction) of one task; zeros where it has not begun or is writing just now."""
    try:
        documents, size, fraction = path.read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):
        return 0, 0, 0.0
    return int(documents), int(size), float(fraction)
