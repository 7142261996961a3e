"""Pass `clusters`: connected components of all edges, and in each those documents that stay; one task over arrays.

A component may be a chain whose ends are unlike. Its documents are therefore walked once more in the order in which
they deserve to stay, and each joins the first survivor so far that it is like, if it is also like that survivor's
rim (`clusters.similar_pairs`), by the recipe's `verify`, or stays. Documents of equal text go together. Memory:
40 bytes a document, some 150 a document that has an edge, and `partition_bytes`. Who survives follows from the
documents themselves, never from where a task had them: the recipe's rule, then the order of sources in the recipe, path
and offset. A document of an earlier corpus survives before all others: it is in use already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.config import DedupConfig
from pipeline.dedup.clusters import NO_PAIRS, join, labels
from pipeline.dedup.joins import BandJoinStep, ExactJoinStep, edges, leader_pairs, repeated
from pipeline.dedup.table import Array, Table, concatenate, load_array, save_array
from pipeline.minhash import I64, U64
from pipeline.stage import Build
from pipeline.step import CorpusStep, Heartbeat, TaskReport

COLUMNS = ("node", "survivor", "size")


class ClusterStep(CorpusStep):
    """Writes node, survivor and cluster size of each document that has a duplicate, sorted by node."""

    def __init__(self, build: Build, table: Table, exact: ExactJoinStep | None, near: BandJoinStep | None) -> None:
        super().__init__("clusters", build.workdir, 1)
        self.table, self.exact, self.near = table, exact, near
        self.new = int(table.starts[len(build.inputs)])
        self.settings: DedupConfig = build.settings
        self.sources = {source.name: number for number, source in enumerate(build.sources)}

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        parent = np.arange(len(self.table), dtype=np.int64)
        self._join(parent, self.exact)
        texts = labels(parent)
        self._join(parent, self.near)
        parent = labels(parent)
        moved = np.flatnonzero(parent != np.arange(len(parent)))
        nodes = self._ranked(np.union1d(moved, parent[moved]))
        nodes = nodes[np.argsort(parent[nodes], kind="stable")]
        survivor = self._survivors(nodes, parent[nodes].astype(np.uint64), texts[nodes], heartbeat)
        _, cluster, size = np.unique(survivor, return_inverse=True, return_counts=True)
        found = {"node": nodes, "survivor": survivor, "size": size[cluster]}
        chosen = np.argsort(nodes)
        chosen = chosen[found["size"][chosen] > 1]
        heartbeat.beat(0, 0, 1.0)
        folder = self.workdir / ".scratch/clusters"
        return TaskReport(files=[save_array(folder / f"{name}.npy", found[name][chosen]) for name in COLUMNS])

    def _join(self, parent: I64, step: ExactJoinStep | BandJoinStep | None) -> None:
        for pairs in edges(self.workdir, step) if step else ():
            join(parent, pairs)

    def _survivors(self, nodes: I64, components: U64, texts: I64, heartbeat: Heartbeat) -> I64:
        """Survivor of each node. Nodes stand by component, and there in the order in which they deserve to stay.

        The first node of a text speaks for all of that text.
        """
        if not len(nodes):
            return nodes
        _, first, text = np.unique(texts, return_index=True, return_inverse=True)
        heads = np.sort(first)
        stays = np.arange(len(self.table), dtype=np.int64)
        if self.near:
            walked = repeated(components[heads], nodes[heads])
            pairs = concatenate(leader_pairs(self.table, self.settings, *walked, heartbeat, by_rim=True), NO_PAIRS)
            stays[pairs[:, 1]] = pairs[:, 0]
        survivors: I64 = stays[nodes[first][text]]
        return survivors

    def _ranked(self, nodes: I64) -> I64:
        """The nodes in the order in which they deserve to stay."""
        ids = self.table.rows("id", nodes)
        ranked: I64 = nodes[np.lexsort((ids[:, 1], ids[:, 0], *self._precedence(nodes), nodes < self.new))]
        return ranked

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
