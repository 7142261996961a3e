"""The server from which this machine's workers are forked, with the stages imported and their kernels loaded.

`pretrain` starts it first of all, so that it gets ready beside the controller; it imports `pipeline.preload`, half a
second on a free core. It ends with the process that started it.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running


def start_server() -> ForkServerContext:
    """Start the server unless it runs. Returns the context that forks from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.preload"])
    ensure_running()
    return context
