"""Checkpoints that are whole or absent: safetensors and JSON, hashed; how they are found, verified and read.

    checkpoints/step-00000100/
      model.safetensors  optimizer.safetensors  state.json
      manifest.json      bytes and SHA-256 of the others, written last

A sharded run (FSDP2) has `model.0-of-2.safetensors` and so on instead: each process writes the rows that it holds
(trainer.tensors), and any number of processes reads them, so that none ever has more than its own part.

Loading verifies every hash before a byte is used and falls back to the newest checkpoint that is whole, saying which
ones are not. Nothing is pickled, and a pickle is refused. trainer.writer writes them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import TrainerError
from trainer.files import sha256
from trainer.tensors import Tensors

NAME = re.compile(r"step-(\d{8,})")
PART = re.compile(r"(model|optimizer)(?:\.(\d+)-of-(\d+))?\.safetensors")
STATE, MANIFEST = "state.json", "manifest.json"
Records = dict[str, dict[str, Any]]  # {"bytes", "sha256"} by file name
T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, whose tensors are read when they are asked for."""

    path: Path
    step: int
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]

    @property
    def model_sha256(self) -> str:
        """The hash of the file that holds the model; of several, all of them joined by `+`."""
        files = _listed(self.path)
        return "+".join(files[path.name]["sha256"] for path in _parts(self.path, "model"))


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose hashes hold, and one message for each damaged newer one.

    None where there is none. Raises TrainerError where there are some and all are damaged.
    """
    newest, damage = find_newest(folder)
    return None if newest is None else load(newest), damage


def find_newest(
    folder: Path, accept: Callable[[dict[str, Any]], bool] = lambda state: True
) -> tuple[Path | None, list[str]]:
    """As `load_newest`, the folder alone, of those whose state is accepted."""
    damage: list[str] = []
    refused = False
    for _, path in reversed(list_checkpoints(folder)):
        found = _damage(path)
        if found is not None:
            damage.append(f"checkpoint {path} is damaged: {found}")
            continue
        if not accept(json.loads((path / STATE).read_bytes())):
            refused = True
            continue
        if damage:
            damage[-1] += f"; going on from {path.name}"
        return path, damage
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
    return load(published[step])


def load(path: Path) -> Checkpoint:
    """A checkpoint that was found whole."""
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
    """What is wrong with a checkpoint, or None."""
    try:
        return _difference(path)
    except OSError as error:
        return f"{error.filename or path} cannot be read ({error.strerror or error})"


def _difference(path: Path) -> str | None:
    """How the files differ from the manifest, or None."""
    try:
        listed = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in _listed(path).items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error!r})"
    if unlisted := _expected(listed) - listed.keys():
        return f"{MANIFEST} does not list {', '.join(sorted(unlisted))}"
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _wrong(path / name, *listed[name]), listed)
        return next((wrong for wrong in found if wrong is not None), None)


def _expected(names: Iterable[str]) -> set[str]:
    """The files that a checkpoint with files of these names must have."""
    sizes = {match[3] for name in names if (match := PART.fullmatch(name))}
    parts = [f".{rank}-of-{size}" for size in sizes if size for rank in range(int(size))] or [""]
    return {STATE, *(f"{kind}{part}.safetensors" for kind in ("model", "optimizer") for part in parts)}


def _wrong(path: Path, size: int, expected: str) -> str | None:
    """How a file differs from what was recorded, or None."""
    if not path.is_file():
        return f"{path.name} is missing"
    if (found := path.stat().st_size) != size:
        return f"{path.name} has {found} bytes, {size} were written"
    if sha256(path) != expected:
        return f"the SHA-256 of {path.name} is not the one recorded when it was written"
    if path.suffix == ".safetensors" and not _is_safetensors(path):
        return f"{path.name} is not a safetensors file (a pickle is never loaded)"
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
