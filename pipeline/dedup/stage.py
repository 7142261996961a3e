"""Stage `dedup`: signatures, joins, clusters, and one survivor of each cluster (docs/format.md lists the columns).

Passes: `signatures` (a task per input file) -> `exact-join`, `band-join` (a task per partition of the keys) ->
`clusters` (one task) -> `lines`, `line-join` (optional) -> `dedup` (a task per input file). What they share lies in
`pipeline.dedup.table`; its rows name documents only within one building of the stage, whose fingerprint covers
the input files, and the last pass checks every row's id. Drops: `exact_duplicate`, `near_duplicate`, and
`exact_known`, `near_known` where an earlier corpus (`against`) has the document; value: Jaccard similarity
to the document that stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import DedupConfig
from pipeline.dedup.joins import (
    BandJoinStep,
    ClusterStep,
    ExactJoinStep,
    document_values,
    read_clusters,
    spans,
    value_counts,
)
from pipeline.dedup.lines import LineJoinStep, LineStep, cut_lines, lines_to_cut, site_of
from pipeline.dedup.signatures import (
    SignatureStep,
    index_files,
    make_hasher,
    open_indexes,
    signature_settings,
    write_index,
)
from pipeline.dedup.table import Table, damaged
from pipeline.documents import read_rows
from pipeline.kernels.clusters import similarity
from pipeline.kernels.minhash import I64
from pipeline.stage import Build
from pipeline.task import CorpusStep, DocumentStep, Heartbeat, TaskReport, Verdicts, add_counts

ADDED = (
    pa.field("cluster", pa.string()),
    pa.field("cluster_size", pa.int64()),
    pa.field("duplicate_of", pa.string()),
    pa.field("similarity", pa.float64()),
)


def passes(build: Build) -> Iterator[CorpusStep]:
    """The passes in order; the optional ones where the recipe asks for them."""
    settings: DedupConfig = build.settings
    hasher = make_hasher(settings, build.seed)
    hashes = hasher.bands * hasher.rows
    indexes = open_indexes(settings, build.base, signature_settings(settings, build.seed, hashes))
    table = Table(build.workdir, [read_rows(path) for path in (*build.inputs, *indexes)], hashes)
    yield SignatureStep(build, table, indexes)
    exact = ExactJoinStep(build, table) if settings.exact else None
    near = BandJoinStep(build, table, hasher.bands, exact) if settings.minhash else None
    yield from (join for join in (exact, near) if join)
    yield ClusterStep(build, table, exact, near)
    line_tasks = 0
    if settings.line_documents:
        yield LineStep(build, table)
        line_join = LineJoinStep(build, table)
        line_tasks = line_join.tasks
        yield line_join
    yield ApplyStep(build, table, line_tasks)


def external_files(settings: DedupConfig, base: Path) -> list[Path]:
    """The indexes of earlier corpora."""
    return index_files(settings, base)


def manifest(build: Build) -> dict[str, Any]:
    """What the index was made with, for a later corpus's `against`."""
    hasher = make_hasher(build.settings, build.seed)
    return {"index": signature_settings(build.settings, build.seed, hasher.bands * hasher.rows)}


