"""Named tensors in safetensors files: in one file whole, or cut into rows that lie in several.

A process of a sharded run writes its own rows of each tensor; the header of its file says which they are: metadata
`rows`, JSON {name: [first row, rows of the whole tensor]}. Reading puts together what was cut, into other slices where
these are asked for, so that any number of processes goes on from what any other number wrote. Nothing is read before
it is asked for, and only the rows that are.
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
