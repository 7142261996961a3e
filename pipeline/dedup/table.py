"""The columns of all documents that the passes of `dedup` share, on disk, read by node.

The signatures pass writes segments of at most SEGMENT documents: memory stays bounded however large an input file is. A
node is a document's row number in this table; it names the document between the passes of one build alone. What leaves
the stage carries ids, which the last pass checks. A segment is a folder:

    columns.bin             the fixed-width columns (`Table.columns`), one after the other
    strings.bin             texts of `path` and `url`, each different one of a batch once; the column has (start,
                            size), size -1 for null
    shingles.bin            shingle sets, where pairs are compared exactly
    exact.bin, band.bin     how many keys, the sorted uint64 keys, and the uint32 row of each

Keys are divided into partitions by their upper bits, so that every partition is a slice of each segment: 25 us to take
one. Files are mapped, one segment at a time. None is flushed to the disk: the hash in the task's receipt tells a file
that a power failure tore.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import accumulate, pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import PipelineError
from common.files import atomic_file
from pipeline.kernels.clusters import gather
from pipeline.kernels.minhash import I64, U32, U64

SEGMENT = 16_384
Array = np.ndarray[Any, np.dtype[Any]]


class Table:
    """Documents of the stage's inputs and, after them, of the indexes of earlier corpora.

    counts: documents of each signature task, in order; hashes: per signature; columns: {name: (type, values a row)}.
    """

    def __init__(self, workdir: Path, counts: list[int], hashes: int) -> None:
        self.hashes = hashes
        self.folder = workdir / ".scratch/documents"
        self._root = str(self.folder)
        self.columns: dict[str, tuple[Any, int]] = {
            **dict.fromkeys(("id", "exact"), (np.uint64, 2)),
            **dict.fromkeys(("source", "length", "date", "offset"), (np.int64, 1)),
            **dict.fromkeys(("path", "url", "shingles"), (np.int64, 2)),  # start, size
            "scope": (np.uint64, 1),
            "signature": (np.uint32, hashes),
        }
        sizes = [width * np.dtype(kind).itemsize for kind, width in self.columns.values()]
        self._row_bytes = sum(sizes)
        self._before = dict(zip(self.columns, accumulate([0, *sizes]), strict=False))  # bytes a row before the column
        self.starts = np.cumsum([0, *counts], dtype=np.int64)  # first node of each task
        self._parts = np.cumsum([0, *(-(-count // SEGMENT) for count in counts)], dtype=np.int64)  # its first segment
        task = np.repeat(np.arange(len(counts)), np.diff(self._parts))
        part = np.arange(len(task)) - self._parts[task]
        self._starts = np.append(self.starts[task] + part * SEGMENT, self.starts[-1])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def segment(self, task: int, part: int) -> Path:
        """Folder of a segment."""
        return self.folder / f"{task:05d}-{part:05d}"

    def rows(self, nodes: I64, *names: str) -> list[Array]:
        """Values of some columns for any nodes, in their order: (nodes,), or (nodes, n) of n values a row."""
        out = [
            np.empty((len(nodes), width)[: 1 + (width > 1)], kind)
            for kind, width in (self.columns[name] for name in names)
        ]
        for number, positions, rows in by_segment(nodes, self._starts):
            count = int(self._starts[number + 1] - self._starts[number])
            data = mapped(path := self._path(number, "columns.bin"))
            if len(data) != count * self._row_bytes:
                raise damaged(path, f"it has {len(data)} bytes where {count * self._row_bytes} are expected")
            for name, values in zip(names, out, strict=True):
                kind, width = self.columns[name]
                column = data[count * self._before[name] :][: count * width * np.dtype(kind).itemsize].view(kind)
                values[positions] = (column.reshape(count, width) if width > 1 else column)[rows]
        return out

    def strings(self, nodes: I64, places: I64) -> list[bytes | None]:
        """UTF-8 of a text column (`path`, `url`) for any nodes, in their order; places: values of that column."""
        data, offsets = self._pieces("strings.bin", np.uint8, places, nodes)
        joined, sizes = data.tobytes(), places[:, 1].tolist()
        return [None if sizes[i] < 0 else joined[low:high] for i, (low, high) in enumerate(pairwise(offsets.tolist()))]

    def shingles(self, nodes: I64, places: I64) -> tuple[U32, I64]:
        """Shingle sets of any nodes, joined, and their offsets (nodes + 1,); places: values of column `shingles`."""
        return self._pieces("shingles.bin", np.uint32, places, nodes)

    def partition(self, name: str, number: int, partitions: int) -> tuple[U64, I64]:
        """(keys, nodes) of one partition of the sorted pairs `name` (exact, band)."""
        keys, nodes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for segment, start in enumerate(self._starts[:-1].tolist()):
            path = self._path(segment, f"{name}.bin")
            data = mapped(path)
            count = int.from_bytes(data[:8].tobytes(), "little")
            if len(data) != 8 + 12 * count:
                raise damaged(path, f"it has {len(data)} bytes")
            column = data[8 : 8 + 8 * count].view(np.uint64)
            cut, low, high = partition_slice(column, number, partitions)
            part = column[cut].copy()
            if len(part) and (part[0] < low or part[-1] > high or (part[1:] < part[:-1]).any()):
                raise damaged(path, "its keys are not in order")
            keys.append(part)
            nodes.append(data[8 + 8 * count :].view(np.uint32)[cut].astype(np.int64) + start)
        return np.concatenate(keys), np.concatenate(nodes)

    def _pieces(self, file: str, kind: Any, places: I64, nodes: I64) -> tuple[Array, I64]:
        """The nodes' pieces of a file of variable width, joined, and their offsets; places: start and size of each."""
        offsets = np.concatenate([[0], np.cumsum(np.maximum(places[:, 1], 0))])
        out = np.empty(offsets[-1], kind)
        for number, positions, _ in by_segment(nodes, self._starts):
            path = self._path(number, file)
            values, chosen = mapped(path, kind), places[positions]
            if chosen[:, 0].min() < 0 or chosen.sum(axis=1).max() > len(values):
                raise damaged(path, f"it ends after {len(values)} values")
            gather(values, chosen, offsets[positions], out)
        return out, offsets

    def _path(self, number: int, file: str) -> str:
        """A file of a segment; a string, since joins ask for one some thousand times a second."""
        task = int(self._parts.searchsorted(number, side="right")) - 1
        return f"{self._root}/{task:05d}-{number - self._parts[task]:05d}/{file}"


