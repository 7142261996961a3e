"""Hand the unfinished tasks of a pass to datatrove's executor that the recipe names: local, Slurm or Ray.

A task is finished when it has left a receipt (`pipeline.task`), whoever ran it; so one rule serves all three:
submit what has no receipt, wait until none of it runs any more, and submit the rest again, `retries` times. What is
left then is run twice more to find the documents that it fails on (`pipeline.crashes`). Tasks are named by their rank
in the pass, never by the machine that ran them: the same recipe gives the same bytes.

Slurm and Ray need a run folder and a checkout that every node sees under the same path. The process that runs
`pretrain corpus` stays as the controller (a login node, or a small job of its own: docs/slurm/corpus.sbatch): it
submits each pass once the one before it is complete.

datatrove's local executor on processes that may die, and that serve a whole run.

datatrove starts a `multiprocessing.Pool` for each pass, and waits forever for a worker that was killed (by the kernel
when memory runs out, say). Here each worker is a pool of one process: a death costs the task in hand and nothing else,
and the worker is replaced. The workers of a `LocalPool` serve every pass of every stage, so that each imports libraries
and loads compiled kernels once. They die with the process that started them, so that none goes on writing beside the
next run. A worker starts by a fork of a server that has imported the stages: some 20 ms, and a second or two once for
the server.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import resource
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from common.errors import PipelineError, PretrainError
from pipeline.config import ExecutorConfig, RayConfig, SlurmConfig
from pipeline.crashes import Place, is_final, recorded, recording
from pipeline.task import CorpusStep, Heartbeat

_POLL_SECONDS = 2.0
_CHECKOUT = Path(__file__).resolve().parent.parent


class Unfinished(PipelineStep):  # type: ignore[misc]  # datatrove is untyped
    """The tasks of a pass that have no receipt yet, numbered anew from 0.

    memory_gb: what a task may take. search: leave no receipt, but a record of the document at which each one ends.
    """

    type = "corpus"

    def __init__(self, step: CorpusStep, ranks: list[int], memory_gb: float | None, *, search: bool = False) -> None:
        self.name = step.name
        super().__init__()
        # The heaviest first, so that none begins when the others are done.
        self.step, self.ranks = step, sorted(ranks, key=lambda rank: (-step.weight(rank), rank))
        self.memory_gb, self.search = memory_gb, search

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Run the task that stands at place `rank`."""
        rank = self.ranks[rank]
        with _accounted(self.step, rank), _memory_limit(self.memory_gb):
            if self.search:
                with recording(_record_path(self.step, rank)):
                    self.step.process(rank, Heartbeat(self.step.workdir / ".failures/heartbeat"))
            else:
                self.step.run(data, rank, self.step.tasks)


@contextmanager
def _accounted(step: CorpusStep, rank: int) -> Iterator[None]:
    """Leave a file that says how the task failed; a process that dies leaves the words it began with."""
    path = _failure_path(step, rank)
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
        raise
    path.unlink()


@cache
def _held_at_start() -> int:
    """Data of this process in kB before its first task: what a failed task leaves behind is not for the next one."""
    pa.allocate_buffer(1)  # Arrow reserves a gigabyte at its first allocation, which is not the task's doing
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


@contextmanager
def _memory_limit(gigabytes: float | None) -> Iterator[None]:
    """Let the block take so much memory beyond what the process holds, where the kernel counts it (Linux)."""
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


def _record_path(step: CorpusStep, rank: int) -> Path:
    return step.workdir / f".failures/{step.name}-{rank:05d}.record"


def _failure_path(step: CorpusStep, rank: int) -> Path:
    return step.workdir / f".failures/{step.name}-{rank:05d}.json"


def _failure(step: CorpusStep, rank: int) -> dict[str, Any]:
    """{error, final} of a task's last failure."""
    try:
        failure: dict[str, Any] = json.loads(_failure_path(step, rank).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):  # never begun, or killed while it wrote this
        failure = {"error": "it left no word", "final": False}
    return failure


