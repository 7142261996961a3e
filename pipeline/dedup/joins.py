"""From sorted keys to edges between documents: passes `exact-join` and `band-join`.

The joins take a task per partition of the keys. Documents whose texts have equal 128-bit hashes are connected at once;
of those in one bucket of a band only the first takes part, and is compared with the others of that band key
(`clusters.similar_pairs`). Within a bucket documents are sorted by id, so edges do not depend on how documents were
divided into tasks. The number of partitions follows from the number of documents and the recipe's `partition_bytes`,
which bounds memory; a larger bucket is compared part by part.

A task leaves the least edges that connect what its edges connect (`forest`), divided by a hash of their nodes among the
tasks of `pipeline.dedup.components`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import DedupConfig
from pipeline.dedup.table import Array, Table, damaged, mapped, save
from pipeline.kernels.clusters import NO_PAIRS, join, labels, similar_pairs
from pipeline.kernels.hashing import splitmix
from pipeline.kernels.minhash import I64, U32, U64
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

_RECORD_BYTES = 48  # a key, its node, their sorted copies, the order and an id
_LINKS = 4  # links of a document, about: both ways, of an edge in the exact join and one in the others


def partitions(documents: int, keys: int, partition_bytes: int) -> int:
    """Number of partitions that keep `keys` records a document within the bound."""
    return max(1, -(-documents * keys * _RECORD_BYTES // partition_bytes))


def link_tasks(table: Table, settings: DedupConfig) -> int:
    """Number of tasks among which links are divided."""
    return partitions(len(table), _LINKS, settings.partition_bytes)


class JoinPass(Pass):
    """Edges between documents that share a key. name: of the keys in the table; keys: a document's."""

    def __init__(self, build: Build[DedupConfig], table: Table, name: str, keys: int) -> None:
        self.settings: DedupConfig = build.settings
        super().__init__(f"{name}-join", build.workdir, partitions(len(table), keys, self.settings.partition_bytes))
        self.table, self.keys = table, name

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.table.folder / f"*/{name}.bin" for name in (self.keys, "columns", "shingles")]

    def process(self, rank: int, task: Task) -> TaskReport:
        keys, nodes = self.table.partition(self.keys, rank, self.tasks)
        order = np.argsort(keys)
        order = order[repeated(keys[order])]
        keys, nodes = keys[order], nodes[order]
        ids, exact, places = self.table.rows(nodes, "id", "exact", "shingles")
        order = ordered(keys, ids)
        del ids
        keys, nodes, exact, places = keys[order], nodes[order], exact[order], places[order]
        pairs = forest(self.edges(keys, nodes, exact, places, task))
        return TaskReport(files=[save_links(link_file(self.workdir, self.name, rank), pairs, self.links)])

    @property
    def links(self) -> int:
        return link_tasks(self.table, self.settings)

    def edges(self, keys: U64, nodes: I64, exact: U64, places: I64, task: Task) -> I64:
        """int64 (n, 2) of documents sorted by key, then by id; exact, places: their columns `exact` and `shingles`."""
        first = first_alike(exact, keys)
        pairs: I64 = np.column_stack([nodes[first], nodes])[first != np.arange(len(nodes))]
        return pairs


class BandJoinPass(JoinPass):
    """Edges between documents that share a band key, and are alike."""

    def edges(self, keys: U64, nodes: I64, exact: U64, places: I64, task: Task) -> I64:
        if self.settings.exact:
            chosen = np.flatnonzero(first_alike(exact, keys) == np.arange(len(nodes)))
            chosen = chosen[repeated(keys[chosen])]
            keys, nodes, places = keys[chosen], nodes[chosen], places[chosen]
        pairs = leader_pairs(Values(self.table, nodes, places, self.settings), self.settings, keys, task)
        return np.concatenate([NO_PAIRS, *(nodes[part] for part in pairs)])


def first_alike(exact: U64, keys: U64) -> I64:
    """Position of the first document of the same text and key, for each of documents sorted by key."""
    order = ordered(keys, exact)
    rows = np.column_stack([keys, exact])[order]
    heads = np.flatnonzero(np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])[: len(order)])
    first = np.empty(len(order), np.int64)
    if len(heads):
        first[order] = np.repeat(np.minimum.reduceat(order, heads), np.diff(heads, append=len(order)))
    return first


