"""datatrove's local executor on processes that may die.

datatrove hands its tasks to a `multiprocessing.Pool`, which waits forever for a worker that was killed (by the kernel
when memory runs out, say). Here each worker is a pool of one process: a death costs the task in hand and nothing else,
and the worker is replaced. Workers die with the process that started them, so that none goes on writing beside the
next run.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from datatrove.executor import LocalPipelineExecutor

from pipeline.crashes import is_final

# Imported once by the fork server instead of once by each worker of each pass.
_PRELOAD = ["pipeline.extract.step", "pipeline.language.step", "pipeline.dedup.step", "pipeline.quality.step"]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class LocalTasks(LocalPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """Runs every rank, in this process or in `workers` others."""

    def run_all(self, *, apart: bool) -> None:
        """Run every rank once; one that fails or dies leaves no receipt. One worker works here unless `apart`.

        Raises what no other attempt would cure (`is_final`), and ends the other tasks first.
        """
        if self.workers == 1 and not apart:
            for rank in range(self.tasks):
                try:
                    self._run_for_rank(rank)
                except Exception as error:  # the task has left word of it (pipeline.executors)
                    if is_final(error):
                        raise
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        others = set(multiprocessing.active_children())
        waiting = list(range(self.tasks))
        running: dict[Future[Any], ProcessPoolExecutor] = {}
        idle = [_worker(context) for _ in range(self.workers)]
        try:
            while waiting or running:
                while waiting and idle:
                    worker = idle.pop()
                    running[worker.submit(self._run_for_rank, waiting.pop(0))] = worker
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    worker = running.pop(done)
                    failure = done.exception()
                    if failure is not None and is_final(failure):
                        raise failure
                    if isinstance(failure, BrokenProcessPool):
                        worker.shutdown()
                        worker = _worker(context)
                    idle.append(worker)
        finally:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            for worker in (*idle, *running.values()):
                worker.shutdown(cancel_futures=True)


def _worker(context: multiprocessing.context.ForkServerContext) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, context, initializer=_die_with_parent)


def _die_with_parent() -> None:
    """Where the kernel can: end this process when the fork server ends, which it does when its parent is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
