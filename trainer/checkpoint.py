"""Checkpoints that are whole or absent: safetensors and JSON, hashed, published by one rename.

    checkpoints/step-00000100/
      model.safetensors  optimizer.safetensors  state.json
      manifest.json      bytes and SHA-256 of the three, written last

Saving has two halves. The training thread copies the tensors into host memory that is allocated once (pinned where
they come from a GPU) and goes on; one background thread writes them into `.step-00000100.partial`, syncs, hashes,
and renames. So at most one copy is in flight; the next save waits for the one before. A kill at any instant leaves
the checkpoints before. Loading verifies every hash before a byte is used and falls back to the newest checkpoint
that is whole, saying which ones are not. Nothing is pickled, and a pickle is refused.

Costs: host memory and one write and one read-back (for the hashes) of 4 bytes per parameter for the model, 4 (Muon)
or 8 (AdamW) for the optimizer; training waits for the copy alone.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.errors import TrainerError
from trainer.files import sha256, sync, to_json

NAME = re.compile(r"step-(\d{8,})")
MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; `optimizer` is empty where only the model was asked for."""

    path: Path
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


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

    def __init__(self, folder: Path, retention: Retention) -> None:
        self.folder, self.retention = folder, retention
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._step = 0
        self._failure: Exception | None = None

    def save(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: dict[str, Any]
    ) -> None:
        """Start writing the checkpoint of `step`; the tensors may change once this returns.

        The one before must have been collected (`collect`).
        """
        copies = {
            file: {name: self._copy(f"{file}/{name}", tensor.detach()) for name, tensor in tensors.items()}
            for file, tensors in ((MODEL, model), (OPTIMIZER, optimizer))
        }
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._step, text = step, to_json(state)
        self._thread = threading.Thread(target=self._write, args=(step, copies, text), name="checkpoint")
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

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        return buffer.copy_(tensor, non_blocking=True)

    def _write(self, step: int, files: Mapping[str, dict[str, Tensor]], state: bytes) -> None:
        final = self.folder / f"step-{step:08d}"
        partial = self.folder / f".{final.name}.partial"
        try:
            _discard_leftovers(self.folder)
            partial.mkdir(parents=True)
            for name, tensors in files.items():
                save_file(tensors, partial / name)
            (partial / STATE).write_bytes(state)
            publish(partial, final, {"step": step})
            steps = dict(list_checkpoints(self.folder))
            for old in self.retention.dropped(list(steps)):
                remove(steps[old])
        except (OSError, SafetensorError) as error:
            self._failure = error
            shutil.rmtree(partial, ignore_errors=True)


def publish(partial: Path, final: Path, manifest: dict[str, Any]) -> None:
    """Sync and hash the files of `partial`, list them in its manifest, and rename it to `final`."""
    files = {}
    for path in sorted(partial.iterdir()):
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (partial / MANIFEST).write_bytes(to_json(manifest | {"files": files}))
    sync(partial / MANIFEST)
    sync(partial)
    if final.exists():  # a damaged one, or training went back behind it
        remove(final)
    partial.rename(final)
    sync(final.parent)


def load_newest(
    folder: Path, *, optimizer: bool = True, accept: Callable[[dict[str, Any]], bool] = lambda state: True
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose hashes hold and whose state is accepted, and one message for each damaged newer one.

    None where there is no checkpoint to accept. Raises TrainerError where there are some and all are damaged.
    """
    damage: list[str] = []
    refused = False
    for step, path in reversed(list_checkpoints(folder)):
        found = _damage(path)
        if found is not None:
            damage.append(f"checkpoint {path} is damaged: {found}")
            continue
        if not accept(json.loads((path / STATE).read_bytes())):
            refused = True
            continue
        if damage:
            damage[-1] += f"; going on from {path.name}"
        return _load(path, step, optimizer), damage
    if damage and not refused:
        raise TrainerError("; ".join(damage) + f". None is whole; delete {folder} to train from the start")
    return None, damage


def load_step(folder: Path, step: int) -> Checkpoint:
    """The model of one step's checkpoint. Raises TrainerError where it is absent (naming what is there) or damaged."""
    published = dict(list_checkpoints(folder))
    if step not in published:
        there = ", ".join(map(str, published)) or "none"
        raise TrainerError(f"{folder} has no checkpoint of step {step}; there are: {there}")
    if (found := _damage(published[step])) is not None:
        raise TrainerError(f"checkpoint {published[step]} is damaged: {found}")
    return _load(published[step], step, optimizer=False)


def _load(path: Path, step: int, optimizer: bool) -> Checkpoint:
    state: dict[str, Any] = json.loads((path / STATE).read_bytes())
    return Checkpoint(path, step, load_file(path / MODEL), load_file(path / OPTIMIZER) if optimizer else {}, state)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        return _difference(path)
    except OSError as error:
        return f"{error.filename or path} cannot be read ({error.strerror or error})"


def _difference(path: Path) -> str | None:
    """How the files differ from the manifest, or None."""
    try:
        files = json.loads((path / MANIFEST).read_bytes())["files"]
        listed = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error!r})"
    if unlisted := {MODEL, OPTIMIZER, STATE} - listed.keys():
        return f"{MANIFEST} does not list {', '.join(sorted(unlisted))}"
    for name, (size, expected) in listed.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if (found := (path / name).stat().st_size) != size:
            return f"{name} has {found} bytes, {size} were written"
        if sha256(path / name) != expected:
            return f"the SHA-256 of {name} is not the one recorded when it was written"
        if name.endswith(".safetensors") and not _is_safetensors(path / name):
            return f"{name} is not a safetensors file (a pickle is never loaded)"
    return None


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins with a safetensors header, which is the length of a JSON object and that object."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return size < path.stat().st_size and file.read(1) == b"{"


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Published checkpoints, oldest first."""
    found = ((NAME.fullmatch(path.name), path) for path in folder.glob("step-*") if path.is_dir())
    return sorted((int(match[1]), path) for match, path in found if match)


def set_aside(folder: Path, step: int) -> None:
    """Rename checkpoints after `step` (damaged, or beyond what the ledger allows) to step-*.unused.

    They would count as the newest ones to keep. One of each name stays, for whoever wants to look.
    """
    for later, path in list_checkpoints(folder):
        if later > step:
            unused = path.with_name(f"{path.name}.unused")
            shutil.rmtree(unused, ignore_errors=True)
            path.rename(unused)


def remove(path: Path) -> None:
    """Delete a checkpoint so that a kill half-way leaves no damaged one behind."""
    hidden = path.with_name(f".{path.name}.deleted")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden)


def _discard_leftovers(folder: Path) -> None:
    for path in folder.glob(".step-*"):
        shutil.rmtree(path)
