"""From sorted keys to clusters and their survivors: passes `exact-join`, `band-join` and `clusters`.

The joins take a task per partition of the keys. Documents whose texts have equal 128-bit hashes are connected at once;
only the first of them takes part in the band join, where documents with an equal band key are compared
(`clusters.similar_pairs`). Within a bucket documents are sorted by id, so edges do not depend on how documents were
divided into tasks. The number of partitions follows from the number of documents and the recipe's `partition_bytes`,
which bounds memory; a larger bucket is compared part by part.

`clusters` is one task over arrays. The connected components of all edges may be chains (1~2, 2~3, but not 1~3), so each
is clustered again: documents are visited in survivor order; one joins the first leader whose similarity, and whose
least similar member so far (the rim), both reach the recipe's `verify`, else it becomes a leader. Checking the rim
keeps two members of a cluster similar to each other. Survivor order depends on the documents alone: those of an
earlier corpus first, since they are in use already, then the recipe's `survivor` rule, then the order of sources in the
recipe, path and offset. Memory: 40 bytes a document, 150 more for one that has an edge, and `partition_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import DedupConfig
from pipeline.dedup.table import Array, Table, load_array, save_array
from pipeline.kernels.clusters import NO_PAIRS, join, labels, similar_pairs
from pipeline.kernels.minhash import I64, U32, U64
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

COLUMNS = ("node", "survivor", "size")  # of each document that has a duplicate
_RECORD_BYTES = 48  # a key, its node, their sorted copies, the order and an id


def partitions(documents: int, keys: int, partition_bytes: int) -> int:
    """Number of partitions that keep `keys` records a document within the bound."""
    return max(1, -(-documents * keys * _RECORD_BYTES // partition_bytes))


class ExactJoinPass(Pass):
    """Edges between documents with equal text, from the one with the least id to each other."""

    def __init__(self, build: Build[DedupConfig], table: Table) -> None:
        settings: DedupConfig = build.settings
        super().__init__("exact-join", build.workdir, partitions(len(table), 1, settings.partition_bytes))
        self.table = table

    def process(self, rank: int, task: Task) -> TaskReport:
        keys, nodes = self.table.partition("exact", rank, self.tasks)
        pairs = NO_PAIRS
        if len(nodes):
            ids = self.table.rows("id", nodes)
            order = np.lexsort((ids[:, 1], ids[:, 0], keys[:, 1], keys[:, 0]))
            keys, nodes = keys[order], nodes[order]
            heads = np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)])
            first = np.maximum.accumulate(np.where(heads, np.arange(len(nodes)), 0))
            pairs = np.column_stack([nodes[first], nodes])[~heads]
        return TaskReport(files=[save_array(edge_file(self.workdir, self.name, rank), pairs)])


class BandJoinPass(Pass):
    """Verified edges between documents that share a band key."""

    def __init__(self, build: Build[DedupConfig], table: Table, bands: int, exact: ExactJoinPass | None) -> None:
        self.settings: DedupConfig = build.settings
        tasks = partitions(len(table), bands, self.settings.partition_bytes)
        super().__init__("band-join", build.workdir, tasks)
        self.table, self.exact = table, exact

    def process(self, rank: int, task: Task) -> TaskReport:
        keys, nodes = self.table.partition("band", rank, self.tasks)
        chosen = ~self._same_text()[nodes]
        keys, nodes = repeated(keys[chosen], nodes[chosen])
        ids = self.table.rows("id", nodes)
        order = np.lexsort((ids[:, 1], ids[:, 0], keys)) if len(nodes) else nodes
        parts = leader_pairs(self.table, self.settings, keys[order], nodes[order], task)
        pairs = np.unique(np.concatenate([NO_PAIRS, *parts]), axis=0)
        return TaskReport(files=[save_array(edge_file(self.workdir, self.name, rank), pairs)])

    def _same_text(self) -> Array:
        """bool (documents,): those represented by another document of equal text."""
        mask = np.zeros(len(self.table), bool)
        if self.exact:
            for pairs in edges(self.workdir, self.exact):
                mask[pairs[:, 1]] = True
        return mask


def leader_pairs(
    table: Table, settings: DedupConfig, keys: U64, nodes: I64, task: Task, *, by_rim: bool = False
) -> Iterator[I64]:
    """Edges (leader, document) of documents sorted by key, part by part; a divided bucket keeps its leaders."""
    exact = settings.verify_by == "exact"
    leaders = NO_PAIRS
    for start, end in spans(value_counts(table, nodes, exact), settings):
        if start and keys[start] != keys[start - 1]:
            leaders = NO_PAIRS
        part = np.concatenate([leaders.ravel(), np.arange(start, end)])
        known = np.arange(leaders.size)
        values, offsets = document_values(table, nodes[part], exact)
        pairs, last = similar_pairs(
            keys[part],
            np.arange(leaders.size, len(part)),
            values,
            offsets,
            settings.verify,
            exact,
            by_rim=by_rim,
            leaders=known.reshape(-1, 2),
        )
        yield nodes[part[pairs]]
        leaders = part[last]
        task.beat(0, 0, end / len(nodes))


def spans(counts: I64, settings: DedupConfig) -> Iterator[tuple[int, int]]:
    """(first, end) of consecutive documents whose values, `counts` of each, fit into `partition_bytes` together."""
    ends = np.cumsum(counts)
    limit = settings.partition_bytes // 16  # 4 bytes a value, and as much again while they are gathered
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + limit, side="right")), start + 1)
        yield start, end
        start = end


def value_counts(table: Table, nodes: I64, exact: bool) -> I64:
    """int64 (nodes,): number of values that `document_values` gives for each node."""
    counts: I64 = table.rows("shingle_count", nodes) if exact else np.full(len(nodes), table.hashes, np.int64)
    return counts


def document_values(table: Table, nodes: I64, exact: bool) -> tuple[U32, I64]:
    """(values, offsets) by which `clusters.similar_pairs` compares nodes: signatures, or with `exact` shingle sets."""
    if exact:
        return table.shingles(nodes)
    signatures = table.rows("signature", nodes)
    width = signatures.shape[1] if signatures.ndim == 2 else 0
    return signatures.astype(np.uint32, copy=False).ravel(), np.arange(len(nodes) + 1, dtype=np.int64) * width


def edge_file(workdir: Path, name: str, rank: int) -> Path:
    """File of a join task's edges, int64 (n, 2)."""
    return workdir / f".scratch/{name}/{rank:05d}.npy"


