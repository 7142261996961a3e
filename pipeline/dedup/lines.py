"""Passes `lines` and `line-join`, optional: lines that recur across kept documents of a site, for `apply` to cut.

Boilerplate that extraction left (menus, notices) stands in many pages of a host, or of a source where there is no
address. A line in at least `line_documents` survivors is cut from all of them but the one with the least id, so no
text vanishes altogether. Duplicates are out before, so that copies of a page do not make its content look
like boilerplate. Lines are compared without surrounding white space by xxh3-64 of site and line.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import numpy as np
import xxhash

from pipeline.config import DedupConfig
from pipeline.dedup.joins import partitions, read_clusters
from pipeline.dedup.table import Table, concatenate, load_array, save_array
from pipeline.documents import text_bytes
from pipeline.kernels.minhash import I64, U64
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

_LINES = 32  # lines of a document, about: fixes the number of partitions


class LinePass(Pass):
    """Writes the distinct lines of each survivor of one input file: (key, node), sorted."""

    def __init__(self, build: Build[DedupConfig], table: Table) -> None:
        super().__init__("lines", build.workdir, len(build.inputs))
        self.build, self.table = build, table

    def weight(self, rank: int) -> float:
        return float(self.build.inputs[rank].stat().st_size)

    def process(self, rank: int, task: Task) -> TaskReport:
        start, end = self.table.starts[rank], self.table.starts[rank + 1]
        found = read_clusters(self.build, start, end)
        dropped = set((found["node"][found["node"] != found["survivor"]]).tolist())
        keys, nodes = [], []
        node = int(start)
        for table in task.read(self.build.inputs[rank], ["text", "url", "source"]):
            for row in table.to_pylist():
                if node not in dropped:
                    distinct = np.unique(line_keys(row["text"], site_of(row["url"], row["source"])))
                    distinct = distinct[distinct > 0]
                    keys.append(distinct)
                    nodes.append(np.full(len(distinct), node, np.int64))
                node += 1
            task.beat(table.num_rows, text_bytes(table), (node - start) / max(end - start, 1))
        key, owner = concatenate(keys, np.empty(0, np.uint64)), concatenate(nodes, np.empty(0, np.int64))
        order = np.argsort(key, kind="stable")
        folder = self.workdir / f".scratch/lines/{rank:05d}"
        return TaskReport(
            files=[save_array(folder / "key.npy", key[order]), save_array(folder / "node.npy", owner[order])]
        )


class LineJoinPass(Pass):
    """Writes what is to be cut: (node, key) sorted by node, for one partition of the keys."""

    def __init__(self, build: Build[DedupConfig], table: Table) -> None:
        settings: DedupConfig = build.settings
        super().__init__("line-join", build.workdir, partitions(len(table), _LINES, settings.partition_bytes))
        self.inputs, self.table, self.least = len(build.inputs), table, settings.line_documents or 0

    def process(self, rank: int, task: Task) -> TaskReport:
        low = np.uint64(-(-(rank << 64) // self.tasks))
        high = np.uint64(-(-((rank + 1) << 64) // self.tasks) - 1)
        keys, nodes = [], []
        for number in range(self.inputs):
            folder = self.workdir / f".scratch/lines/{number:05d}"
            key = load_array(folder / "key.npy", mapped=True)
            cut = slice(int(np.searchsorted(key, low)), int(np.searchsorted(key, high, side="right")))
            keys.append(np.array(key[cut]))
            nodes.append(np.array(load_array(folder / "node.npy", mapped=True)[cut]))
        key, node = self._recurring(np.concatenate(keys), np.concatenate(nodes))
        order = np.lexsort((key, node))
        folder = self.workdir / f".scratch/line-join/{rank:05d}"
        return TaskReport(
            files=[save_array(folder / "key.npy", key[order]), save_array(folder / "node.npy", node[order])]
        )

    def _recurring(self, key: U64, node: I64) -> tuple[U64, I64]:
        """Records of keys that stand in enough documents, without the one of the least id."""
        _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
        chosen = count[inverse] >= self.least
        key, node = key[chosen], node[chosen]
        if not len(key):
            return key, node
        ids = self.table.rows("id", node)
        order = np.lexsort((ids[:, 1], ids[:, 0], key))
        key, node = key[order], node[order]
        later = np.concatenate([[False], key[1:] == key[:-1]])
        return key[later], node[later]


def lines_to_cut(build: Build[DedupConfig], tasks: int, low: int, high: int) -> dict[int, set[int]]:
    """{node: keys of its lines to cut} for nodes from `low` to `high`."""
    cuts: dict[int, set[int]] = {}
    for task in range(tasks):
        folder = build.workdir / f".scratch/line-join/{task:05d}"
        node = load_array(folder / "node.npy", mapped=True)
        part = slice(*np.searchsorted(node, [low, high]).tolist())
        keys = load_array(folder / "key.npy", mapped=True)[part]
        for owner, key in zip(node[part].tolist(), keys.tolist(), strict=True):
            cuts.setdefault(owner, set()).add(key)
    return cuts


def cut_lines(text: str, site: str, keys: set[int]) -> str:
    """The text without the lines that `keys` name, stripped at both ends."""
    lines = text.split("\n")
    kept = [line for line, key in zip(lines, line_keys(text, site).tolist(), strict=True) if key not in keys]
    return "\n".join(kept).strip()


def line_keys(text: str, site: str) -> U64:
    """uint64 (lines,): key of each line within its site; 0 for an empty one."""
    stripped = (line.strip() for line in text.split("\n"))
    keys = [xxhash.xxh3_64_intdigest(f"{site}\0{line}".encode("utf-8", "replace")) if line else 0 for line in stripped]
    return np.array(keys, np.uint64)


def site_of(url: str | None, source: str) -> str:
    """Host of an address; the source's name where there is none."""
    try:
        return urlsplit(url or "").hostname or source
    except ValueError:  # e.g. an unfinished IPv6 address
        return source
