"""Pass `passages`: the texts that take part in `dedup.substrings`, and their anchors, on disk.

Every byte of every text has an address: tasks in order, within a task segments of SEGMENT_BYTES, within a segment
documents in order, a zero byte behind each. So two addresses say which copy comes first, and their distance whether
two copies overlap. A segment's folder holds `text`, `bounds` (of its documents, (n + 1,)) and `anchors`, sorted by
key (`pipeline.kernels.repeats.winnow`), so that a partition of the keys is a slice of each. Duplicates, and texts
shorter than `min_bytes`, have no bytes. Disk: the text itself and some 0.2 bytes of anchors a byte; memory: a segment,
and 32 bytes for each byte of the longest document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.config import DedupConfig, Substrings
from pipeline.dedup.lines import cut_lines, lines_to_cut, site_of
from pipeline.dedup.survivors import read_clusters
from pipeline.dedup.table import (
    Array,
    Table,
    by_segment,
    damaged,
    load_array,
    mapped,
    partition_slice,
    save,
    save_array,
)
from pipeline.documents import text_bytes
from pipeline.kernels.minhash import I64, U64
from pipeline.kernels.repeats import copy_spans, equal_spans, hash_spans, winnow
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

SEGMENT_BYTES = 64 << 20
_FOLDER = ".scratch/passages"


class PassagePass(Pass):
    """Writes the kept texts of one input file, without recurring lines, and their anchors. Notes {anchors}."""

    def __init__(self, build: Build[DedupConfig], table: Table, line_tasks: int) -> None:
        super().__init__("passages", build.workdir, len(build.inputs))
        self.build, self.table, self.line_tasks = build, table, line_tasks
        self.settings = build.settings.substrings or Substrings()

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.build.inputs[rank], *(self.workdir / f".scratch/{name}/*" for name in ("clusters", "line-join"))]

    def weight(self, rank: int) -> float:
        return float(self.build.inputs[rank].stat().st_size)

    def process(self, rank: int, task: Task) -> TaskReport:
        report = TaskReport(notes={"anchors": 0})
        texts, size = [], 0
        for text in self._texts(rank, task):
            texts.append(text)
            size += len(text)
            if size >= SEGMENT_BYTES:
                self._save(rank, texts, report)
                texts, size = [], 0
        self._save(rank, texts, report)
        return report

    def _texts(self, rank: int, task: Task) -> Iterator[bytes]:
        """What each document has at addresses, in order."""
        node, end = int(self.table.starts[rank]), int(self.table.starts[rank + 1])
        documents = max(end - node, 1)
        clusters = read_clusters(self.build, node, end)
        dropped = set(clusters["node"][clusters["node"] != clusters["survivor"]].tolist())
        cuts = lines_to_cut(self.build, self.line_tasks, node, end)
        for table in task.read(self.build.inputs[rank], ["text", "url", "source"]):
            for row, data in enumerate(table["text"].cast(pa.binary()).to_pylist()):
                if node in dropped:
                    data = b""
                elif node in cuts:
                    site = site_of(table["url"][row].as_py(), table["source"][row].as_py())
                    data = cut_lines(data.decode(), site, cuts[node]).encode()
                yield data + b"\0" if len(data) >= self.settings.min_bytes else b""
                node += 1
            task.beat(table.num_rows, text_bytes(table), 1 - (end - node) / documents)

    def _save(self, rank: int, texts: list[bytes], report: TaskReport) -> None:
        folder = self.workdir / _FOLDER / f"{rank:05d}-{len(report.files) // 3:05d}"
        data = np.frombuffer(b"".join(texts), np.uint8)
        bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        anchors = winnow(data, bounds, self.settings.min_bytes)
        order = np.argsort(anchors[0], kind="stable")
        report.files += [
            save(folder / "text.bin", data),
            save_array(folder / "bounds.npy", bounds),
            save(folder / "anchors.bin", *(column[order] for column in anchors)),
        ]
        report.notes["anchors"] += len(order)


class Passages:
    """All that the tasks of the pass wrote, by address. block: bytes of text read at a time."""

    def __init__(self, workdir: Path, block: int) -> None:
        self.folders = sorted((workdir / _FOLDER).iterdir())
        self.block = block
        bounds = (load_array(folder / "bounds.npy", mapped=True) for folder in self.folders)
        ends = np.array([(0, 0), *((part[-1], len(part) - 1) for part in bounds)], np.int64)
        self._starts, self._nodes = np.cumsum(ends, axis=0).T

    def partition(self, number: int, partitions: int) -> tuple[U64, I64, I64, I64]:
        """What `winnow` gave for one partition of the keys, places as addresses."""
        parts = []
        for folder, start in zip(self.folders, self._starts[:-1].tolist(), strict=True):
            data = mapped(path := folder / "anchors.bin")
            count, rest = divmod(len(data), 24)
            if rest:
                raise damaged(path, f"it has {len(data)} bytes")
            keys, places = data[: 8 * count].view(np.uint64), data[8 * count : 16 * count].view(np.int64)
            distances = data[16 * count :].view(np.int32).reshape(2, count)
            cut, *_ = partition_slice(keys, number, partitions)
            parts.append((keys[cut].copy(), places[cut] + start, *distances[:, cut].astype(np.int64)))
        keys, places, least, greatest = map(np.concatenate, zip(*parts, strict=True))
        return keys, places, least, greatest

    def documents(self, low: int, high: int) -> I64:
        """int64 (n + 1,): where the documents from node `low` up to `high` begin, and where the last one ends."""
        first, last = np.searchsorted(self._nodes, [low, high]).tolist()
        parts = [
            load_array(folder / "bounds.npy")[:-1] + start
            for folder, start in zip(self.folders[first:last], self._starts[first:last], strict=True)
        ]
        return np.concatenate([*parts, self._starts[last : last + 1]])

    def find(self, addresses: I64) -> tuple[I64, I64]:
        """(nodes of the documents that hold the addresses, bytes before them in those texts)."""
        nodes, places = np.empty_like(addresses), np.empty_like(addresses)
        for segment, positions, local in by_segment(addresses, self._starts):
            bounds = load_array(self.folders[segment] / "bounds.npy")
            rows = np.searchsorted(bounds, local, side="right") - 1
            nodes[positions], places[positions] = rows + self._nodes[segment], local - bounds[rows]
        return nodes, places

    def hashes(self, starts: I64, ends: I64) -> U64:
        """uint64 (spans,): a hash of the bytes from each start up to its end."""
        out = np.empty(len(starts), np.uint64)
        for segment, positions, local in by_segment(starts, self._starts):
            out[positions] = hash_spans(self._text(segment), local, local + (ends - starts)[positions])
        return out

    def equal(self, starts: I64, others: I64, sizes: I64) -> Array:
        """bool (spans,): whether `sizes` bytes from `starts` on are those from `others` on."""
        out = np.empty(len(starts), bool)
        for low, high in self._blocks(2 * sizes):
            bounds = _bounds(sizes[low:high])
            out[low:high] = equal_spans(
                self._read(starts[low:high], bounds), self._read(others[low:high], bounds), bounds
            )
        return out

    def _blocks(self, sizes: I64) -> Iterator[tuple[int, int]]:
        """(first, end) of consecutive spans that fit into a block together."""
        ends = np.cumsum(sizes)
        low = 0
        while low < len(sizes):
            high = int(np.searchsorted(ends, (ends[low - 1] if low else 0) + self.block, side="right"))
            yield low, (high := max(high, low + 1))
            low = high

    def _read(self, starts: I64, bounds: I64) -> Array:
        """The bytes from each start on, at bounds[i] to bounds[i + 1] of the result."""
        out = np.empty(int(bounds[-1]), np.uint8)
        for segment, positions, local in by_segment(starts, self._starts):
            copy_spans(self._text(segment), local, bounds[positions], bounds[positions + 1], out)
        return out

    def _text(self, segment: int) -> Array:
        return mapped(f"{self.folders[segment]}/text.bin")


def _bounds(sizes: I64) -> I64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
