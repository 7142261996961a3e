"""Where the time of a training step goes: `pretrain train --profile`.

After the first WARMUP steps of a call, in which compilers and caches settle, STEPS steps are recorded by torch's
profiler: on a GPU its kernels alone, since recording every operation would slow the process that launches them; on a
CPU the operations and the compiled kernels. profile.json holds the seconds, profile.txt the same as a table. Recording
changes no result.

The device is busy while any kernel runs; what is left of the steps is waiting: for data, or for the host, which has
not launched the next kernel yet. `synchronizations` are the host's waits for the GPU, of which a step needs none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from common.files import to_json, write_atomically

WARMUP, STEPS = 3, 3
PARTS = {  # the first pattern that occurs in a kernel's name decides
    "compiled elementwise": r"^(triton_(?!tem)|cpp_)",  # first, since their names list what they compute
    "communication": r"nccl|gloo|allreduce|all_gather|reduce_scatter",
    "attention": r"flash|fmha|attention|varlen|sdpa",
    "batched products (attention on a CPU, Muon)": r"bmm",
    "matrix products": r"gemm|triton_tem|nvjet|cutlass|cublas|::mm|addmm|linear|matmul",
    "optimizer and clipping": r"adam|multi_tensor|foreach|norm_",
    "copies": r"memcpy|memset|copy_|aten::cat",
}


class Profile:
    """Records the steps WARMUP + 1 to WARMUP + STEPS of a call, then writes profile.json and profile.txt."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """On a CPU, call this before the model is compiled: the compiler must name its kernels to the profiler."""
        self.folder, self.device = folder, device
        self.done, self.seconds, self.waited, self.flops = -WARMUP, 0.0, 0.0, 0.0
        self.recorder: Any = None
        if device.type == "cpu":
            import torch._inductor.config as inductor

            inductor.cpp.enable_kernel_profile = True

    @contextmanager
    def step(self) -> Iterator[None]:
        if self.done == 0:
            activity = ProfilerActivity.CUDA if self.device.type == "cuda" else ProfilerActivity.CPU
            self._synchronize()
            recorder = profile(activities=[activity], acc_events=True)
            recorder.start()
            self.recorder = recorder
            self.begun = time.perf_counter()
        yield

    def add(self, flops: float, waited: float, peak: float) -> bool:
        """Count a step of `flops` that waited so many seconds for data; whether the profile is written now."""
        self.done += 1
        if self.done <= 0:
            return False
        self.flops, self.waited = self.flops + flops, self.waited + waited
        if self.done < STEPS:
            return False
        self._synchronize()
        self.seconds = time.perf_counter() - self.begun
        self.recorder.stop()
        result = self._result(peak)
        write_atomically(self.folder / "profile.json", to_json(result))
        write_atomically(self.folder / "profile.txt", table(result).encode())
        return True

    def close(self) -> None:
        """End a recording that no step will complete."""
        if self.recorder is not None and self.done < STEPS:
            self.recorder.stop()

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _result(self, peak: float) -> dict[str, Any]:
        """All times in seconds a step."""
        on_gpu = self.device.type == "cuda"
        wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
        kernels, parts, synchronized = [], dict.fromkeys([*PARTS, "other"], 0.0), 0.0
        for event in self.recorder.key_averages():
            if "Synchronize" in event.key:
                synchronized += event.self_cpu_time_total
            if event.device_type != wanted or getattr(event, "is_user_annotation", False):
                continue
            seconds = (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6 / STEPS
            parts[part := part_of(event.key)] += seconds
            kernels.append({"name": event.key, "part": part, "calls": event.count / STEPS, "seconds": seconds})
        spans = [(e.time_range.start, e.time_range.end) for e in self.recorder.events() if e.device_type == wanted]
        seconds = self.seconds / STEPS
        return {
            "device": str(self.device),
            "steps": STEPS,
            "seconds": seconds,
            "utilisation": self.flops / self.seconds / peak,
            "busy": union(spans) / 1e6 / STEPS,
            "data_wait": self.waited / STEPS,
            "synchronizations": synchronized / 1e6 / STEPS,
            "parts": dict(sorted(parts.items(), key=lambda item: -item[1])),
            "kernels": sorted(kernels, key=lambda kernel: -kernel["seconds"]),
        }


def part_of(kernel: str) -> str:
    """The part of a step that a kernel belongs to, by its name."""
    return next((part for part, pattern in PARTS.items() if re.search(pattern, kernel, re.IGNORECASE)), "other")


def union(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    length, end = 0.0, float("-inf")
    for begin, finish in sorted(spans):
        length += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    return length


def table(result: dict[str, Any], kernels: int = 40) -> str:
    """A profile as text: waits, parts, and the kernels that take longest."""
    whole = result["seconds"]

    def row(seconds: float, name: str) -> str:
        return f"{1e3 * seconds:10.2f} ms  {seconds / whole:6.1%}  {name}"

    waits = {"a step": whole, "busy": result["busy"], "idle": whole - result["busy"]}
    waits |= {"waits for data": result["data_wait"], "host waits for the GPU": result["synchronizations"]}
    lines = [f"{result['device']}, {result['steps']} steps, {result['utilisation']:.1%} of the peak", ""]
    lines += [row(seconds, name) for name, seconds in waits.items()]
    lines += ["", *(row(seconds, part) for part, seconds in result["parts"].items() if seconds)]
    lines += ["", *(row(k["seconds"], f"{k['calls']:7.1f} x {k['name'][:90]}") for k in result["kernels"][:kernels])]
    return "\n".join(lines) + "\n"
