"""Checkpoints: written in the background, published by one rename, hashed, and verified before they are read.

    checkpoints/step-00000100/
      model.safetensors  optimizer.safetensors  state.json
      manifest.json      bytes and SHA-256 of the others, written last

A sharded run (FSDP2) has `model.0-of-2.safetensors` and so on instead (trainer.tensors): each process writes the rows
that it holds, any number of processes reads them, and none ever holds more than its own part.

Loading verifies every hash before a byte is used, and falls back to the newest intact checkpoint, naming the damaged
ones. Nothing is pickled; a pickle is refused.

Saving has two halves. The training thread copies the tensors into host memory that is allocated once (pinned where
they come from a GPU). A background thread of each process writes the copies into `.step-00000100.partial`, syncs and
hashes them; the main process renames the folder once all have done so. At most one save is in flight. A kill at any
instant leaves the earlier checkpoints.

Costs: host memory, a write and a read (for the hashes) of 4 bytes per parameter for the model and 4 (Muon) or 8
(AdamW) for the optimizer. Training waits only for the copy.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from common.errors import TrainerError
from common.files import sha256, sync, to_json
from trainer.parallel import ALONE, World
from trainer.tensors import Rows, Tensors, local_part, local_rows, write_tensors

NAME = re.compile(r"step-(\d{8,})")
PART = re.compile(r"(model|optimizer)(?:\.(\d+)-of-(\d+))?\.safetensors")
STATE, MANIFEST = "state.json", "manifest.json"
Records = dict[str, dict[str, Any]]  # {"bytes", "sha256"} by file name
T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; its tensors are read on access."""

    path: Path
    step: int
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]

    @property
    def model_sha256(self) -> str:
        """Hash of the model's file; of several files, their hashes joined by `+`."""
        files = _listed(self.path)
        return "+".join(files[path.name]["sha256"] for path in _parts(self.path, "model"))


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint (None where there is none) and a message for each newer, damaged one.

    Raises TrainerError where all checkpoints are damaged.
    """
    newest, damage = find_newest(folder)
    return None if newest is None else load(newest), damage


def find_newest(
    folder: Path, accept: Callable[[dict[str, Any]], bool] = lambda state: True
) -> tuple[Path | None, list[str]]:
    """Like `load_newest`, but returns the folder only, and ignores checkpoints whose state `accept` rejects."""
    messages: list[str] = []
    rejected = False
    for _, path in reversed(list_checkpoints(folder)):
        if (damage := _damage(path)) is not None:
            messages.append(f"checkpoint {path} is damaged: {damage}")
        elif accept(json.loads((path / STATE).read_bytes())):
            if messages:
                messages[-1] += f"; resuming from {path.name}"
            return path, messages
        else:
            rejected = True
    if messages and not rejected:
        raise TrainerError("; ".join(messages) + f". No intact one is left; delete {folder} to train from the start")
    return None, messages


def load_step(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of one step. Raises TrainerError where it is damaged or absent (naming the steps that exist)."""
    published = dict(list_checkpoints(folder))
    if step not in published:
        existing = ", ".join(map(str, published)) or "none"
        raise TrainerError(f"{folder} has no checkpoint of step {step}; existing steps: {existing}")
    if (damage := _damage(published[step])) is not None:
        raise TrainerError(f"checkpoint {published[step]} is damaged: {damage}")
    return load(published[step])


def load(path: Path) -> Checkpoint:
    """A checkpoint whose files were verified before."""
    state: dict[str, Any] = json.loads((path / STATE).read_bytes())
    model, optimizer = (Tensors(_parts(path, kind)) for kind in ("model", "optimizer"))
    return Checkpoint(path, state["step"], model, optimizer, state)


def _parts(path: Path, kind: str) -> list[Path]:
    """The listed files of one kind of tensors, by rank."""
    matches = [match for name in _listed(path) if (match := PART.fullmatch(name)) and match[1] == kind]
    return [path / match[0] for match in sorted(matches, key=lambda match: int(match[2] or 0))]


def _listed(path: Path) -> Records:
    files: Records = json.loads((path / MANIFEST).read_bytes())["files"]
    return files


def _damage(path: Path) -> str | None:
    """How a checkpoint's files differ from its manifest, or None."""
    try:
        listed = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in _listed(path).items()}
        if unlisted := _expected(listed) - listed.keys():
            return f"{MANIFEST} does not list {', '.join(sorted(unlisted))}"
        with ThreadPoolExecutor() as pool:
            differences = pool.map(lambda name: _difference(path / name, *listed[name]), listed)
            return next((difference for difference in differences if difference is not None), None)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{error.filename or path} cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error!r})"


def _expected(names: Iterable[str]) -> set[str]:
    """The files that a checkpoint with files of these names must have."""
    sizes = {match[3] for name in names if (match := PART.fullmatch(name))}
    parts = [f".{rank}-of-{size}" for size in sizes if size for rank in range(int(size))] or [""]
    return {STATE, *(f"{kind}{part}.safetensors" for kind in ("model", "optimizer") for part in parts)}


