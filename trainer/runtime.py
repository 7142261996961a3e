"""The machine under a run: device, determinism, compilation, signals.

On CUDA, deterministic algorithms rule out some of the faster kernels. Bitwise repeatability also needs the same
torch, device and number of threads, hence `environment`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.utils.deterministic

from trainer.errors import TrainerError
from trainer.model import Transformer

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def find_device(wanted: str) -> torch.device:
    """`auto` is CUDA where there is a GPU. Raises TrainerError where CUDA is asked for in vain."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainerError("device: `cuda` was asked for, but torch sees no GPU; use `auto` or `cpu`")
    available = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(available if wanted == "auto" else wanted)


def environment(device: torch.device) -> dict[str, Any]:
    """What the last bits depend on besides recipe and data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads()}


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Where wanted, only kernels that give the same bits each time; others raise. Restores what was set before."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(wanted)
    memory.fill_uninitialized_memory = False  # a debugging aid that writes every buffer twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fill


def keep_memory() -> None:
    """Tell glibc to keep freed memory rather than hand it back to the system.

    A step frees and takes hundreds of megabytes; without this each of their pages is mapped and zeroed anew, a tenth
    of a step's time on a CPU (docs/log.md). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def compile_model(model: Transformer) -> str | None:
    """Compile every block and the loss in place; where that does not work, say why and leave the model eager."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its note on machines without a GPU
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=model.embed_tokens.weight.device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        return (
            f"compile: torch.compile does not work here ({reason}); training goes on without it, more slowly. "
            "Install a C++ compiler (g++ or clang++) and Python's headers, or set `compile: false`"
        )
    for block in model.layers:
        block.compile()
    model.compiled = True
    return None


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The generators' states, by the names under which a checkpoint keeps them."""
    states = {"random.cpu": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put the generators back to what `random_state` returned; of another kind of device, only the CPU's."""
    torch.set_rng_state(states["random.cpu"])
    if device.type == "cuda" and "random.cuda" in states:
        torch.cuda.set_rng_state(states["random.cuda"], device)


class StopSignals:
    """Notes SIGTERM and SIGINT instead of dying, inside a `with`; a second one acts as it did before."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # handlers cannot be set elsewhere
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()
