"""Pass `clusters`: connected components of all edges and the survivor of each, one task over arrays.

Memory: 16 bytes a document, and some 150 a document that has a duplicate. Who survives follows from the documents
themselves, never from where a task had them: the recipe's rule, then the order of sources in the recipe, path and
offset. A document of an earlier corpus survives before all others: it is in use already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.config import DedupConfig
from pipeline.dedup.clusters import join, labels
from pipeline.dedup.joins import edges
from pipeline.dedup.table import Array, Table, load_array, save_array
from pipeline.minhash import I64
from pipeline.stage import Build
from pipeline.step import CorpusStep, Heartbeat, TaskReport

COLUMNS = ("node", "survivor", "size")


class ClusterStep(CorpusStep):
    """Writes node, survivor and cluster size of each document that has a duplicate, sorted by node."""

    def __init__(self, build: Build, table: Table, joins: list[CorpusStep]) -> None:
        super().__init__("clusters", build.workdir, 1)
        self.table, self.joins, self.new = table, joins, int(table.starts[len(build.inputs)])
        self.settings: DedupConfig = build.settings
        self.sources = {source.name: number for number, source in enumerate(build.sources)}

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        parent = np.arange(len(self.table), dtype=np.int64)
        for step in self.joins:
            for pairs in edges(self.workdir, step):
                join(parent, pairs)
        parent = labels(parent)
        moved = np.flatnonzero(parent != np.arange(len(parent)))
        nodes = np.union1d(moved, parent[moved])
        _, cluster, size = np.unique(parent[nodes], return_inverse=True, return_counts=True)
        found = {"node": nodes, "survivor": self._survivors(nodes, cluster), "size": size[cluster]}
        heartbeat.beat(0, 0, 1.0)
        folder = self.workdir / ".scratch/clusters"
        return TaskReport(files=[save_array(folder / f"{name}.npy", found[name]) for name in COLUMNS])

    def _survivors(self, nodes: I64, cluster: I64) -> I64:
        """Node of the survivor of each node's cluster."""
        if not len(nodes):
            return nodes
        ids = self.table.rows("id", nodes)
        order = np.lexsort((ids[:, 1], ids[:, 0], *self._precedence(nodes), nodes < self.new, cluster))
        heads = np.concatenate([[True], np.diff(cluster[order]) > 0])
        survivors: I64 = nodes[order[heads]][cluster]
        return survivors

    def _precedence(self, nodes: I64) -> list[Array]:
        """Sort keys, the weakest first: offset, path, source in the recipe's order, the recipe's rule."""
        _, path = np.unique(np.array(self.table.strings("path", nodes), object), return_inverse=True)
        source = [self.sources.get(name, len(self.sources)) for name in self.table.strings("source", nodes)]
        keys: list[Array] = [self.table.rows("offset", nodes), path, np.array(source)]
        if self.settings.survivor != "first":
            keys.append(-self.table.rows({"longest": "length", "newest": "date"}[self.settings.survivor], nodes))
        return keys


def read_clusters(build: Build, low: int, high: int) -> dict[str, Any]:
    """The clusters' columns for nodes from `low` to `high`."""
    folder = build.workdir / ".scratch/clusters"
    columns = {name: load_array(folder / f"{name}.npy", mapped=True) for name in COLUMNS}
    cut = slice(*np.searchsorted(columns["node"], [low, high]).tolist())
    return {name: np.array(values[cut]) for name, values in columns.items()}
