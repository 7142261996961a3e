"""datatrove's local executor on processes that may die, and that serve a whole run.

datatrove starts a `multiprocessing.Pool` for each pass, and waits forever for a worker that was killed (by the kernel
when memory runs out, say). Here each worker is a pool of one process: a death costs the task in hand and nothing else,
and the worker is replaced. The workers of a `LocalPool` serve every pass of every stage, so that each imports libraries
and loads compiled kernels once. They die with the process that started them, so that none goes on writing beside the
next run. A worker starts by a fork of a server that has imported the stages: some 20 ms, and a second or two once for
the server.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

from datatrove.executor import LocalPipelineExecutor

from pipeline.crashes import is_final

# Imported once by the fork server instead of once by each worker.
_PRELOAD = [
    "pipeline.executors",
    "pipeline.extract.step",
    "pipeline.language.step",
    "pipeline.dedup.step",
    "pipeline.quality.step",
    "pipeline.tokenize.step",
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
