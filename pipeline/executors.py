"""Run the unfinished tasks of a pass where the recipe says: on this machine, Slurm or Ray.

A task is finished when it has a receipt (`pipeline.task`), whoever ran it, so one rule serves all three: submit the
tasks without a receipt, wait until none of them runs, and submit the rest again, `retries` times. What is left then is
run twice more to find the documents on which it fails (`pipeline.crashes`). Tasks are named by their rank in the pass,
never by the machine that ran them: the same recipe gives the same bytes.

Every pass is a datatrove `PipelineStep`, so datatrove's executors can run it. Slurm jobs are datatrove's own
(`pipeline.slurm`). Two of its executors are replaced here, by their public parts alone (`PipelineStep.run`), because
they wait without end for a process that was killed (by the kernel when memory runs out, say): the local one, which also
starts a new pool and a manager for each pass, and Ray's, which starts an actor per task and waits for its address.

Slurm and Ray need a checkout that every node sees under the same path, and such a run folder or one in object storage
(`pipeline.depot`). The process that runs `pretrain corpus` stays as the controller (a login node, or a small job of its
own: docs/slurm/corpus.sbatch): it submits each pass once the one before it is complete.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from common.errors import PipelineError, PretrainError
from pipeline.config import ExecutorConfig
from pipeline.crashes import Position, is_final, recorded, recording
from pipeline.depot import Depot
from pipeline.documents import RESERVING_POOL
from pipeline.task import Pass, Task
from pipeline.workers import start_worker

# datatrove logs every task to the terminal; what matters reaches the observer and the run's own log.
logger.disable("datatrove")

_CHECKOUT = Path(__file__).resolve().parent.parent


class Unfinished(PipelineStep):  # type: ignore[misc]  # datatrove is untyped
    """The tasks of a pass that have no receipt yet, numbered anew from 0.

    memory_gb: memory limit of a task; logs: folder for tracebacks; search: leave no receipt, but a record of the
    document at which each task ends; depot: the run folder, where it is in object storage.
    """

    type = "corpus"

    def __init__(
        self,
        pass_: Pass,
        ranks: list[int],
        memory_gb: float | None,
        logs: Path,
        *,
        search: bool = False,
        depot: Depot | None = None,
    ) -> None:
        self.name = pass_.name
        super().__init__()
        # The heaviest first, so that none begins when the others are done.
        self.pass_, self.ranks = pass_, sorted(ranks, key=lambda rank: (-pass_.weight(rank), rank))
        self.memory_gb, self.logs, self.search, self.depot = memory_gb, logs, search, depot

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Run the task `self.ranks[rank]`."""
        rank = self.ranks[rank]
        if self.depot is None:
            self._run(rank)
            return
        with self.depot.task(self.pass_, rank, _log_path(self.logs, rank)) as scratch:
            if self.search:  # in a process of its own, so that its record is stored though it dies
                with start_worker(partial(os.chdir, scratch)) as child:
                    child.submit(self._run, rank).result()
            else:
                self._run(rank)

    def _run(self, rank: int) -> None:
        with _accounted(self.pass_, rank, self.logs), _memory_limit(self.memory_gb):
            if self.search:
                with recording(_record_path(self.pass_, rank)) as record:
                    self.pass_.process(rank, Task(self.pass_.workdir / ".failures/progress", record))
            else:
                self.pass_.run(None, rank, self.pass_.tasks)


@contextmanager
def _accounted(pass_: Pass, rank: int, logs: Path) -> Iterator[None]:
    """Write a failure file before the task and remove it after success, so that a killed process explains itself."""
    path = _failure_path(pass_, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    died = "its process died: killed from outside, or by the kernel for want of memory, or by a fault in a library"
    path.write_text(json.dumps({"error": died, "final": False}), "utf-8")
    try:
        yield
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} (in {Path(frame.filename).name}, line {frame.lineno})"
        final = isinstance(error, PretrainError)
        path.write_text(json.dumps({"error": str(error) if final else text, "final": final}), "utf-8")
        with suppress(OSError):  # a full disk
            logs.mkdir(parents=True, exist_ok=True)
            _log_path(logs, rank).write_text(traceback.format_exc(), "utf-8")
        raise
    path.unlink()