def by_segment(places: I64, starts: I64) -> Iterator[tuple[int, I64, I64]]:
    """(segment, positions in `places`, places within the segment) for each segment that holds some of the places.

    places: nodes or addresses; starts: first of each segment, and the end of the last.
    """
    order = np.argsort(places)
    owner = np.searchsorted(starts, places[order], side="right") - 1
    bounds = np.flatnonzero(np.diff(owner, prepend=-1, append=-1))
    for low, high in pairwise(bounds.tolist()):
        segment, positions = int(owner[low]), order[low:high]
        yield segment, positions, places[positions] - starts[segment]


def partition_slice(keys: U64, number: int, partitions: int) -> tuple[slice, Any, Any]:
    """(slice of ascending keys that is partition `number`, lowest key of that partition, highest)."""
    low = np.uint64(-(-(number << 64) // partitions))
    high = np.uint64(-(-((number + 1) << 64) // partitions) - 1)
    begin = int(np.searchsorted(keys, low, side="left"))
    return slice(begin, int(np.searchsorted(keys, high, side="right"))), low, high


def save(path: Path, *arrays: Array) -> Path:
    """Write arrays one after the other to a file that appears complete; returns its path."""
    with atomic_file(path, durable=False) as file:
        for array in arrays:
            np.ascontiguousarray(array).tofile(file)
    return path


def save_keys(path: Path, keys: U64, rows: Array) -> Path:
    """Write sorted keys and the row of each, as `Table.partition` reads them; returns the path."""
    return save(path, np.array([len(keys)]), keys, rows.astype(np.uint32))


def save_array(path: Path, array: Array) -> Path:
    """Write a .npy file; returns its path."""
    with atomic_file(path, durable=False) as file:
        np.save(file, array)
    return path


def load_array(path: Path, *, mapped: bool = False) -> Array:
    """Read a .npy file. Raises PipelineError that names a damaged one."""
    try:
        array: Array = np.load(path, mmap_mode="r" if mapped else None)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, str(error)) from error
    return array


def mapped(path: Path | str, kind: Any = np.uint8) -> Array:
    """The values of a file, mapped. Raises PipelineError that names a missing or damaged one."""
    try:
        number = os.open(path, os.O_RDONLY)
        try:
            empty = not os.fstat(number).st_size
            return np.frombuffer(b"" if empty else mmap(number, 0, access=ACCESS_READ), kind)
        finally:
            os.close(number)
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path | str, reason: str) -> PipelineError:
    """The error for an intermediate file that is not as a pass wrote it."""
    return PipelineError(f"{path}: damaged intermediate file ({reason}); run the recipe again, which rebuilds it")