def _difference(path: Path, size: int, expected: str) -> str | None:
    """How a file differs from its record, or None."""
    if not path.is_file():
        return f"{path.name} is missing"
    if (actual := path.stat().st_size) != size:
        return f"{path.name} has {actual} bytes, {size} were written"
    if sha256(path) != expected:
        return f"the SHA-256 of {path.name} is not the one recorded when it was written"
    with path.open("rb") as file:  # safetensors begin with the length of a JSON object, then that object
        is_safe = int.from_bytes(file.read(8), "little") < size and file.read(1) == b"{"
    if path.suffix == ".safetensors" and not is_safe:
        return f"{path.name} is not a safetensors file (a pickle is never loaded)"
    return None


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of each published checkpoint, oldest first."""
    matches = ((NAME.fullmatch(path.name), path) for path in folder.glob("step-*") if path.is_dir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def best_step(folder: Path) -> int | None:
    """The step with the lowest held-out loss among checkpoints evaluated at their own step; None without any."""
    losses = {}
    for step, path in list_checkpoints(folder):
        try:
            state = json.loads((path / STATE).read_bytes())
        except (OSError, ValueError):  # damaged: whoever loads it is told
            continue
        loss = (state.get("validation") or {}).get("loss")
        if loss is not None and state.get("evaluated") == step:
            losses[step] = loss
    return min(reversed(losses), key=losses.__getitem__, default=None)


def set_aside(folder: Path, step: int) -> None:
    """Rename checkpoints after `step` (damaged, or rejected because of the ledger) to step-*.unused.

    Otherwise they would count as the newest ones to keep. An earlier .unused folder of the same step is deleted.
    """
    for later, path in list_checkpoints(folder):
        if later > step:
            unused = path.with_name(f"{path.name}.unused")
            shutil.rmtree(unused, ignore_errors=True)
            path.rename(unused)


def remove(path: Path) -> None:
    """Delete a checkpoint; it is hidden first, so that a kill half-way leaves no damaged one."""
    hidden = path.with_name(f".{path.name}.deleted")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden)


@dataclass(frozen=True)
class Retention:
    """Which checkpoints to keep: the `last` newest, multiples of `every`, one at least `span` steps back, the best."""

    last: int
    every: int | None = None
    span: int = 0

    def dropped(self, steps: list[int], best: int | None = None) -> list[int]:
        """Those of `steps` (ascending) to delete."""
        kept = {*steps[-self.last :], best}
        if self.every:
            kept |= {step for step in steps if step % self.every == 0}
        if self.span and (before := [step for step in steps if step <= steps[-1] + 1 - self.span]):
            kept.add(before[-1])
        return [step for step in steps if step not in kept]


class Writer:
    """Writes a run's checkpoints in the background, one at a time."""

    def __init__(self, folder: Path, retention: Retention, world: World = ALONE) -> None:
        """world: the processes that hold parts of the tensors; each has a Writer, on a file system that all share."""
        self.folder, self.retention, self.world = folder, retention, world
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._step = 0
        self._failure: Exception | None = None

    def save(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: dict[str, Any]
    ) -> None:
        """Start writing the checkpoint of `step`; the tensors may change once this returns.

        Call `collect` for the one before first. `state` is taken from the main process.
        """
        files, part = {}, f".{self.world.rank}-of-{self.world.size}" if self.world.size > 1 else ""
        for kind, tensors in (("model", model), ("optimizer", optimizer)):
            rows = {name: span for name, tensor in tensors.items() if (span := local_rows(tensor)) is not None}
            mine = [name for name in tensors if name in rows or self.world.main]
            copies = {name: self._copy(f"{kind}/{name}", local_part(tensors[name]).detach()) for name in mine}
            files[f"{kind}{part}.safetensors"] = copies, rows
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._step, text = step, to_json(state)
        self._thread = threading.Thread(target=self._write, args=(step, files, text), name="checkpoint")
        self._thread.start()

    def collect(self, *, wait: bool = True) -> tuple[int, Path] | None:
        """Step and folder of the checkpoint that was being written, once; None where there is none or not yet.

        Raises TrainerError where it could not be written; earlier checkpoints are then untouched.
        """
        if self._thread is None or (self._thread.is_alive() and not wait):
            return None
        self._thread.join()
        self._thread, failure, self._failure = None, self._failure, None
        if failure is not None:
            kept = ", ".join(path.name for _, path in list_checkpoints(self.folder)) or "none"
            raise TrainerError(
                f"the checkpoint of step {self._step} could not be written to {self.folder}: {failure}. Checkpoints "
                f"there: {kept}"
            ) from failure
        return self._step, checkpoint_path(self.folder, self._step)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        return buffer.copy_(tensor, non_blocking=True)

    def _write(self, step: int, files: Mapping[str, tuple[dict[str, Tensor], Rows]], state: bytes) -> None:
        final = checkpoint_path(self.folder, step)
        partial = self.folder / f".{final.name}.partial"

        def begin() -> None:
            if self.world.main:
                for leftover in self.folder.glob(".step-*"):
                    shutil.rmtree(leftover)
                partial.mkdir(parents=True)
                (partial / STATE).write_bytes(state)

        def write() -> Records:
            for name, (tensors, rows) in files.items():
                write_tensors(partial / name, tensors, rows)
            written = [partial / name for name in [*files, *([STATE] if self.world.main else [])]]
            for path in written:
                sync(path)
            return {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in written}

        def finish() -> None:
            if self.world.main:
                _publish(partial, final, {"step": step, "files": dict(sorted(written.items()))})
                steps = dict(list_checkpoints(self.folder))
                for old in self.retention.dropped(list(steps), best_step(self.folder)):
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
        """The results of `work` in all processes, once all are done. Raises OSError in all where one fails."""
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


def _publish(partial: Path, final: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest into a folder whose files are on the disk, and rename the folder to `final`."""
    (partial / MANIFEST).write_bytes(to_json(manifest))
    sync(partial / MANIFEST)
    sync(partial)
    if final.exists():  # a damaged one, or one from before a rollback
        remove(final)
    partial.rename(final)
    sync(final.parent)