@cache
def _held_at_start() -> int:
    """Data of this process in kB before its first task, so that what a failed task leaves does not burden the next."""
    # Its first allocation reserves a gigabyte, which is not the task's doing. A pool that asks for pages as it needs
    # them gets none after a page has used up all memory, and Arrow then ends the process, whatever it works on.
    pa.set_memory_pool(RESERVING_POOL)
    pa.allocate_buffer(1)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


@contextmanager
def _memory_limit(gigabytes: float | None) -> Iterator[None]:
    """Limit the memory of the block to this much beyond what the process holds, where the kernel counts it (Linux)."""
    status = Path("/proc/self/status")
    if gigabytes is None or not status.is_file():
        yield
        return
    held = _held_at_start()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = held * 1024 + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _log_path(logs: Path, rank: int) -> Path:
    return logs / f"task-{rank:05d}.txt"


def _record_path(pass_: Pass, rank: int) -> Path:
    return pass_.workdir / f".failures/{pass_.name}-{rank:05d}.record"


def _failure_path(pass_: Pass, rank: int) -> Path:
    return pass_.workdir / f".failures/{pass_.name}-{rank:05d}.json"


def _failure(pass_: Pass, rank: int) -> dict[str, Any]:
    """{error, final} of a task's last failure."""
    try:
        failure: dict[str, Any] = json.loads(_failure_path(pass_, rank).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        error = "no failure record was written: the task never started, or was killed while starting"
        failure = {"error": error, "final": False}
    return failure


@dataclass(frozen=True)
class Executor:
    """The recipe's executor. pool: processes for tasks that run on this machine; depot: as in `Unfinished`."""

    config: ExecutorConfig
    pool: LocalPool
    depot: Depot | None = None

    def run(self, pass_: Pass, ranks: list[int], logs: Path) -> dict[Position, str]:
        """Run tasks to their end. Returns {document: error} of those that end their tasks on every attempt.

        Raises PipelineError, the task's own or one that names the first task without a result, and why; OSError of a
        local task (a full disk, a missing file).
        """
        for attempt in range(self.config.retries + 1):
            ranks = self._attempt(pass_, ranks, logs / f"attempt-{attempt}")
            if not ranks:
                return {}
            pass_.ahead = ()  # one of them may be to blame: each stage alone finds its own documents
        if crashed := self._search(pass_, ranks, logs):
            return crashed
        ranks = self._attempt(pass_, ranks, logs / "attempt-last")
        if not ranks:
            return {}
        raise PipelineError(
            f"task {ranks[0]} of pass `{pass_.name}` ended without a result {self.config.retries + 2} times, and no"
            f" document is to blame: {_failure(pass_, ranks[0])['error']}. {pass_.tasks - len(ranks)} of {pass_.tasks}"
            " tasks are finished and kept; the same command resumes with the rest. Fewer `executor.workers` need less"
            f" memory; logs: {logs}{f' at {self.depot.address}' if self.depot else ''}"
        )

    def _attempt(self, pass_: Pass, ranks: list[int], logs: Path, *, search: bool = False) -> list[int]:
        """Run tasks once. Returns the ranks without a receipt. Raises PipelineError where retrying is no use."""
        depot = self.depot
        if depot:
            depot.forget(pass_.workdir / ".failures")
            depot = depot.take_stock(pass_)
        logs = logs if depot else logs.resolve()
        tasks = Unfinished(pass_, ranks, self.config.memory_gb, logs, search=search, depot=depot)
        run = {"local": self._run_here, "slurm": self._run_on_slurm, "ray": self._run_on_ray}
        run[self.config.type](tasks)
        if self.depot:
            self.depot.sync(pass_.workdir)
        left = [rank for rank in sorted(ranks) if pass_.receipt(rank) is None]
        for failure in (_failure(pass_, rank) for rank in left):
            if failure["final"]:
                raise PipelineError(failure["error"])
        return left

    def _search(self, pass_: Pass, ranks: list[int], logs: Path) -> dict[Position, str]:
        """{document: error} of the documents at which tasks end, the same one twice."""
        ends: list[list[Position | None]] = []
        for attempt in range(2):
            self._attempt(pass_, ranks, logs / f"search-{attempt}", search=True)
            ends.append([recorded(_record_path(pass_, rank)) for rank in ranks])
        same = {first: rank for rank, first, second in zip(ranks, *ends, strict=True) if first and first == second}
        return {position: _failure(pass_, rank)["error"] for position, rank in same.items()}

    def _run_here(self, tasks: Unfinished) -> None:
        """Run in processes of this machine; a task that may die, or whose memory is limited, in one of its own."""
        trusted = self.config.max_failures == 0 and self.config.memory_gb is None
        trusted = trusted and not any(_failure_path(tasks.pass_, rank).exists() for rank in tasks.ranks)
        self.pool.run(tasks, apart=not trusted)

    def _run_on_ray(self, tasks: Unfinished) -> None:
        """Run on the cluster at `ray.address`, or on one started for this process, `workers` tasks at a time.

        A task that fails, or loses its worker, leaves no receipt and no more.
        """
        import ray

        config = self.config.ray
        if not ray.is_initialized():
            ray.init(
                address=config.address,
                runtime_env={"env_vars": {"PYTHONPATH": str(_CHECKOUT)}},
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=False,
            )
        shared, count = ray.put(tasks), len(tasks.ranks)
        memory = int(config.memory_gb * 2**30)
        run_rank = ray.remote(num_cpus=config.cpus, memory=memory, max_retries=0)(_run_rank)
        waiting = list(range(count))
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < (self.config.workers or count):
                running.append(run_rank.remote(shared, waiting.pop(0)))
            ended, running = ray.wait(running)
            with suppress(ray.exceptions.RayError):
                ray.get(ended)

    def _run_on_slurm(self, tasks: Unfinished) -> None:
        """Submit one array job and wait until Slurm holds none of it any more."""
        from pipeline.slurm import run_array

        assert self.config.slurm is not None  # the recipe's own check
        logs = f"{tasks.depot.address}/{tasks.logs.relative_to(tasks.depot.run)}" if tasks.depot else str(tasks.logs)
        run_array(tasks, len(tasks.ranks), self.config.slurm, self.config.workers, logs)


def _run_rank(tasks: Unfinished, rank: int) -> None:
    tasks.run(rank=rank)


class LocalPool:
    """Up to `workers` processes that serve every pass of a run; none is started before the first task.

    Each worker is a pool of one process: a death costs the task in hand and nothing else, and the worker is replaced.
    They import libraries and load compiled kernels once, and die with the process that started them, so that none
    writes into a folder in which the next run works. A worker is forked from a server that has imported the stages
    (`pipeline.workers`): some 20 ms.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle: list[ProcessPoolExecutor] = []
        self._others = set(multiprocessing.active_children())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            self._idle.pop().shutdown()

    def run(self, tasks: Unfinished, *, apart: bool) -> None:
        """Run every rank once; one that fails or dies leaves no receipt. A lone worker is mostly this process.

        apart: each rank in a process of its own, whose memory holds nothing of other ranks. Raises errors that no
        other attempt would cure (`is_final`), and ends the other tasks first.
        """
        waiting = list(range(len(tasks.ranks)))
        if self.workers == 1 and not apart and tasks.depot is None:  # which changes the process's working folder
            for rank in waiting:
                try:
                    tasks.run(rank=rank)
                except Exception as error:  # recorded in the task's failure file
                    if is_final(error):
                        raise
            return
        running: dict[Future[Any], ProcessPoolExecutor] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    worker = self._idle.pop() if self._idle and not apart else start_worker()
                    running[worker.submit(_run_rank, tasks, waiting.pop(0))] = worker
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    worker = running.pop(done)
                    failure = done.exception()
                    if apart or isinstance(failure, BrokenProcessPool):
                        worker.shutdown()
                    else:
                        self._idle.append(worker)
                    if failure is not None and is_final(failure):
                        raise failure
        except BaseException:
            self._end([*running.values()])
            raise

    def _end(self, working: list[ProcessPoolExecutor]) -> None:
        """End all workers at once, those at work too."""
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()
        for worker in (*working, *self._idle):
            worker.shutdown(cancel_futures=True)
        self._idle.clear()
