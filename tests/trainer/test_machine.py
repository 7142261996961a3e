"""A machine without a compiler, without a GPU, and determinism that is switched back."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from common.errors import TrainerError
from tests.trainer.conftest import Recorder, small_run
from trainer.attention import Bounds, document_bounds
from trainer.config import DataConfig
from trainer.feed import Feed
from trainer.loop import train
from trainer.machine import deterministic, environment, find_device, find_precision, peak_flops, processor
from trainer.parallel import ALONE
from trainer.shards import open_shards


def test_without_a_compiler_training_goes_on_and_says_so(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()  # what earlier tests compiled would stand in for the compiler
    recorder = Recorder()
    with inductor.patch({"cpp.cxx": (None, "no-such-compiler")}):
        result = train(small_run(compile=True, steps=2), shards, tmp_path / "out", recorder)
    assert result.step == 2
    (warning,) = recorder.warnings
    assert warning.startswith("compile: torch.compile does not work here")
    assert "no-such-compiler" in warning


def test_deterministic_mode_ends_with_the_run() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert find_device("auto").type == "cpu"
        with pytest.raises(TrainerError, match="torch sees no GPU"):
            find_device("cuda")


def test_precision_and_peak_of_this_machine() -> None:
    cpu = torch.device("cpu")
    assert find_precision("fp32", cpu) == "fp32"
    capable = torch.cpu.get_capabilities()
    bf16 = capable.get("avx512_bf16") or capable.get("amx_bf16")
    assert find_precision("auto", cpu) == ("bf16" if bf16 else "fp32")
    assert 1e8 < peak_flops(cpu, torch.float32) < 1e14


def test_a_gpus_batches_are_copied_ahead(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed with a stand-in for the GPU: each step's tensors are sent by the reading thread, then received once."""
    events: list[str] = []

    class Uploads:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "cuda"

        def send(self, tensor: torch.Tensor) -> torch.Tensor:
            events.append("main" if threading.current_thread() is threading.main_thread() else "sent")
            return tensor.clone()

        def receive(self) -> None:
            events.append("received")

    monkeypatch.setattr("trainer.feed.Uploads", Uploads)
    opened = open_shards(shards, tmp_path, DataConfig())
    config = small_run(precision="bf16")
    on_gpu, on_cpu = (Feed(config, opened, ALONE, torch.device(kind)) for kind in ("cuda", "cpu"))
    for step in range(3):
        events.clear()
        ours, plain = on_gpu.parts(step), on_cpu.parts(step)
        on_gpu.thread.submit(int).result()  # the next step is read
        for (tokens, targets, bounds), (same, equal, documents) in zip(ours, plain, strict=True):
            assert torch.equal(tokens, same)
            assert torch.equal(targets, equal)
            assert isinstance(bounds, Bounds)
            assert torch.equal(bounds.offsets, document_bounds(documents).offsets)
        sends = ["sent"] * 3 * len(ours)
        assert events == (sends if step == 0 else []) + ["received"] + sends
    on_gpu.close()
    on_cpu.close()


def test_processors_are_told_apart() -> None:
    assert processor().endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    assert environment(torch.device("cpu"))["device"] == processor()


HEAP = """
import os, sys, torch
from trainer.machine import keep_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
torch.ones(1)
if sys.argv[1] == "kept":
    keep_memory()
before = resident()
torch.ones(1 << 26)
flags = [line.split() for line in open("/proc/self/smaps") if line.startswith("VmFlags:")]
print(any("hg" in each for each in flags), resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_kept_in_a_heap_that_may_have_huge_pages(kept: bool) -> None:
    """256 MiB, taken and freed: without `keep_memory` they go back to the system."""
    command = [sys.executable, "-c", HEAP, "kept" if kept else "returned"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    huge = kept and Path("/sys/kernel/mm/transparent_hugepage").exists()
    assert (told[0] == "True", int(told[1]) > 1 << 27) == (huge, kept)
