"""Writes checkpoints (trainer.checkpoint) beside the training, published by one rename.

Saving has two halves. The training thread copies the tensors into host memory that is allocated once (pinned where
they come from a GPU) and goes on; one background thread writes them into `.step-00000100.partial`, syncs and hashes
them, and the main process renames it once all have. So at most one copy is in flight; the next save waits for the one
before. A kill at any instant leaves the checkpoints before.

Costs: host memory and one write and one read-back (for the hashes) of 4 bytes per parameter for the model, 4 (Muon)
or 8 (AdamW) for the optimizer; training waits for the copy alone.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from trainer.checkpoint import MANIFEST, STATE, Records, list_checkpoints, remove
from trainer.errors import TrainerError
from trainer.files import sha256, sync, to_json
from trainer.parallel import ALONE, World
from trainer.sharding import local_part, place
from trainer.tensors import Places, write_tensors

T = TypeVar("T")


@dataclass(frozen=True)
class Retention:
    """Which checkpoints outlive a newer one: the `last` newest, every `every` steps, and one `span` steps back."""

    last: int
    every: int | None = None
    span: int = 0

    def dropped(self, steps: list[int]) -> list[int]:
        """Those of `steps` (ascending) to delete."""
        kept = set(steps[-self.last :])
        if self.every:
            kept |= {step for step in steps if step % self.every == 0}
        if self.span and (before := [step for step in steps if step <= steps[-1] + 1 - self.span]):
            kept.add(before[-1])
        return [step for step in steps if step not in kept]


class Writer:
    """Writes a run's checkpoints, one at a time, beside the training."""

    def __init__(self, folder: Path, retention: Retention, world: World = ALONE) -> None:
        """world: the processes that hold parts of the tensors, on a file system that they share; each has a Writer."""
        self.folder, self.retention, self.world = folder, retention, world
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._step = 0
        self._failure: Exception | None = None

    def save(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: dict[str, Any]
    ) -> None:
        """Start writing the checkpoint of `step`; the tensors may change once this returns.

        The one before must have been collected (`collect`). `state` is taken from the main process.
        """
        files = {}
        for kind, tensors in (("model", model), ("optimizer", optimizer)):
            places = {name: found for name, tensor in tensors.items() if (found := place(tensor)) is not None}
            mine = [name for name in tensors if name in places or self.world.main]
            copies = {name: self._copy(f"{kind}/{name}", local_part(tensors[name]).detach()) for name in mine}
            files[self._file_name(kind)] = copies, places
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._step, text = step, to_json(state)
        self._thread = threading.Thread(target=self._write, args=(step, files, text), name="checkpoint")
        self._thread.start()

    def collect(self, *, wait: bool = True) -> tuple[int, Path] | None:
        """Step and folder of the checkpoint that was under way, once; None where there is none (or not yet).

        Raises TrainerError where the disk refused it; what was there before is then untouched.
        """
        if self._thread is None or (self._thread.is_alive() and not wait):
            return None
        self._thread.join()
        self._thread, failure, self._failure = None, self._failure, None
        if failure is not None:
            kept = ", ".join(path.name for _, path in list_checkpoints(self.folder)) or "none"
            raise TrainerError(
                f"the checkpoint of step {self._step} could not be written to {self.folder}: {failure}. Whole "
                f"checkpoints there: {kept}"
            ) from failure
        return self._step, self.folder / f"step-{self._step:08d}"

    def close(self) -> None:
        """Let a write that is under way come to its end."""
        if self._thread is not None:
            self._thread.join()

    def _file_name(self, kind: str) -> str:
        part = f".{self.world.rank}-of-{self.world.size}" if self.world.size > 1 else ""
        return f"{kind}{part}.safetensors"

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        return buffer.copy_(tensor, non_blocking=True)

    def _write(self, step: int, files: Mapping[str, tuple[dict[str, Tensor], Places]], state: bytes) -> None:
        final = self.folder / f"step-{step:08d}"
        partial = self.folder / f".{final.name}.partial"

        def begin() -> None:
            if self.world.main:
                _discard_leftovers(self.folder)
                partial.mkdir(parents=True)
                (partial / STATE).write_bytes(state)

        def write() -> Records:
            for name, (tensors, places) in files.items():
                write_tensors(partial / name, tensors, places)
            return {name: _record(partial / name) for name in [*files, *([STATE] if self.world.main else [])]}

        def finish() -> None:
            if self.world.main:
                _publish(partial, final, {"step": step, "files": dict(sorted(written.items()))})
                steps = dict(list_checkpoints(self.folder))
                for old in self.retention.dropped(list(steps)):
                    remove(steps[old])

        try:
            self._together(begin)
            written = {name: record for each in self._together(write) for name, record in each.items()}
            self._together(finish)
        except OSError as error:
            self._failure = error
            if self.world.main:
                shutil.rmtree(partial, ignore_errors=True)

    def _together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives in every process, once all have done it. Raises OSError in all where it fails in one."""
        result, problem = None, None
        try:
            result = work()
        except (OSError, SafetensorError) as error:
            problem = str(error)
        outcomes = self.world.gather((result, problem))
        for _, problem in outcomes:
            if problem is not None:
                raise OSError(problem)
        return [cast(T, result) for result, _ in outcomes]


def _record(path: Path) -> dict[str, Any]:
    """Bring a file to the disk; its size and hash."""
    sync(path)
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _publish(partial: Path, final: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder whose files are on the disk, and rename it to `final`."""
    (partial / MANIFEST).write_bytes(to_json(manifest))
    sync(partial / MANIFEST)
    sync(partial)
    if final.exists():  # a damaged one, or training went back behind it
        remove(final)
    partial.rename(final)
    sync(final.parent)


def _discard_leftovers(folder: Path) -> None:
    for path in folder.glob(".step-*"):
        shutil.rmtree(path)
