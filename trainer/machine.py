"""The machine under a run: device, determinism, compilation, signals.

On CUDA, deterministic algorithms rule out some of the faster kernels. Bitwise repeatability also needs the same
torch, device and number of threads, hence `environment`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

import torch
import torch.utils.deterministic

from common.errors import TrainerError
from trainer.model import Transformer

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
PUBLISHED_BF16 = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "B200": 2250e12}  # data sheets
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def find_device(wanted: str) -> torch.device:
    """`auto` is CUDA where there is a GPU. Raises TrainerError where CUDA is asked for in vain."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainerError("device: `cuda` was asked for, but torch sees no GPU; use `auto` or `cpu`")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # torchrun's number of this process
    torch.cuda.set_device(device)
    return device


def find_precision(wanted: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies it: on GPUs since Ampere, on CPUs with AMX or AVX-512 BF16.

    There its matrix products are at least twice as fast as fp32's (docs/benchmarks.md); elsewhere they are emulated.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


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


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that utilisation is a share of: a GPU's published dense rate, else what a matrix product reaches here."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, rate in PUBLISHED_BF16.items():
            if part in name:
                return rate
    size = 1024 if device.type == "cpu" else 8192
    square = torch.ones(size, size, dtype=dtype, device=device)
    fastest = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        float((square @ square)[0, 0])  # reading a number waits for the device
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * size**3 / fastest


def memory_in_use(device: torch.device) -> int:
    """Bytes of the largest use so far: of the GPU's memory by tensors, or of main memory by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


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
    # A graph for each shape: one for all, made after an evaluation's smaller batch, may change later steps' bits.
    torch._dynamo.config.recompile_limit = 64
    for block in model.layers:
        block.compile(dynamic=False)
    model.compiled = True
    return None


def uncompiled() -> AbstractContextManager[None]:
    """Run what is inside as if nothing were compiled: for shapes that come once, where a graph each would not pay."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The generators' states, by the names under which a checkpoint keeps them."""
    states = {"random.cpu": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
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
