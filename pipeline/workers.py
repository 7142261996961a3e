"""Workers of this machine, and the server from which they are forked, with the stages imported and kernels loaded.

`pretrain` starts the server first of all, so that it gets ready beside the controller; it imports `pipeline.preload`,
half a second on a free core. Server and workers end with the process that started them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def start_server() -> ForkServerContext:
    """Start the server unless it runs. Returns the context that forks from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.preload"])
    ensure_running()
    return context


def start_worker(prepare: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """A worker of its own, which is forked when it gets its first work. prepare: called in it before that."""
    return ProcessPoolExecutor(1, start_server(), initializer=_begin, initargs=(prepare,))


def _begin(prepare: Callable[[], None] | None) -> None:
    _die_with_parent()
    if prepare:
        prepare()


def _die_with_parent() -> None:
    """Where the kernel can: end this process when the fork server ends, which it does when its parent is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
