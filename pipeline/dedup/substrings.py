"""Pass `passage-join`, and cutting what it found: spans of `min_bytes` or more that occur twice (`dedup.substrings`).

What is cut (Lee et al. 2021, arXiv:2107.06499): of every window of `min_bytes` bytes that occurs before, in an earlier
document or without overlap in the same one, all bytes; with `keep: none` every occurrence of a window that occurs twice
without overlap. Earlier means at a lower address (`pipeline.dedup.winnowed`), so in the order of the input.

How: windows are equal only if their anchors' k-grams are, at the same distance. A join task takes a partition of the
anchors' keys. An item is an anchor with a range of distances, that is, windows that all hold it. In each round,
items of one group that have the same range and equal bytes from the first window's start to the last one's end (hashed,
then compared) leave only the first of them; the windows of the others are found. The rest is halved: the two halves of
a range are items of their own, grouped by a hash of the bytes that all windows of the half share. An item alone in its
group repeats nowhere and is dropped. After log2(range) rounds an item is one window, and the result is exact. An anchor
costs a round or two unless a repeated passage begins or ends near it, however often a passage repeats.

Memory of a task: `partition_bytes`, and some 100 bytes for each copy of the most frequent passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config import DedupConfig, Substrings
from pipeline.dedup.table import Array, Table, load_array, save_array
from pipeline.dedup.winnowed import PassagePass, Passages
from pipeline.documents import parquet_file
from pipeline.kernels.minhash import I64, U64
from pipeline.kernels.repeats import merge_spans, reach_of
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

CUTS = pa.schema(
    [
        ("id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.string()),
        ("kept_by", pa.string()),
        ("kept_start", pa.int64()),
    ]
)
_ANCHOR_BYTES = 256  # of a task's memory for each anchor of its partition
Piece = tuple[int, int, int]  # (start, end, address of the copy that stays), bytes of one document
_NO_SPANS = np.empty((0, 3), np.int64)


class Items(NamedTuple):
    """Windows that hold the same anchor. All int64 but group.

    group: hash of what the windows share; place: address of the anchor; begin: of the range of distances that is halved
    each round; low, high: least and greatest distance of a window's start to the anchor; found: windows that are cut
    wherever they occur (`keep: none`).
    """

    group: U64
    place: I64
    begin: I64
    low: I64
    high: I64
    found: Array

    def take(self, chosen: Array) -> Items:
        columns: Any = (column[chosen] for column in self)
        return Items(*columns)


class PassageJoinPass(Pass):
    """Writes the spans to cut, (start, end, address of the copy that stays), that one partition of the keys shows."""

    def __init__(self, build: Build[DedupConfig], passages: PassagePass) -> None:
        self.block = build.settings.partition_bytes
        anchors = int(passages.total("notes")["anchors"])
        super().__init__("passage-join", build.workdir, max(1, -(-anchors * _ANCHOR_BYTES // self.block)))
        self.settings = passages.settings

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.workdir / ".scratch/passages/*"]

    def process(self, rank: int, task: Task) -> TaskReport:
        passages = Passages(self.workdir, self.block // 4)
        keys, places, least, greatest = passages.partition(rank, self.tasks)
        items = Items(keys, places, np.zeros_like(places), least, greatest, np.zeros(len(keys), bool))
        spans = np.concatenate([_NO_SPANS, *repeats(passages, items, self.settings)])
        return TaskReport(files=[save_array(_spans_file(self.workdir, rank), merged(spans))])


def repeats(passages: Passages, items: Items, settings: Substrings) -> Iterator[I64]:
    """The repeated windows of the items, grouped by their anchors' keys, as spans (start, end, address of the copy)."""
    length = settings.min_bytes
    size = reach_of(length)
    while True:
        items, heads = _settle(passages, items.take(_repeated(items.group)), length)
        starts = items.place - items.high
        copies = items.place - items.place[heads] >= length
        cut, sources = copies, starts[heads]
        if settings.keep == "none":
            found = np.zeros(len(heads), bool)
            np.logical_or.at(found, heads, copies | items.found)
            cut, sources = found[heads] & ~items.found, starts
            items = items._replace(found=found[heads])
        yield np.column_stack([starts, items.place - items.low + length, sources])[cut]
        items = items.take(~copies)
        if size == 1:
            return
        size //= 2
        items = items.take(_repeated(items.group))
        halves = [_half(passages, items, items.begin + shift, size, length) for shift in (0, size)]
        items = Items(*map(np.concatenate, zip(*halves, strict=True)))


def _settle(passages: Passages, items: Items, length: int) -> tuple[Items, I64]:
    """The items sorted, and for each the first that has the same group, range and bytes."""
    starts, ends = items.place - items.high, items.place - items.low + length
    hashes = passages.hashes(starts, ends)
    order = np.lexsort((items.place, hashes, items.high, items.low, items.group))
    items, hashes, starts, ends = items.take(order), hashes[order], starts[order], ends[order]
    number = np.arange(len(order))
    new = np.ones(len(order), bool)
    new[1:] = False
    for column in (items.group, items.low, items.high, hashes):
        new[1:] |= column[1:] != column[:-1]
    heads: I64 = np.maximum.accumulate(np.where(new, number, 0))
    others = number[~new]
    while len(others):
        rest = others[~passages.equal(starts[heads[others]], starts[others], (ends - starts)[others])]
        new = np.diff(heads[rest], prepend=-1) != 0  # different bytes of one hash: the first of them is the next head
        heads[rest] = rest[np.maximum.accumulate(np.where(new, np.arange(len(rest)), 0))] if len(rest) else rest
        others = rest[~new]
    return items, heads