class ArrayJob(SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """datatrove's array job without its closing job, which would wait for ever where a task was cancelled."""

    def launch_merge_stats(self) -> None:
        """Nothing: counts are in the receipts."""


class RayTasks(RayPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """datatrove's Ray executor with plain Ray tasks in place of its actors.

    datatrove starts an actor per task and asks it for its address first; an actor that dies before it answers is
    waited for without end. A plain task that loses its worker ends with an error, and is submitted again.
    """

    def run(self) -> None:
        """Run every rank, `workers` at a time. A task that fails, or loses its worker, only leaves no receipt."""
        import ray

        executor = ray.put(self)
        memory = int(self.mem_per_cpu_gb * self.cpus_per_task * 2**30)
        run_rank = ray.remote(num_cpus=self.cpus_per_task, memory=memory, max_retries=0)(_run_rank)
        waiting = list(range(self.tasks))
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < self.workers:
                running.append(run_rank.remote(executor, waiting.pop(0)))
            ended, running = ray.wait(running)
            with suppress(ray.exceptions.RayError):
                ray.get(ended)


def _run_rank(executor: RayTasks, rank: int) -> None:
    executor._run_for_rank(rank)


def unfinished(step: CorpusStep) -> list[int]:
    """Ranks of the tasks without a receipt."""
    return [rank for rank in range(step.tasks) if step.receipt(rank) is None]


def run_tasks(
    step: CorpusStep, ranks: list[int], config: ExecutorConfig, pool: LocalPool, logs: Path
) -> dict[Place, str]:
    """Run the tasks `ranks` of `step` to their end. Returns the documents that end their tasks each time, and how.

    pool: the local executor's processes. Raises PipelineError, the task's own or one that names the first task that
    ended without a result in every attempt, and why; OSError of a local task (a full disk, a file that is gone).
    """
    for attempt in range(config.retries + 1):
        ranks = _attempt(Unfinished(step, ranks, config.memory_gb), config, pool, logs / f"attempt-{attempt}")
        if not ranks:
            return {}
    if found := _search(step, ranks, config, pool, logs):
        return found
    ranks = _attempt(Unfinished(step, ranks, config.memory_gb), config, pool, logs / "attempt-last")
    if not ranks:
        return {}
    raise PipelineError(
        f"task {ranks[0]} of pass `{step.name}` ended without a result {config.retries + 2} times, and no document"
        f" is to blame: {_failure(step, ranks[0])['error']}. {step.tasks - len(ranks)} of {step.tasks} tasks are"
        f" finished and kept; the same command goes on from there. Fewer `executor.workers` need less memory; logs:"
        f" {logs}"
    )


def _attempt(tasks: Unfinished, config: ExecutorConfig, pool: LocalPool, logs: Path) -> list[int]:
    """Run tasks once. Returns the ranks without a receipt. Raises PipelineError where a task says that it is final."""
    if config.slurm and config.type == "slurm":
        _run_on_slurm(tasks, config.slurm, config.workers, logs)
    elif config.type == "ray":
        _run_on_ray(tasks, config.ray, config.workers, logs)
    else:
        _run_here(tasks, config, pool, logs)
    left = [rank for rank in sorted(tasks.ranks) if tasks.step.receipt(rank) is None]
    for failure in (_failure(tasks.step, rank) for rank in left):
        if failure["final"]:
            raise PipelineError(failure["error"])
    return left


def _search(
    step: CorpusStep, ranks: list[int], config: ExecutorConfig, pool: LocalPool, logs: Path
) -> dict[Place, str]:
    """The documents at which tasks end, twice the same one, and how they did."""
    ends: list[list[Place | None]] = []
    for attempt in range(2):
        tasks = Unfinished(step, ranks, config.memory_gb, search=True)
        _attempt(tasks, config, pool, logs / f"search-{attempt}")
        ends.append([recorded(_record_path(step, rank)) for rank in ranks])
    places = {place: rank for rank, place, again in zip(ranks, *ends, strict=True) if place and place == again}
    return {place: _failure(step, rank)["error"] for place, rank in places.items()}


def _run_here(step: Unfinished, config: ExecutorConfig, pool: LocalPool, logs: Path) -> None:
    """Run in processes of this machine; a task that may die, or whose memory is limited, in one of its own."""
    trusted = config.max_failures == 0 and config.memory_gb is None
    trusted = trusted and not any(_failure_path(step.step, rank).exists() for rank in step.ranks)
    LocalTasks(pool, apart=not trusted, pipeline=[step], tasks=len(step.ranks), logging_dir=str(logs)).run()


def _run_on_ray(step: Unfinished, config: RayConfig, workers: int | None, logs: Path) -> None:
    """Run on the cluster at `ray.address`, or on one started for this process. Returns when all tasks ended."""
    import ray

    if not ray.is_initialized():
        ray.init(
            address=config.address,
            runtime_env={"env_vars": {"PYTHONPATH": str(_CHECKOUT)}},
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False,
        )
    RayTasks(
        pipeline=[step],
        tasks=len(step.ranks),
        workers=workers or -1,
        cpus_per_task=config.cpus,
        mem_per_cpu_gb=config.memory_gb / config.cpus,
        logging_dir=str(logs),
        skip_completed=False,
    ).run()


def _run_on_slurm(step: Unfinished, config: SlurmConfig, workers: int | None, logs: Path) -> None:
    """Submit one array job and wait until Slurm holds none of it any more."""
    executor = ArrayJob(
        pipeline=[step],
        tasks=len(step.ranks),
        time=config.time,
        partition=config.partition,
        cpus_per_task=config.cpus,
        mem_per_cpu_gb=max(1, round(config.memory_gb / config.cpus)),
        workers=workers or -1,
        job_name=f"pretrain-{step.name}",
        qos=config.qos or "",
        env_command="; ".join(f"export {name}={shlex.quote(value)}" for name, value in _environment(config).items()),
        sbatch_args={"account": config.account} if config.account else None,
        max_array_size=config.array_size,
        # Absolute: jobs start in their own folder.
        logging_dir=str(logs.resolve()),
        skip_completed=False,
    )
    try:
        executor.run()
    except FileNotFoundError as error:
        raise PipelineError("executor.type is slurm, but there is no `sbatch` here; run on a submit node") from error
    except subprocess.CalledProcessError as error:
        raise PipelineError(f"sbatch refused pass `{step.name}` (see its message above): {error}") from error
    _wait_for_slurm(executor.job_id)


def _environment(config: SlurmConfig) -> dict[str, str]:
    """Variables of a Slurm job: this interpreter's programs and this checkout first, then the recipe's."""
    here = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(_CHECKOUT)}
    return here | config.env


def _wait_for_slurm(job: str) -> None:
    """Return once Slurm holds no task of the job; a cancelled or failed task simply leaves no receipt."""
    query = ["squeue", "--noheader", "--format=%T", "--jobs", job]
    while True:
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        # Slurm forgets a job some minutes after its end; any other error (a controller that restarts) passes.
        if "Invalid job id" in answer.stderr or (answer.returncode == 0 and not answer.stdout.strip()):
            return
        time.sleep(_POLL_SECONDS)


# Imported once by the fork server instead of once by each worker.
_PRELOAD = [
    "pipeline.executors",
    "pipeline.extract.stage",
    "pipeline.language.stage",
    "pipeline.dedup.stage",
    "pipeline.quality.stage",
    "pipeline.tokenize.stage",
]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class LocalPool:
    """Up to `workers` processes for any number of passes; none is started before the first task."""

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

    def run(self, executor: LocalTasks, *, apart: bool) -> None:
        """Run every rank once; one that fails or dies leaves no receipt. A lone worker is this process.

        apart: each rank in a process of its own, whose memory holds nothing of other ranks. Raises what no other
        attempt would cure (`is_final`), and ends the other tasks first.
        """
        if self.workers == 1 and not apart:
            for rank in range(executor.tasks):
                try:
                    executor._run_for_rank(rank)
                except Exception as error:  # the task has left word of it (pipeline.executors)
                    if is_final(error):
                        raise
            return
        waiting = list(range(executor.tasks))
        running: dict[Future[Any], ProcessPoolExecutor] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    worker = self._idle.pop() if self._idle and not apart else _worker()
                    running[worker.submit(executor._run_for_rank, waiting.pop(0))] = worker
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


class LocalTasks(LocalPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """datatrove's local executor, its ranks run by a pool."""

    def __init__(self, pool: LocalPool, *, apart: bool, **settings: Any) -> None:
        super().__init__(workers=pool.workers, skip_completed=False, **settings)
        self._pool, self._apart = pool, apart

    def run(self) -> None:
        """Raises what `LocalPool.run` raises."""
        self._pool.run(self, apart=self._apart)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker needs: everything but the pool that it is part of."""
        return {**self.__dict__, "_pool": None}


def _worker() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return ProcessPoolExecutor(1, context, initializer=_die_with_parent)


def _die_with_parent() -> None:
    """Where the kernel can: end this process when the fork server ends, which it does when its parent is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