class ApplyStep(DocumentStep):
    """Keeps each cluster's survivor, cuts recurring lines, and writes the index of what is kept."""

    def __init__(self, build: Build, table: Table, line_tasks: int) -> None:
        super().__init__("dedup", build.workdir, build.inputs, ADDED)
        self.build, self.table, self.line_tasks = build, table, line_tasks
        self.settings: DedupConfig = build.settings
        self.new = int(table.starts[len(build.inputs)])

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        low, high = int(self.table.starts[rank]), int(self.table.starts[rank + 1])
        self._plan = self._read_plan(low, high)
        self._cuts = lines_to_cut(self.build, self.line_tasks, low, high)
        self._next, self._kept, self._lines_cut = low, list[int](), 0
        report = super().process(rank, heartbeat)
        if self._kept:
            report.files.append(write_index(self.workdir / f"index/{rank:05d}.parquet", self._index_parts()))
        add_counts(report.counts, {"lines_cut": self._lines_cut} if self.line_tasks else {})
        return report

    def _read_plan(self, low: int, high: int) -> dict[int, tuple[str, int, float, str | None, str]]:
        """{node: (survivor's id, cluster size, similarity, rule or None, detail)} of nodes that have duplicates."""
        found = read_clusters(self.build, low, high)
        nodes, survivors = found["node"], found["survivor"]
        same = (self.table.rows("exact", nodes) == self.table.rows("exact", survivors)).all(axis=1)
        same &= self.settings.exact
        known = survivors >= self.new
        ids = hex_ids(self.table.rows("id", survivors))
        addresses = self.table.strings("url", survivors)
        closeness = self._similarities(nodes, survivors)
        plan = {}
        for i, node in enumerate(nodes.tolist()):
            rule = ("exact" if same[i] else "near") + ("_known" if known[i] else "_duplicate")
            detail = f"{ids[i]} {addresses[i] or ''}".strip() if known[i] else ids[i]
            plan[node] = (
                ids[i],
                int(found["size"][i]),
                1.0 if same[i] else float(closeness[i]),
                rule if node != survivors[i] else None,
                detail,
            )
        return plan

    def _similarities(self, nodes: I64, survivors: I64) -> Any:
        exact, parts = self.settings.verify_by == "exact", [np.empty(0)]
        counts = value_counts(self.table, nodes, exact) + value_counts(self.table, survivors, exact)
        for start, end in spans(counts, self.settings):
            pair = np.concatenate([nodes[start:end], survivors[start:end]])
            half = np.arange(len(pair) // 2)
            values, offsets = document_values(self.table, pair, exact)
            parts.append(similarity(values, offsets, half, half + len(half), exact))
        return np.concatenate(parts)

    def judge(self, table: pa.Table, rank: int) -> Verdicts:
        nodes = range(self._next, self._next + table.num_rows)
        self._next += table.num_rows
        ids = table["id"].to_pylist()
        if ids != hex_ids(self.table.rows("id", np.array(nodes, np.int64))):
            raise damaged(self.table.folder, f"its ids are not those of {self.inputs[rank]}")
        single = ("", 1, 1.0, None, "")
        found = [self._plan.get(node, single) for node in nodes]
        rules = [entry[3] for entry in found]
        table, rules = self._cut_lines(table, nodes, rules)
        self._kept += [node for node, rule in zip(nodes, rules, strict=True) if rule is None]
        columns: list[list[Any]] = [
            [entry[0] or i for i, entry in zip(ids, found, strict=True)],
            [entry[1] for entry in found],
            [entry[0] if entry[3] else None for entry in found],
            [entry[2] if entry[3] else None for entry in found],
        ]
        for added, column in zip(ADDED, columns, strict=True):
            table = table.append_column(added, pa.array(column, added.type))
        limits = {"exact": 1.0, "near": self.settings.verify, "recurring": None}
        thresholds = [limits[rule.split("_")[0]] if rule else None for rule in rules]
        return Verdicts(table, rules, columns[-1], thresholds, [entry[4] or None for entry in found])

    def _cut_lines(self, table: pa.Table, nodes: range, rules: list[str | None]) -> tuple[pa.Table, list[str | None]]:
        """The table with recurring lines cut; a document of nothing else is dropped as it was."""
        if not any(node in self._cuts for node in nodes):
            return table, rules
        texts, rules = table["text"].to_pylist(), list(rules)
        urls, sources = table["url"].to_pylist(), table["source"].to_pylist()
        for i, node in enumerate(nodes):
            if node in self._cuts and rules[i] is None:
                rest = cut_lines(texts[i], site_of(urls[i], sources[i]), self._cuts[node])
                self._lines_cut += len(self._cuts[node])
                rules[i] = None if rest else "recurring_lines"
                texts[i] = rest or texts[i]
        place = table.column_names.index("text")
        return table.set_column(place, "text", pa.array(texts, pa.string())), rules

    def _index_parts(self) -> Iterator[dict[str, Any]]:
        exact, kept = self.settings.verify_by == "exact", np.array(self._kept, np.int64)
        for start, end in spans(value_counts(self.table, kept, exact), self.settings):
            nodes = kept[start:end]
            names = ("id", "exact", "scope", "signature")
            part = {name: self.table.rows(name, nodes) for name in names} | {"url": self.table.strings("url", nodes)}
            if exact:
                part["shingles"], part["shingle_ends"] = self.table.shingles(nodes)
            yield part


def hex_ids(ids: Any) -> list[str]:
    """Documents' ids as they stand in parquet files, from uint64 (n, 2)."""
    return [value.tobytes().hex() for value in ids]
