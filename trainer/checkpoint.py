"""Checkpoints that are whole or absent: safetensors and JSON, hashed, published by one rename.

    checkpoints/step-00000100/
      model.safetensors  optimizer.safetensors  state.json
      manifest.json      bytes and SHA-256 of the three, written last

A checkpoint is written into `.step-00000100.partial`, synced, and renamed; a kill at any instant leaves the one
before. Loading verifies every hash before a byte is used and falls back to the newest checkpoint that is whole,
saying which ones are not. Nothing is pickled. Costs: one write and one read-back (for the hashes) of 4 bytes per
parameter for the model, 4 (Muon) or 8 (AdamW) for the optimizer.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def save(
    folder: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: dict[str, Any],
    keep_last: int,
) -> Path:
    """Write the checkpoint of `step`, then delete all but the newest `keep_last`. Returns its folder.

    Raises TrainerError where the disk refuses; what was there before is then untouched.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        _discard_leftovers(folder)
        partial.mkdir(parents=True)
        for name, tensors in ((MODEL, model), (OPTIMIZER, optimizer)):
            save_file({key: tensor.detach().cpu() for key, tensor in tensors.items()}, partial / name)
        (partial / STATE).write_bytes(to_json(state))
        files = {}
        for name in (MODEL, OPTIMIZER, STATE):
            sync(partial / name)
            files[name] = {"bytes": (partial / name).stat().st_size, "sha256": sha256(partial / name)}
        (partial / MANIFEST).write_bytes(to_json({"step": step, "files": files}))
        sync(partial / MANIFEST)
        sync(partial)
        if final.exists():  # a damaged one, or training went back behind it
            _remove(final)
        partial.rename(final)
        sync(folder)
        for _, path in _steps(folder)[:-keep_last]:
            _remove(path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        kept = ", ".join(path.name for _, path in _steps(folder)) or "none"
        raise TrainerError(
            f"the checkpoint of step {step} could not be written to {folder}: {error}. Whole checkpoints there: "
            f"{kept}. Make room and start the same command again"
        ) from error
    return final


def load_newest(folder: Path, *, optimizer: bool = True) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose hashes hold, and one message for each newer one whose do not.

    None where there is no checkpoint at all. Raises TrainerError where there are some and all are damaged.
    """
    damage: list[str] = []
    for step, path in reversed(_steps(folder)):
        found = _damage(path)
        if found is None:
            if damage:
                damage[-1] += f"; going on from {path.name}"
            return _load(path, step, optimizer), damage
        damage.append(f"checkpoint {path} is damaged: {found}")
    if damage:
        raise TrainerError("; ".join(damage) + f". None is whole; delete {folder} to train from the start")
    return None, []


def steps(folder: Path) -> list[int]:
    """Steps of the published checkpoints, oldest first."""
    return [step for step, _ in _steps(folder)]


def load_step(folder: Path, step: int) -> Checkpoint:
    """The model of one step's checkpoint. Raises TrainerError where it is absent (naming what is there) or damaged."""
    published = dict(_steps(folder))
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
        files = json.loads((path / MANIFEST).read_bytes())["files"]
        listed = {name: (files[name]["bytes"], files[name]["sha256"]) for name in (MODEL, OPTIMIZER, STATE)}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error!r})"
    for name, (size, expected) in listed.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if (found := (path / name).stat().st_size) != size:
            return f"{name} has {found} bytes, {size} were written"
        if sha256(path / name) != expected:
            return f"the SHA-256 of {name} is not the one recorded when it was written"
    return None


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """Published checkpoints, oldest first."""
    found = ((NAME.fullmatch(path.name), path) for path in folder.glob("step-*") if path.is_dir())
    return sorted((int(match[1]), path) for match, path in found if match)


def _remove(path: Path) -> None:
    """Delete a checkpoint so that a kill half-way leaves no damaged one behind."""
    hidden = path.with_name(f".{path.name}.deleted")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _discard_leftovers(folder: Path) -> None:
    for path in folder.glob(".step-*"):
        shutil.rmtree(path)
