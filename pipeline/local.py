"""datatrove's local executor on a pool of processes that notices when one of them dies.

datatrove hands its tasks to a `multiprocessing.Pool`, which waits forever for a worker that was killed from outside
(by the kernel when memory runs out, say). This one hands them to a `ProcessPoolExecutor`, which raises, and its
workers die with the process that started them, so that none goes on writing beside the next run.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from datatrove.executor import LocalPipelineExecutor

from pipeline.errors import PipelineError

# Imported once by the fork server instead of once by each worker of each pass.
_PRELOAD = ["pipeline.extract.step", "pipeline.language.step", "pipeline.dedup.step", "pipeline.quality.step"]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class LocalTasks(LocalPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """Runs every rank in this process (one worker) or in `workers` processes."""

    def run(self) -> Any:
        """Raises what the first failing task raises, PipelineError for a worker that died; ends the others first."""
        if self.workers == 1:
            return super().run()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(self.workers, context, initializer=_die_with_parent)
        finished = 0
        try:
            for done in as_completed([pool.submit(self._run_for_rank, rank) for rank in range(self.tasks)]):
                done.result()
                finished += 1
        except BrokenProcessPool as error:
            raise PipelineError(
                "a worker process died without a word: killed from outside, or by the kernel for want of memory; "
                f"{finished} of {self.tasks} tasks were finished and are kept. The same command goes on from there; "
                "with fewer `executor.workers` it needs less memory"
            ) from error
        finally:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            pool.shutdown(cancel_futures=True)


def _die_with_parent() -> None:
    """Where the kernel can: end this process when the fork server ends, which it does when its parent is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
