"""The columns of all documents that the passes of `dedup` share, on disk, read by node.

The signatures pass writes segments of at most SEGMENT documents, each a folder of .npy columns: memory stays bounded
however large an input file is. A node is a document's row number in this table; it names the document between the
passes of one build alone. What leaves the stage carries ids, which the last pass checks. Sorted columns of (key, row)
are divided into partitions by the key's upper bits, so that every partition is a slice of each segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import PipelineError
from common.files import atomic_file
from pipeline.kernels.minhash import I64, U32, U64

SEGMENT = 16_384
Array = np.ndarray[Any, np.dtype[Any]]


class Table:
    """Documents of the stage's inputs and, after them, of the indexes of earlier corpora.

    counts: documents of each signature task, in order; hashes: per signature.
    """

    def __init__(self, workdir: Path, counts: list[int], hashes: int) -> None:
        self.hashes = hashes
        self.folder = workdir / ".scratch/documents"
        sizes = [(task, part, min(SEGMENT, count - part * SEGMENT)) for task, count in enumerate(counts)
                 for part in range(-(-count // SEGMENT))]  # fmt: skip
        self.segments = [self.folder / f"{task:05d}-{part:05d}" for task, part, _ in sizes]
        self._starts = np.cumsum([0, *(size for *_, size in sizes)], dtype=np.int64)
        self.starts = np.cumsum([0, *counts], dtype=np.int64)  # first node of each task

    def __len__(self) -> int:
        return int(self.starts[-1])

    def rows(self, column: str, nodes: I64) -> Array:
        """Values of a column for any nodes, in their order. Holds one segment's file at a time."""
        out: Array | None = None
        for segment, positions, rows in self._by_segment(nodes):
            values = load_array(segment / f"{column}.npy", mapped=True)[rows]
            if out is None:
                out = np.empty((len(nodes), *values.shape[1:]), values.dtype)
            out[positions] = values
        if out is None:
            return np.empty((0, 2), np.uint64) if column in ("id", "exact") else np.empty(0, np.int64)
        return out

    def strings(self, column: str, nodes: I64) -> list[str]:
        """Values of a text column (`source`, `path`, `url`) for any nodes, in their order."""
        out = [""] * len(nodes)
        for segment, positions, rows in self._by_segment(nodes):
            with _reading(path := segment / "names.parquet"):
                values = pq.read_table(path, columns=[column])[column]
            for position, value in zip(positions.tolist(), values.take(pa.array(rows)).to_pylist(), strict=True):
                out[position] = value
        return out

    def shingles(self, nodes: I64) -> tuple[U32, I64]:
        """Shingle sets of any nodes, joined, and their offsets (nodes + 1,)."""
        sets: list[Array] = [np.empty(0, np.uint32)] * len(nodes)
        for segment, positions, rows in self._by_segment(nodes):
            ends = load_array(segment / "shingle_ends.npy")
            values = _map_shingles(segment / "shingles.bin", int(ends[-1]))
            for position, row in zip(positions.tolist(), rows.tolist(), strict=True):
                sets[position] = values[ends[row] : ends[row + 1]].copy()  # a view would keep the file mapped
        offsets = np.cumsum([0, *(len(values) for values in sets)], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint32), *sets]), offsets

    def partition(self, name: str, number: int, partitions: int) -> tuple[Array, I64]:
        """(keys, nodes) of one partition of the sorted column pair `<name>_key`, `<name>_row`."""
        keys, nodes = [], []
        for segment, start in zip(self.segments, self._starts[:-1], strict=True):
            column = load_array(path := segment / f"{name}_key.npy", mapped=True)
            first = column if column.ndim == 1 else column[:, 0]
            cut, low, high = partition_slice(first, number, partitions)
            part = first[cut]
            if len(part) and (part[0] < low or part[-1] > high or (part[1:] < part[:-1]).any()):
                raise damaged(path, "its keys are not in order")
            keys.append(np.array(column[cut]))
            nodes.append(load_array(segment / f"{name}_row.npy", mapped=True)[cut].astype(np.int64) + start)
        if not keys:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        return np.concatenate(keys), np.concatenate(nodes)

    def _by_segment(self, nodes: I64) -> Iterator[tuple[Path, I64, I64]]:
        """(segment, positions in `nodes`, rows of the segment) for each segment that holds some of the nodes."""
        order = np.argsort(nodes, kind="stable")
        owner = np.searchsorted(self._starts, nodes[order], side="right") - 1
        bounds = np.flatnonzero(np.diff(owner, prepend=-1, append=-1))
        for low, high in pairwise(bounds.tolist()):
            number, positions = owner[low], order[low:high]
            yield self.segments[number], positions, nodes[positions] - self._starts[number]


def partition_slice(keys: U64, number: int, partitions: int) -> tuple[slice, Any, Any]:
    """(slice of ascending keys that is partition `number`, lowest key of that partition, highest)."""
    low = np.uint64(-(-(number << 64) // partitions))
    high = np.uint64(-(-((number + 1) << 64) // partitions) - 1)
    begin = int(np.searchsorted(keys, low, side="left"))
    return slice(begin, int(np.searchsorted(keys, high, side="right"))), low, high


def save_array(path: Path, array: Array) -> Path:
    """Write a .npy file atomically; returns its path."""
    with atomic_file(path, durable=False) as file:
        np.save(file, array)
    return path


def save_strings(path: Path, columns: dict[str, list[str]]) -> Path:
    """Write text columns as parquet, atomically; returns the path."""
    with atomic_file(path, durable=False) as file:
        pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), file)
    return path


def load_array(path: Path, *, mapped: bool = False) -> Array:
    """Read a .npy file. Raises PipelineError that names a damaged one."""
    with _reading(path):
        array: Array = np.load(path, mmap_mode="r" if mapped else None)
    return array


def damaged(path: Path, reason: str) -> PipelineError:
    """The error for an intermediate file that is not as a pass wrote it."""
    return PipelineError(f"{path}: damaged intermediate file ({reason}); run the recipe again, which rebuilds it")


def _map_shingles(path: Path, count: int) -> U32:
    """The shingles of a segment, mapped."""
    with _reading(path):
        values = np.asarray(np.memmap(path, np.uint32, "r") if count else np.empty(0, np.uint32))
    if len(values) != count:
        raise damaged(path, f"{len(values)} shingles where {count} are expected")
    return values


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError) as error:  # pyarrow's errors among them
        raise damaged(path, str(error)) from error
