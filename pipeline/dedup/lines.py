"""Passes `lines` and `line-join`, optional: find lines that recur across the kept documents of a site, to be cut.

Boilerplate that extraction left (menus, notices) recurs on many pages of a host, or of a source where documents have no
URL. A line in at least `line_documents` survivors is cut from all of them but the one with the least id, so no text
vanishes altogether. Duplicates are left out, so that copies of a page do not make its content look like boilerplate.
Lines are compared without surrounding white space, by xxh3-64 of site and line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import xxhash

from pipeline.config import DedupConfig
from pipeline.dedup.joins import partitions
from pipeline.dedup.survivors import read_clusters
from pipeline.dedup.table import Table, load_array, partition_slice, save_array
from pipeline.documents import text_bytes
from pipeline.kernels.minhash import I64, U64
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

_LINES = 32  # assumed lines of a document; fixes the number of partitions


class LinePass(Pass):
    """Writes the distinct lines of each survivor of one input file: (key, node), sorted."""

    def __init__(self, build: Build[DedupConfig], table: Table) -> None:
        super().__init__("lines", build.workdir, len(build.inputs))
        self.build, self.table = build, table

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.build.inputs[rank], self.workdir / ".scratch/clusters/*"]

    def weight(self, rank: int) -> float:
        return float(self.build.inputs[rank].stat().st_size)

    def process(self, rank: int, task: Task) -> TaskReport:
        start, end = self.table.starts[rank], self.table.starts[rank + 1]
        clusters = read_clusters(self.build, start, end)
        dropped = set(clusters["node"][clusters["node"] != clusters["survivor"]].tolist())
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
        key, owner = np.concatenate([np.empty(0, np.uint64), *keys]), np.concatenate([np.empty(0, np.int64), *nodes])
        order = np.argsort(key, kind="stable")
        return _save(self.workdir / f".scratch/lines/{rank:05d}", key[order], owner[order])


class LineJoinPass(Pass):
    """Writes the lines to cut, (node, key) sorted by node, for one partition of the keys."""

    def __init__(self, build: Build[DedupConfig], table: Table) -> None:
        settings: DedupConfig = build.settings
        super().__init__("line-join", build.workdir, partitions(len(table), _LINES, settings.partition_bytes))
        self.inputs, self.table, self.least = len(build.inputs), table, settings.line_documents or 0

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.workdir / ".scratch/lines/*", self.table.folder / "*"]

    def process(self, rank: int, task: Task) -> TaskReport:
        keys, nodes = [], []
        for number in range(self.inputs):
            key, node = _load(self.workdir / f".scratch/lines/{number:05d}")
            cut, *_ = partition_slice(key, rank, self.tasks)
            keys.append(np.array(key[cut]))
            nodes.append(np.array(node[cut]))
        key, node = self._recurring(np.concatenate(keys), np.concatenate(nodes))
        order = np.lexsort((key, node))
        return _save(self.workdir / f".scratch/line-join/{rank:05d}", key[order], node[order])

    def _recurring(self, key: U64, node: I64) -> tuple[U64, I64]:
        """The records of keys that occur in enough documents, less the one with the least id of each key."""
        _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
        chosen = count[inverse] >= self.least
        key, node = key[chosen], node[chosen]
        if not len(key):
            return key, node
        (ids,) = self.table.rows(node, "id")
        order = np.lexsort((ids[:, 1], ids[:, 0], key))
        key, node = key[order], node[order]
        later = np.concatenate([[False], key[1:] == key[:-1]])
        return key[later], node[later]


def lines_to_cut(build: Build[DedupConfig], tasks: int, low: int, high: int) -> dict[int, set[int]]:
    """{node: keys of its lines to cut} for nodes from `low` up to `high`."""
    cuts: dict[int, set[int]] = {}
    for task in range(tasks):
        keys, nodes = _load(build.workdir / f".scratch/line-join/{task:05d}")
        part = slice(*np.searchsorted(nodes, [low, high]).tolist())
        for node, key in zip(nodes[part].tolist(), keys[part].tolist(), strict=True):
            cuts.setdefault(node, set()).add(key)
    return cuts


def _save(folder: Path, keys: U64, nodes: I64) -> TaskReport:
    return TaskReport(files=[save_array(folder / "key.npy", keys), save_array(folder / "node.npy", nodes)])


def _load(folder: Path) -> tuple[U64, I64]:
    """Keys and nodes of a task, mapped."""
    return load_array(folder / "key.npy", mapped=True), load_array(folder / "node.npy", mapped=True)


def cut_lines(text: str, site: str, keys: set[int]) -> str:
    """The text without the lines whose keys are given, stripped at both ends."""
    lines = text.split("\n")
    kept = [line for line, key in zip(lines, line_keys(text, site).tolist(), strict=True) if key not in keys]
    return "\n".join(kept).strip()


def line_keys(text: str, site: str) -> U64:
    """uint64 (lines,): key of each line within its site; 0 for a blank one."""
    stripped = (line.strip() for line in text.split("\n"))
    keys = [xxhash.xxh3_64_intdigest(f"{site}\0{line}".encode("utf-8", "replace")) if line else 0 for line in stripped]
    return np.array(keys, np.uint64)


def site_of(url: str | None, source: str) -> str:
    """Host of a URL, or the source's name where there is none."""
    try:
        return urlsplit(url or "").hostname or source
    except ValueError:  # e.g. an unfinished IPv6 address
        return source
