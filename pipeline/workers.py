"""Workers of this machine, and the server from which they are forked, with the stages imported and kernels loaded.

`pretrain` starts the server first of all, so that it gets ready beside the controller; it imports `pipeline.preload`,
half a second on a free core. Server and workers end with the process that started them. A worker has the environment
variables that its parent has when it asks for it, not those that the server began with: credentials may come later.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running


def start_server() -> ForkServerContext:
    """Start the server unless it runs. Returns the context that forks from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.preload"])
    ensure_running()
    return context


def start_worker(prepare: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """A worker of its own, which is forked when it gets its first work. prepare: called in it before that."""
    return ProcessPoolExecutor(1, start_server(), initializer=_begin, initargs=(dict(os.environ), prepare))


def _begin(environment: dict[str, str], prepare: Callable[[], None] | None) -> None:
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare()


def _end_with_parent() -> None:
    """End this process when the one that asked for it is gone: the server lives as long as its last worker."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
