"""datatrove's local executor on one pool of processes that lives as long as the corpus is being built.

datatrove starts a `multiprocessing.Pool` for each pass and waits forever for a worker that was killed from outside (by
the kernel when memory runs out, say). Here the workers of a `LocalPool` serve every pass of every stage, so that each
imports libraries and loads compiled kernels once; a worker that dies raises, and all die with the process that started
them, so that none goes on writing beside the next run. A worker starts by a fork of a server that has imported the
stages: some 20 ms, and one to two seconds once for the server.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

from datatrove.executor import LocalPipelineExecutor

from pipeline.errors import PipelineError

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
    """Up to `workers` processes for any number of passes; none is started before the first task, nor for one worker."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._others = set(multiprocessing.active_children())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            if error:
                self._terminate()
            self._pool.shutdown(cancel_futures=True)

    def run(self, executor: LocalTasks) -> None:
        """Run every rank of `executor`. Raises what the first failing task raises, PipelineError for a dead worker."""
        if self.workers == 1:
            for rank in range(executor.tasks):
                executor._run_for_rank(rank)
            return
        self._pool = self._pool or self._start()
        finished = 0
        try:
            for done in as_completed(
                [self._pool.submit(executor._run_for_rank, rank) for rank in range(executor.tasks)]
            ):
                done.result()
                finished += 1
        except BrokenProcessPool as error:
            self._pool = None
            raise PipelineError(
                "a worker process died without a word: killed from outside, or by the kernel for want of memory;"
                f" {finished} of {executor.tasks} tasks are finished and kept. The same command goes on from there;"
                " with fewer `executor.workers` it needs less memory"
            ) from error

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        return ProcessPoolExecutor(self.workers, context, initializer=_die_with_parent)

    def _terminate(self) -> None:
        """End running tasks at once."""
        for worker in set(multiprocessing.active_children()) - self._others:
            worker.terminate()


class LocalTasks(LocalPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """datatrove's local executor, its ranks run by a pool."""

    def __init__(self, pool: LocalPool, **settings: Any) -> None:
        super().__init__(workers=pool.workers, skip_completed=False, **settings)
        self._pool = pool

    def run(self) -> None:
        """Raises what `LocalPool.run` raises."""
        self._pool.run(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker needs: everything but the pool that it is part of."""
        return {**self.__dict__, "_pool": None}


def _die_with_parent() -> None:
    """Where the kernel can: end this process when the fork server ends, which it does when its parent is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
