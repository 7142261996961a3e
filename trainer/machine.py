"""The machine: device, precision, determinism, compilation, memory, signals.

On CUDA, deterministic algorithms rule out some of the faster kernels. Bitwise repeatability also needs the same
torch, device and number of threads, hence `environment`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.utils.deterministic

from common.errors import TrainerError
from trainer.attention import choose
from trainer.model import Transformer

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
MADV_HUGEPAGE, HUGE_PAGE = 14, 1 << 21  # Linux's mman.h
PUBLISHED_BF16 = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "B200": 2250e12}  # data sheets
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
REPEATED = (signal.SIGHUP, signal.SIGUSR1)  # a closed terminal and a scheduler may send these more than once


def find_device(wanted: str) -> torch.device:
    """`auto` is CUDA where there is a GPU. Raises TrainerError for `cuda` without a GPU."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainerError("device: the setting is `cuda`, but torch sees no GPU; use `auto` or `cpu`")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # torchrun's number of this process
    torch.cuda.set_device(device)
    return device


def find_precision(wanted: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies it: GPUs since Ampere, CPUs with AMX or AVX-512 BF16.

    There it is at least twice as fast as fp32 (docs/benchmarks.md); elsewhere it is emulated.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def environment(device: torch.device) -> dict[str, Any]:
    """What the bits of a run depend on besides recipe and data: torch's version, device, number of threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads()}


def processor() -> str:
    """A CPU's name, and the vector instructions that torch takes there: kernels of either round otherwise."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()]
        said = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    except OSError:
        said = {}
    model = [said[name] for name in ("model name", "cpu family", "model") if name in said]
    name = " ".join(model) or platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Allow only kernels that give the same bits each time, if `wanted`, for a `with` block; others raise."""
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
    """FLOP/s for 100 % utilisation: a GPU's published dense rate, else the measured rate of a matrix product."""
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
    """Peak use in bytes: of the GPU's memory by tensors, or of main memory by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def keep_memory() -> None:
    """Make glibc keep freed memory instead of returning it, the first GiB in huge pages; without effect elsewhere.

    A step allocates and frees hundreds of megabytes; mapping and zeroing their pages anew takes a tenth of a step's
    time on a CPU, and looking pages of 4 kB up some hundredths (docs/log.md).
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.malloc.restype = ctypes.c_void_p
    size = (1 << 30) - HUGE_PAGE  # below M_MMAP_THRESHOLD, so that it extends the heap, and nothing touches it yet
    if start := libc.malloc(ctypes.c_size_t(size)):
        first = -(-start // HUGE_PAGE) * HUGE_PAGE
        whole = (start + size - first) // HUGE_PAGE * HUGE_PAGE
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(start))


def compile_model(model: Transformer, attention: str | None = None) -> str | None:
    """Compile every block and the loss in place; where that fails, return a warning and leave the model eager.

    attention: the kernel, by default the one that `trainer.attention.choose` names.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its note on machines without a GPU
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=model.embed_tokens.weight.device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        return (
            f"compile: torch.compile does not work here ({reason}); training continues more slowly without it. "
            "Install a C++ compiler (g++ or clang++) and Python's headers, or set `compile: false`"
        )
    # A graph for each shape: one for all, compiled after an evaluation's smaller batch, may change later steps' bits.
    # torch.compile's documentation names this private setting; its own argument `recompile_limit` is not in torch 2.11.
    torch._dynamo.config.recompile_limit = 64
    for block in model.layers:
        block.compile(dynamic=False)
    model.compiled = True
    model.attention = attention or choose(model.cos.device, model.compute_dtype, model.config.context)
    return None


def uncompiled() -> AbstractContextManager[None]:
    """Run eagerly, for a `with` block: for shapes that occur once, which are not worth compiling."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Gives a list that gets each of STOP_SIGNALS that comes during a `with` block.

    After the first one SIGTERM and SIGINT have their usual effect. A SIGHUP that is ignored (nohup) stays ignored.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def restore(numbers: Iterable[int]) -> None:
        for number in before.keys() & set(numbers):
            signal.signal(number, before.pop(number))

    def note(number: int, *_: object) -> None:
        received.append(number)
        restore(set(STOP_SIGNALS) - set(REPEATED))

    is_main = threading.current_thread() is threading.main_thread()  # handlers cannot be set elsewhere
    for number in STOP_SIGNALS if is_main else ():
        if number not in REPEATED or signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        restore(STOP_SIGNALS)
