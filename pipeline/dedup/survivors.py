"""Pass `clusters`: clusters and their survivors, a task per share of the connected components.

A component may be a chain (1~2, 2~3, but not 1~3), so each is clustered again: documents are visited in survivor order;
one joins the first leader whose similarity, and whose least similar member so far (the rim), both reach the recipe's
`verify`, else it becomes a leader. Checking the rim keeps two members of a cluster similar to each other. Survivor
order depends on the documents alone: those of an earlier corpus first, since they are in use already, then the recipe's
`survivor` rule, then the order of sources in the recipe, path and offset.

A task leaves the nodes that have a duplicate, sorted, and a row (`ROW`) for each; memory: 300 bytes for each such
document of a task, and `partition_bytes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.config import DedupConfig
from pipeline.dedup.components import StarPass
from pipeline.dedup.joins import document_values, leader_pairs, link_file, repeated, spans, value_counts
from pipeline.dedup.table import Array, Table, damaged, mapped, save
from pipeline.kernels.clusters import NO_PAIRS, similarity
from pipeline.kernels.minhash import I64, U64
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

# survivor: node of the document that stays; size: of the cluster; same: the text is the survivor's
ROW = np.dtype(
    [
        *((name, np.int64) for name in ("node", "survivor", "size")),
        ("id", np.uint64, 2),  # of the survivor
        ("similarity", np.float64),  # to the survivor
        ("same", np.bool_),
    ]
)


class ClusterPass(Pass):
    """Writes the rows of the components of one task of the last star pass."""

    def __init__(self, build: Build[DedupConfig], table: Table, stars: StarPass) -> None:
        super().__init__("clusters", build.workdir, stars.tasks)
        self.table, self.stars = table, stars
        self.new = int(table.starts[len(build.inputs)])
        self.settings: DedupConfig = build.settings

    def process(self, rank: int, task: Task) -> TaskReport:
        child, centre = self.stars.star(rank).T
        centres = np.unique(centre)
        nodes, component = np.concatenate([child, centres]), np.concatenate([centre, centres])
        ids, exact = self.table.rows(nodes, "id", "exact")
        order = np.lexsort((*self._precedence(nodes, ids), component))
        nodes, component, ids, exact = nodes[order], component[order], ids[order], exact[order]
        text = np.arange(len(nodes))
        if self.settings.exact:
            _, first, text = np.unique(exact, axis=0, return_index=True, return_inverse=True)
            text = first[text.ravel()]
        stays = self._survivors(nodes, component.astype(np.uint64), text, task)[text]
        rows = np.zeros(len(nodes), ROW)
        rows["node"], rows["survivor"], rows["id"] = nodes, nodes[stays], ids[stays]
        rows["size"] = np.bincount(stays, minlength=len(nodes))[stays]
        rows["same"] = (text == text[stays]) & self.settings.exact
        rows = rows[rows["size"] > 1]
        rows = rows[np.argsort(rows["node"])]
        rows["similarity"] = np.where(rows["same"], 1.0, self._similarities(rows["node"], rows["survivor"]))
        task.beat(0, 0, 1.0)
        return TaskReport(files=[save(link_file(self.workdir, self.name, rank), rows["node"], rows)])

    def _survivors(self, nodes: I64, components: U64, text: I64, task: Task) -> I64:
        """Position of each node's survivor. Nodes are sorted by component, then by survivor priority.

        text: position of the first node of the same text; such nodes are compared once, through the first of them.
        """
        stays = np.arange(len(nodes))
        if self.settings.minhash:
            heads = np.flatnonzero(text == stays)
            walked = heads[repeated(components[heads])]
            parts = leader_pairs(self.table, self.settings, components[walked], nodes[walked], task, by_rim=True)
            leader, document = walked[np.concatenate([NO_PAIRS, *parts])].T
            stays[document] = leader
        return stays

    def _similarities(self, nodes: I64, survivors: I64) -> Array:
        exact, parts = self.settings.verify_by == "exact", [np.empty(0)]
        counts = value_counts(self.table, nodes, exact) + value_counts(self.table, survivors, exact)
        for start, end in spans(counts, self.settings):
            pair = np.concatenate([nodes[start:end], survivors[start:end]])
            half = np.arange(len(pair) // 2)
            values, offsets = document_values(self.table, pair, exact)
            parts.append(similarity(values, offsets, half, half + len(half), exact))
        return np.concatenate(parts)

    def _precedence(self, nodes: I64, ids: U64) -> list[Array]:
        """Sort keys of survivor order, the weakest first, as np.lexsort takes them: id, offset, path, source, rule."""
        offset, source, length, date = self.table.rows(nodes, "offset", "source", "length", "date")
        paths = [path or b"" for path in self.table.strings("path", nodes)]
        _, path = np.unique(np.array(paths, object), return_inverse=True)
        keys: list[Array] = [ids[:, 1], ids[:, 0], offset, path, source]
        if self.settings.survivor != "first":
            keys.append(-(length if self.settings.survivor == "longest" else date))
        return [*keys, nodes < self.new]


def read_clusters(build: Build[DedupConfig], low: int, high: int) -> Any:
    """The rows (ROW) of the nodes from `low` up to `high`, sorted by node."""
    parts = [np.empty(0, ROW)]
    for path in sorted((build.workdir / ".scratch/clusters").glob("*.bin")):
        data = mapped(path)
        size, rest = divmod(len(data), 8 + ROW.itemsize)
        if rest:
            raise damaged(path, f"it has {len(data)} bytes")
        cut = slice(*np.searchsorted(data[: 8 * size].view(np.int64), [low, high]).tolist())
        parts.append(data[8 * size :].view(ROW)[cut])
    rows = np.concatenate(parts)
    return rows[np.argsort(rows["node"])]