def ordered(keys: U64, words: U64) -> I64:
    """Order of rows, whose keys ascend, by key, then by the words, uint64 (n, 2); that of equal rows is any.

    A sort by half of a word decides nearly always, and takes a fifth of the time.
    """
    group = np.cumsum(np.concatenate([[False], keys[1:] != keys[:-1]])[: len(keys)], dtype=np.uint64)
    mixed = group << np.uint64(32) | words[:, 0] >> np.uint64(32)
    order = np.argsort(mixed)
    mixed = mixed[order]
    same = np.flatnonzero(mixed[1:] == mixed[:-1])
    if (words[order[same]] != words[order[same + 1]]).any():
        return np.lexsort((words[:, 1], words[:, 0], keys))
    return order


def repeated(keys: U64) -> Array:
    """Which of ascending keys occur more than once."""
    same = keys[1:] == keys[:-1]
    chosen = np.zeros(len(keys), bool)
    chosen[1:] |= same
    chosen[:-1] |= same
    return chosen


def leader_pairs(
    values_of: Values, settings: DedupConfig, keys: U64, task: Task, *, by_rim: bool = False
) -> Iterator[I64]:
    """Edges (leader, document), as positions, of documents sorted by key, part by part.

    A divided bucket keeps its leaders.
    """
    leaders = NO_PAIRS
    for start, end in spans(values_of.counts, settings):
        if start and keys[start] != keys[start - 1]:
            leaders = NO_PAIRS
        part = np.concatenate([leaders.ravel(), np.arange(start, end)])
        known = np.arange(leaders.size)
        pairs, last = similar_pairs(
            keys[part],
            np.arange(leaders.size, len(part)),
            *values_of.take(part),
            settings.verify,
            values_of.exact,
            by_rim=by_rim,
            leaders=known.reshape(-1, 2),
        )
        yield part[pairs]
        leaders = part[last]
        task.beat(0, 0, end / len(keys))


def spans(counts: I64, settings: DedupConfig) -> Iterator[tuple[int, int]]:
    """(first, end) of consecutive documents whose values, `counts` of each, take half of `partition_bytes` together."""
    ends = np.cumsum(counts)
    limit = settings.partition_bytes // 8  # 4 bytes a value
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + limit, side="right")), start + 1)
        yield start, end
        start = end


class Values:
    """What `clusters.similar_pairs` compares of nodes: signatures, or shingle sets where the recipe verifies exactly.

    places: of each its column `shingles`; counts: int64 (nodes,), number of values of each.
    """

    def __init__(self, table: Table, nodes: I64, places: I64, settings: DedupConfig) -> None:
        self.exact = settings.verify_by == "exact"
        self._table, self._nodes, self._places = table, nodes, places
        self.counts: I64 = places[:, 1] if self.exact else np.full(len(nodes), table.hashes, np.int64)

    def take(self, chosen: I64) -> tuple[U32, I64]:
        """(values, offsets) of some of the nodes, by position."""
        if self.exact:
            return self._table.shingles(self._nodes[chosen], self._places[chosen])
        (signatures,) = self._table.rows(self._nodes[chosen], "signature")
        return signatures.ravel(), np.arange(len(chosen) + 1, dtype=np.int64) * self._table.hashes


def forest(pairs: I64) -> I64:
    """int64 (n, 2), (node, least node of its component) of each other node of the components that `pairs` connect."""
    nodes, ends = np.unique(pairs, return_inverse=True)
    parent = np.arange(len(nodes))
    join(parent, ends.reshape(-1, 2))
    root = labels(parent)
    others = np.flatnonzero(root != np.arange(len(nodes)))
    return np.column_stack([nodes[others], nodes[root[others]]])


def link_file(workdir: Path, name: str, rank: int) -> Path:
    """File of a task's links."""
    return workdir / f".scratch/{name}/{rank:05d}.bin"


def save_links(path: Path, pairs: I64, tasks: int, *, both: bool = True) -> Path:
    """Write pairs (owner, other) for the tasks of their owners; both: in both directions."""
    links = np.concatenate([pairs, pairs[:, ::-1]]) if both else pairs
    owner = (splitmix.py_func(links[:, 0].astype(np.uint64)) >> np.uint64(32)) * np.uint64(tasks) >> np.uint64(32)
    order = np.argsort(owner, kind="stable")
    return save(path, np.searchsorted(owner[order], np.arange(tasks + 1)), links[order])


def read_links(path: Path, rank: int, tasks: int) -> I64:
    """The links of task `rank`'s owners in one file."""
    data: Any = mapped(path, np.int64)
    starts, links = data[: tasks + 1], data[tasks + 1 :]
    if len(starts) <= tasks or 2 * starts[-1] != len(links):
        raise damaged(path, f"it has {len(links)} numbers")
    chosen: I64 = links.reshape(-1, 2)[starts[rank] : starts[rank + 1]].copy()
    return chosen
