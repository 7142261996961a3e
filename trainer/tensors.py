"""Named tensors in safetensors files, complete or as rows: FSDP2's sharded tensors (DTensors) meet files only here.

FSDP2 cuts a tensor's rows evenly: of n processes, process r has the rows from r * c to before (r + 1) * c, where
c = ceil(rows / n); the last ones may have fewer or none. Each process writes its rows to a file of its own, whose
header says which they are: metadata `rows`, JSON {name: [first row, rows of the complete tensor]}. Reading joins the
rows of all files and cuts them anew, so that any number of processes resumes from what any other number wrote.
Files are read lazily, and only the rows that are asked for.
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

Rows = Mapping[str, tuple[int, int]]  # by name: first row, rows of the complete tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], rows: Rows) -> None:
    """Write a file; the tensors named in `rows` are parts. Raises OSError or SafetensorError."""
    save_file(dict(tensors), path, {"rows": json.dumps(rows)} if rows else None)


class Tensors(Mapping[str, Tensor]):
    """The complete tensors of some files, by name; each access reads a new copy."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        """Open the files, which must not change while this is used."""
        self.pieces: dict[str, list[_Piece]] = {}
        for path in paths:
            file: Any = safe_open(path, "pt")
            rows = json.loads((file.metadata() or {}).get("rows", "{}"))
            for name in file.keys():  # noqa: SIM118  (not a dictionary)
                self.pieces.setdefault(name, []).append(_Piece(file, name, *rows.get(name, (0, None))))

    def __getitem__(self, name: str) -> Tensor:
        first = self.pieces[name][0]
        if first.total is not None:
            return self.rows(name, 0, first.total)
        tensor: Tensor = first.file.get_tensor(first.name)
        return tensor.clone()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """The rows from `start` to before `stop` of a tensor. Raises KeyError for an unknown name."""
        parts = []
        for piece in self.pieces[name]:
            rows = piece.file.get_slice(piece.name)
            low, high = max(0, start - piece.first), min(rows.get_shape()[0], stop - piece.first)
            parts.append(rows[low : max(low, high)])
        return torch.cat(parts)

    def under(self, prefix: str) -> Self:
        """The tensors whose names begin with `prefix`, by the rest of their names."""
        selected = type(self)()
        selected.pieces = {
            name.removeprefix(prefix): pieces for name, pieces in self.pieces.items() if name.startswith(prefix)
        }
        return selected

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


class _Piece(NamedTuple):
    """A tensor of one file: rows from `first` on of `total` rows, or the complete tensor where `total` is None."""

    file: Any
    name: str
    first: int
    total: int | None


def gathered(tensor: Tensor) -> Tensor:
    """The complete tensor of a sharded one, gathered by all processes together; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def from_part(part: Tensor, like: Tensor) -> Tensor:
    """The tensor, its rows sharded as those of `like`, whose rows in this process are `part`; `part` where `like` is
    not sharded."""
    if not isinstance(like, DTensor):
        return part
    shape = torch.Size([like.shape[0], *part.shape[1:]])
    return DTensor.from_local(part, like.device_mesh, like.placements, shape=shape, stride=part.stride())


def local_rows(tensor: Tensor) -> tuple[int, int] | None:
    """First row of this process's part and rows of the complete tensor; None where a tensor is not sharded."""
    if not isinstance(tensor, DTensor):
        return None
    rows = tensor.shape[0]
    each = -(-rows // tensor.device_mesh.size())
    return min(tensor.device_mesh.get_local_rank() * each, rows), rows


def take(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A saved tensor, on the device of `like` and sharded like it; of files only this process's rows are read."""
    if (rows := local_rows(like)) is None:
        return tensors[name].to(like.device)
    start, stop = rows[0], rows[0] + len(local_part(like))
    part = tensors.rows(name, start, stop) if isinstance(tensors, Tensors) else tensors[name][start:stop]
    return from_part(part.to(like.device), like)