def _half(passages: Passages, items: Items, begin: I64, size: int, length: int) -> Items:
    """The windows of the items at a distance of `begin` to `begin` + `size` - 1, grouped by the bytes they share."""
    low, high = np.maximum(items.low, begin), np.minimum(items.high, begin + size - 1)
    half = items._replace(begin=begin, low=low, high=high).take(low <= high)
    shared = half.place - half.begin
    return half._replace(group=passages.hashes(shared, shared + length - size + 1))


def _repeated(values: U64) -> Array:
    """Which values occur more than once."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    repeated: Array = counts[inverse] > 1
    return repeated


def merged(spans: I64) -> I64:
    """Spans in order; those that touch and have their copy at one distance are one."""
    spans = spans[np.lexsort((spans[:, 0], spans[:, 2] - spans[:, 0]))]
    joined: I64 = merge_spans(spans)
    return joined[np.lexsort(joined.T[::-1])]


class Cutter:
    """Cuts the documents of one input file, and records what was cut in `path`.

    bounds: addresses of the documents; spans: to cut, by address; cuts: number of the first span of each document.
    """

    def __init__(self, build: Build[DedupConfig], table: Table, join: PassageJoinPass, rank: int) -> None:
        self.path = build.workdir / f"cuts/{rank:05d}.parquet"
        self.cut_spans = self.cut_bytes = 0
        self._table, self._passages = table, Passages(build.workdir, join.block)
        self._low, high = table.starts[rank : rank + 2].tolist()
        self._bounds = self._passages.documents(self._low, high)
        parts = [_NO_SPANS]
        for task in range(join.tasks):
            spans = load_array(_spans_file(build.workdir, task), mapped=True)
            first, last = np.searchsorted(spans[:, 0], self._bounds[[0, -1]]).tolist()
            parts.append(np.array(spans[first:last]))
        self._spans = merged(np.concatenate(parts))
        self._cuts = np.searchsorted(self._spans[:, 0], self._bounds)
        self._keeps_one = join.settings.keep == "one"
        self._stack = ExitStack()
        self._write = self._stack.enter_context(parquet_file(self.path, CUTS))

    def cut(self, first: int, table: pa.Table) -> dict[int, str]:
        """What is left of the texts that lose something, by row. first: node of the first."""
        rest: dict[int, str] = {}
        rows: list[tuple[str, int, int, str]] = []
        sources: list[int] = []
        at = first - self._low
        for row in np.flatnonzero(np.diff(self._cuts[at : at + table.num_rows + 1])).tolist():
            low, high = self._cuts[at + row : at + row + 2].tolist()
            begin, data = self._bounds[at + row], table["text"][row].as_py().encode()
            pieces = at_characters(data, disjoint((self._spans[low:high] - [begin, begin, 0]).tolist()))
            rest[row] = without(data, pieces)
            name = table["id"][row].as_py()
            rows += [(name, start, end, data[start:end].decode()) for start, end, _ in pieces]
            sources += [source for *_, source in pieces]
        self.cut_spans += len(rows)
        self.cut_bytes += sum(end - start for _, start, end, _ in rows)
        columns = [*zip(*rows, strict=True), *self._keepers(np.array(sources, np.int64))]
        if rows:
            self._write(pa.table([pa.array(c, f.type) for c, f in zip(columns, CUTS, strict=True)], CUTS))
        return rest

    def close(self) -> Path:
        """Complete the file of cuts."""
        self._stack.close()
        return self.path

    def _keepers(self, sources: I64) -> tuple[list[str | None], list[int | None]]:
        """Ids of the documents that hold the addresses, and the bytes at which the copies begin there."""
        if not self._keeps_one:
            return [None] * len(sources), [None] * len(sources)
        nodes, starts = self._passages.find(sources)
        return [value.tobytes().hex() for value in self._table.rows(nodes, "id")[0]], starts.tolist()


def without(data: bytes, pieces: list[Piece]) -> str:
    """The text without the pieces and without white space at its ends."""
    starts = [0, *(end for _, end, _ in pieces)]
    ends = [*(start for start, *_ in pieces), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True)).decode().strip()


def disjoint(spans: list[list[int]]) -> list[Piece]:
    """The fewest parts of sorted spans (start, end, source) that cover the same bytes once, sources moved along."""
    parts: list[Piece] = []
    at, number = 0, 0
    while number < len(spans):
        at = max(at, spans[number][0])
        best = spans[number]
        while number < len(spans) and spans[number][0] <= at:
            best = max(best, spans[number], key=lambda span: (span[1], -span[2]))
            number += 1
        if best[1] > at:
            parts.append((at, best[1], best[2] + at - best[0]))
            at = best[1]
    return parts


def at_characters(data: bytes, pieces: list[Piece]) -> list[Piece]:
    """The pieces without the ends of characters of which a part would stay."""
    adjusted: list[Piece] = []
    for (start, end, source), (after, *_) in zip(pieces, [*pieces[1:], (-1, -1, -1)], strict=True):
        begin = _character(data, start, 1)
        end = _character(data, end, 1 if after == end else -1)
        if begin < end:
            adjusted.append((begin, end, source + begin - start))
    return adjusted


def _character(data: bytes, at: int, step: int) -> int:
    """The boundary of a character at or after (`step` 1) or before (-1) a byte."""
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += step
    return at


def _spans_file(workdir: Path, task: int) -> Path:
    return workdir / f".scratch/passage-join/{task:05d}.npy"
