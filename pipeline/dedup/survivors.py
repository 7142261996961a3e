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

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import DedupConfig
from pipeline.dedup.components import StarPass
from pipeline.dedup.joins import Values, leader_pairs, link_file, repeated, spans
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

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.workdir / f".scratch/{self.stars.name}/*", self.table.folder / "*"]

    def process(self, rank: int, task: Task) -> TaskReport:
        child, centre = self.stars.star(rank).T
        centres = np.unique(centre)
        nodes, component = np.concatenate([child, centres]), np.concatenate([centre, centres])
        names = ("id", "exact", "shingles", "offset", "source", "length", "date", "path")
        ids, exact, places, *others = self.table.rows(nodes, *names)
        order = np.lexsort((*self._precedence(nodes, ids, *others), component))
        nodes, component, ids, exact, places = (column[order] for column in (nodes, component, ids, exact, places))
        text = np.arange(len(nodes))
        if self.settings.exact:
            _, first, text = np.unique(exact, axis=0, return_index=True, return_inverse=True)
            text = first[text.ravel()]
        stays = self._survivors(nodes, component.astype(np.uint64), text, places, task)[text]
        rows = np.zeros(len(nodes), ROW)
        rows["node"], rows["survivor"], rows["id"] = nodes, nodes[stays], ids[stays]
        rows["size"] = np.bincount(stays, minlength=len(nodes))[stays]
        rows["same"] = (text == text[stays]) & self.settings.exact
        copies = np.flatnonzero(rows["size"] > 1)
        copies = copies[np.argsort(nodes[copies])]
        rows = rows[copies]
        pairs = np.stack([copies, stays[copies]])
        rows["similarity"] = np.where(rows["same"], 1.0, self._similarities(nodes[pairs], places[pairs]))
        task.beat(0, 0, 1.0)
        return TaskReport(files=[save(link_file(self.workdir, self.name, rank), rows["node"], rows)])

    def _survivors(self, nodes: I64, components: U64, text: I64, places: I64, task: Task) -> I64:
        """Position of each node's survivor. Nodes are sorted by component, then by survivor priority.

        text: position of the first node of the same text; such nodes are compared once, through the first of them.
        """
        stays = np.arange(len(nodes))
        if self.settings.minhash:
            heads = np.flatnonzero(text == stays)
            walked = heads[repeated(components[heads])]
            values_of = Values(self.table, nodes[walked], places[walked], self.settings)
            parts = leader_pairs(values_of, self.settings, components[walked], task, by_rim=True)
            leader, document = walked[np.concatenate([NO_PAIRS, *parts])].T
            stays[document] = leader
        return stays

    def _similarities(self, pairs: I64, places: I64) -> Array:
        """Similarity of the nodes pairs[0] to pairs[1], float64 (pairs,); places: their column `shingles`."""
        values_of, parts = Values(self.table, pairs.ravel(), places.reshape(-1, 2), self.settings), [np.empty(0)]
        for start, end in spans(values_of.counts.reshape(2, -1).sum(axis=0), self.settings):
            pair = np.concatenate([np.arange(start, end), np.arange(start, end) + pairs.shape[1]])
            half = np.arange(end - start)
            parts.append(similarity(*values_of.take(pair), half, half + len(half), values_of.exact))
        return np.concatenate(parts)

    def _precedence(
        self, nodes: I64, ids: U64, offset: I64, source: I64, length: I64, date: I64, places: I64
    ) -> list[Array]:
        """Sort keys of survivor order, the weakest first, as np.lexsort takes them: id, offset, path, source, rule."""
        paths = [path or b"" for path in self.table.strings(nodes, places)]
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
