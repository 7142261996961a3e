"""Run a stage's passes with the recipe's executor, while a thread reports their progress.

Tasks write heartbeats to small files (`pipeline.step.Heartbeat`), which work the same for threads, processes
and machines; the thread adds them up twice a second, weighted by the size of each task's input. Where a document ends
the process that works on it each time, the stage is tried again without it, `max_failures` documents at most
(`pipeline.crashes`).
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

from pipeline import crashes
from pipeline.config import ExecutorConfig
from pipeline.crashes import Place
from pipeline.documents import document_id
from pipeline.errors import PipelineError
from pipeline.executors import run_tasks, unfinished
from pipeline.local import LocalPool
from pipeline.progress import Observer, Progress
from pipeline.stage import Build, StageModule
from pipeline.step import HEARTBEAT_SECONDS, CorpusStep, Counts, add_counts, write_left_out


def run_passes(
    stage: str,
    module: StageModule,
    build: Build,
    config: ExecutorConfig,
    pool: LocalPool,
    logs: Path,
    observer: Observer,
) -> tuple[Counts, int]:
    """Run a stage's passes. Returns counts, and the number of tasks.

    Raises PipelineError where more than `max_failures` documents crash, and what `executors.run_tasks` raises.
    """
    started = time.monotonic()
    tasks = 0

    def run(step: CorpusStep) -> dict[Place, str]:
        nonlocal tasks
        if not tasks:
            observer.stage_started(stage, step.tasks)
        tasks += step.tasks
        return _execute(step, config, pool, logs / step.name, stage, observer, started)

    while True:
        places = crashes.read_places(build.workdir)
        if len(places) > config.max_failures:  # more were allowed when they were found
            crashes.leave_out(build.workdir, places := (), afresh=True)
        inputs = crashes.without(build.inputs, places, build.workdir)
        counts, first = Counts(), True
        for step in module.passes(replace(build, inputs=inputs, crashed=places)):
            if found := run(step):
                # What other tasks of a stage's first pass have done does not depend on these documents.
                _leave_out(build, places, found, config.max_failures, stage, afresh=not first)
                break
            first = False
            add_counts(counts, _collect(step))
        else:
            for leftover in build.workdir.rglob(".*.tmp"):  # of processes that died
                leftover.unlink()
            add_counts(counts, write_left_out(build.workdir, stage, build.inputs, places))
            return counts, tasks


def _leave_out(
    build: Build, places: tuple[Place, ...], found: dict[Place, str], allowed: int, stage: str, *, afresh: bool
) -> None:
    """Have the stage built without these documents, too. Raises PipelineError where they become too many."""
    how = found[min(found)]
    new = {crashes.original(place, places) if build.inputs else place for place in found}
    if len(places) + len(new) <= allowed:
        crashes.leave_out(build.workdir, {*places, *new}, afresh=afresh)
        return
    named = min(new)
    if build.inputs:
        row = next(crashes.left_out(build.inputs, (named,))).to_pylist()[0]
        name = f"document {row['id']} ({row['path']} at offset {row['offset']}, {row['url']})"
    elif named.reading:
        name = f"reading {named.file} on from behind offset {named.position}"
    else:
        name = f"document {document_id(named.file, named.position)} ({named.file} at offset {named.position})"
    raise PipelineError(
        f"stage `{stage}`: {name} fails in every attempt: {how}. Nothing was dropped for it, and finished tasks are"
        f" kept. `executor.max_failures` allows {allowed} such documents a stage; `--set executor.max_failures="
        f"{len(places) + len(new)}` drops it by rule `{crashes.RULE}` and goes on"
    )


def _collect(step: CorpusStep) -> Counts:
    counts = Counts()
    for rank in range(step.tasks):
        receipt = step.receipt(rank)
        if receipt is None:
            raise PipelineError(f"task {rank} of `{step.name}` left no receipt; run the recipe again")
        add_counts(counts, receipt)
    return counts


def _execute(
    step: CorpusStep,
    config: ExecutorConfig,
    pool: LocalPool,
    logs: Path,
    stage: str,
    observer: Observer,
    started: float,
) -> dict[Place, str]:
    """Run all tasks of `step` that have no receipt yet. Returns and raises what `executors.run_tasks` does."""
    ranks = unfinished(step)
    if not ranks:
        return {}
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(step, stage, observer, started, stop), daemon=True)
    watcher.start()
    try:
        return run_tasks(step, ranks, config, pool, logs)
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
