"""Named tensors in safetensors files: in one file whole, or cut into rows that lie in several.

A process of a sharded run writes its own rows of each tensor; the header of its file says which they are: metadata
`rows`, JSON {name: [first row, rows of the whole tensor]}. Reading puts together what was cut, into other slices where
these are asked for, so that any number of processes goes on from what any other number wrote. Nothing is read before
it is asked for, and only the rows that are.

Sharded tensors and their parts: FSDP2 makes DTensors of parameters, and only this file tells them apart.

FSDP2 cuts a tensor's rows evenly, the last processes having fewer or none: process r of n has rows r * c to
(r + 1) * c, with c = ceil(rows / n).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

Places = Mapping[str, tuple[int, int]]  # (first row, rows of the whole tensor) by name


def write_tensors(path: Path, tensors: Mapping[str, Tensor], places: Places) -> None:
    """Write a file of tensors; those named in `places` are slices. Raises OSError or SafetensorError."""
    save_file(dict(tensors), path, {"rows": json.dumps(places)} if places else None)


class Tensors(Mapping[str, Tensor]):
    """The tensors of some files, by name. What is returned is a copy of its own."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        """Open the files, which must lie there whole and unchanged while this is used."""
        self.pieces: dict[str, list[_Piece]] = {}
        for path in paths:
            file: Any = safe_open(path, "pt")
            places = json.loads((file.metadata() or {}).get("rows", "{}"))
            for name in file.keys():  # noqa: SIM118  (not a dictionary)
                self.pieces.setdefault(name, []).append(_Piece(file, name, *places.get(name, (0, None))))

    def __getitem__(self, name: str) -> Tensor:
        first = self.pieces[name][0]
        if first.whole is not None:
            return self.rows(name, 0, first.whole)
        whole: Tensor = first.file.get_tensor(first.name)
        return whole.clone()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """The rows from `start` to before `stop` of a tensor. Raises KeyError where there is none of that name."""
        slices = [(piece.file.get_slice(piece.name), piece.first) for piece in self.pieces[name]]
        overlaps = [(max(0, start - first), min(rows.get_shape()[0], stop - first)) for rows, first in slices]
        parts = [rows[max(0, low) : max(low, high, 0)] for (rows, _), (low, high) in zip(slices, overlaps, strict=True)]
        return torch.cat(parts)

    def under(self, prefix: str) -> Self:
        """The tensors whose names begin with `prefix`, without it."""
        found = type(self)()
        for name, pieces in self.pieces.items():
            if name.startswith(prefix):
                found.pieces[name.removeprefix(prefix)] = pieces
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


class _Piece(NamedTuple):
    """A tensor of a file: rows from `first` on of one of `whole` rows; all of it where `whole` is None."""

    file: Any
    name: str
    first: int
    whole: int | None


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one, gathered by all processes together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def from_part(part: Tensor, like: Tensor) -> Tensor:
    """The sharded tensor whose part this is, sharded as `like`; the part itself where `like` is not sharded."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())


def place(tensor: Tensor) -> tuple[int, int] | None:
    """First row of this process's part and rows of the whole; None where a tensor is not sharded."""
    if not isinstance(tensor, DTensor):
        return None
    rows = tensor.shape[0]
    each = -(-rows // tensor.device_mesh.size())
    return min(tensor.device_mesh.get_local_rank() * each, rows), rows


def take(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A saved tensor, on the device of `like` and sharded as that is; of files only this process's rows are read."""
    if (found := place(like)) is None:
        return tensors[name].to(like.device)
    start, stop = found[0], found[0] + len(local_part(like))
    rows = tensors.rows(name, start, stop) if isinstance(tensors, Tensors) else tensors[name][start:stop]
    return from_part(rows.to(like.device), like)