def edges(workdir: Path, source: Pass) -> Iterator[I64]:
    """The edges of every task of a join."""
    return (load_array(edge_file(workdir, source.name, rank)) for rank in range(source.tasks))


def repeated(keys: U64, nodes: I64) -> tuple[U64, I64]:
    """The records whose key occurs more than once, sorted by key; those of one key keep their order."""
    order = np.argsort(keys, kind="stable")
    keys, nodes = keys[order], nodes[order]
    same = keys[1:] == keys[:-1]
    chosen = np.zeros(len(keys), bool)
    chosen[1:] |= same
    chosen[:-1] |= same
    return keys[chosen], nodes[chosen]


class ClusterPass(Pass):
    """Writes node, survivor and cluster size of each document that has a duplicate, sorted by node."""

    def __init__(
        self, build: Build[DedupConfig], table: Table, exact: ExactJoinPass | None, near: BandJoinPass | None
    ) -> None:
        super().__init__("clusters", build.workdir, 1)
        self.table, self.exact, self.near = table, exact, near
        self.new = int(table.starts[len(build.inputs)])
        self.settings: DedupConfig = build.settings
        self.sources = {source.name: number for number, source in enumerate(build.sources)}

    def process(self, rank: int, task: Task) -> TaskReport:
        parent = np.arange(len(self.table), dtype=np.int64)
        self._join(parent, self.exact)
        texts = labels(parent)
        self._join(parent, self.near)
        parent = labels(parent)
        moved = np.flatnonzero(parent != np.arange(len(parent)))
        nodes = self._ranked(np.union1d(moved, parent[moved]))
        nodes = nodes[np.argsort(parent[nodes], kind="stable")]
        survivor = self._survivors(nodes, parent[nodes].astype(np.uint64), texts[nodes], task)
        _, cluster, size = np.unique(survivor, return_inverse=True, return_counts=True)
        columns = dict(zip(COLUMNS, (nodes, survivor, size[cluster]), strict=True))
        order = np.argsort(nodes)
        order = order[columns["size"][order] > 1]
        task.beat(0, 0, 1.0)
        folder = self.workdir / ".scratch/clusters"
        return TaskReport(files=[save_array(folder / f"{name}.npy", columns[name][order]) for name in COLUMNS])

    def _join(self, parent: I64, source: Pass | None) -> None:
        for pairs in edges(self.workdir, source) if source else ():
            join(parent, pairs)

    def _survivors(self, nodes: I64, components: U64, texts: I64, task: Task) -> I64:
        """Survivor of each node. Nodes are sorted by component, then by survivor priority.

        Documents with identical text are compared once, through the first of them.
        """
        if not len(nodes):
            return nodes
        _, first, text = np.unique(texts, return_index=True, return_inverse=True)
        heads = np.sort(first)
        stays = np.arange(len(self.table), dtype=np.int64)
        if self.near:
            walked = repeated(components[heads], nodes[heads])
            parts = leader_pairs(self.table, self.settings, *walked, task, by_rim=True)
            pairs = np.concatenate([NO_PAIRS, *parts])
            stays[pairs[:, 1]] = pairs[:, 0]
        survivors: I64 = stays[nodes[first][text]]
        return survivors

    def _ranked(self, nodes: I64) -> I64:
        """The nodes in survivor order, the first of a cluster to be kept in front."""
        ids = self.table.rows("id", nodes)
        ranked: I64 = nodes[np.lexsort((ids[:, 1], ids[:, 0], *self._precedence(nodes), nodes < self.new))]
        return ranked

    def _precedence(self, nodes: I64) -> list[Array]:
        """Sort keys, the weakest first, as np.lexsort takes them: offset, path, source, the recipe's rule."""
        _, path = np.unique(np.array(self.table.strings("path", nodes), object), return_inverse=True)
        source = [self.sources.get(name, len(self.sources)) for name in self.table.strings("source", nodes)]
        keys: list[Array] = [self.table.rows("offset", nodes), path, np.array(source)]
        if self.settings.survivor != "first":
            keys.append(-self.table.rows({"longest": "length", "newest": "date"}[self.settings.survivor], nodes))
        return keys


def read_clusters(build: Build[DedupConfig], low: int, high: int) -> dict[str, Any]:
    """COLUMNS of the nodes from `low` up to `high`."""
    folder = build.workdir / ".scratch/clusters"
    columns = {name: load_array(folder / f"{name}.npy", mapped=True) for name in COLUMNS}
    cut = slice(*np.searchsorted(columns["node"], [low, high]).tolist())
    return {name: np.array(values[cut]) for name, values in columns.items()}
