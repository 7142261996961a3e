"""Stage `dedup`: signatures, joins, clusters, and one survivor of each cluster (docs/format.md lists the columns).

Passes: `signatures` (a task per input file) -> `exact-join`, `band-join` (a task per partition of the keys) ->
`clusters` (one task) -> `lines`, `line-join` (optional) -> `passages`, `passage-join` (optional) -> `dedup` (a task
per input file). They share
`pipeline.dedup.table`; its rows name documents only within one building of the stage, whose fingerprint covers
the input files, and the last pass checks every row's id. Drops: `exact_duplicate`, `near_duplicate`, and
`exact_known`, `near_known` where an earlier corpus (`against`) has the document; value: Jaccard similarity
to the document that stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import CorpusConfig, DedupConfig
from pipeline.dedup.joins import (
    BandJoinPass,
    ClusterPass,
    ExactJoinPass,
    document_values,
    read_clusters,
    spans,
    value_counts,
)
from pipeline.dedup.lines import LineJoinPass, LinePass, cut_lines, lines_to_cut, site_of
from pipeline.dedup.signatures import (
    SignaturePass,
    index_files,
    make_hasher,
    open_indexes,
    signature_settings,
    write_index,
)
from pipeline.dedup.substrings import Cutter, PassageJoinPass
from pipeline.dedup.table import Table, damaged
from pipeline.dedup.winnowed import PassagePass
from pipeline.documents import append_columns, read_rows, replace_texts
from pipeline.kernels.clusters import similarity
from pipeline.kernels.minhash import I64
from pipeline.stage import Build, Stage
from pipeline.task import DocumentPass, Judge, Pass, TaskReport, Verdict, Verdicts

ADDED = (
    pa.field("cluster", pa.string()),
    pa.field("cluster_size", pa.int64()),
    pa.field("duplicate_of", pa.string()),
    pa.field("similarity", pa.float64()),
)


def passes(build: Build[DedupConfig]) -> Iterator[Pass]:
    """The passes in order; the optional ones where the recipe asks for them."""
    settings = build.settings
    hasher = make_hasher(settings, build.seed)
    hashes = hasher.bands * hasher.rows
    indexes = open_indexes(settings, build.base, signature_settings(settings, build.seed, hashes))
    table = Table(build.workdir, [read_rows(path) for path in (*build.inputs, *indexes)], hashes)
    yield SignaturePass(build, table, indexes)
    exact = ExactJoinPass(build, table) if settings.exact else None
    near = BandJoinPass(build, table, hasher.bands, exact) if settings.minhash else None
    yield from (join for join in (exact, near) if join)
    yield ClusterPass(build, table, exact, near)
    line_tasks = 0
    if settings.line_documents:
        yield LinePass(build, table)
        line_join = LineJoinPass(build, table)
        line_tasks = line_join.tasks
        yield line_join
    passage_join = None
    if settings.substrings:
        passages = PassagePass(build, table, line_tasks)
        yield passages
        passage_join = PassageJoinPass(build, passages)
        yield passage_join
    yield DedupPass(build, table, line_tasks, passage_join)


def files(settings: DedupConfig, base: Path) -> list[Path]:
    """The indexes of earlier corpora."""
    return index_files(settings, base)


def decided_by(config: CorpusConfig) -> dict[str, Any]:
    """The seed of the hashes."""
    return {"seed": config.seed}


def manifest(build: Build[DedupConfig]) -> dict[str, Any]:
    """Settings of the index, for a later corpus's `against`."""
    hasher = make_hasher(build.settings, build.seed)
    return {"index": signature_settings(build.settings, build.seed, hasher.bands * hasher.rows)}


class Duplicate(NamedTuple):
    """A document that has duplicates. survivor: id of the document of its cluster that stays; size: of the cluster."""

    survivor: str
    size: int
    similarity: float
    verdict: Verdict | None

    def columns(self) -> tuple[str, int, str | None, float | None]:
        """Values of ADDED: the last two only of a document that is dropped as a duplicate."""
        return (self.survivor, self.size, *((self.survivor, self.similarity) if self.verdict else (None, None)))


class DedupPass(DocumentPass):
    """Keeps each cluster's survivor, cuts repeated lines and passages, and writes the index of what is kept."""

    def __init__(
        self, build: Build[DedupConfig], table: Table, line_tasks: int, passage_join: PassageJoinPass | None
    ) -> None:
        super().__init__("dedup", build.workdir, build.inputs, ADDED, build.texts)
        self.build, self.table, self.line_tasks, self.passage_join = build, table, line_tasks, passage_join

    def open(self, rank: int) -> DedupJudge:
        return DedupJudge(self, rank)


class DedupJudge(Judge):
    """Decides on the documents of one input file, in the order of their nodes (`pipeline.dedup.table`)."""

    def __init__(self, of: DedupPass, rank: int) -> None:
        self.settings, self.table = of.build.settings, of.table
        self.input, self.index_file = of.inputs[rank], of.workdir / f"index/{rank:05d}.parquet"
        self.new = int(of.table.starts[len(of.inputs)])  # first node of earlier corpora
        self.next, end = int(of.table.starts[rank]), int(of.table.starts[rank + 1])
        self.duplicates = self._duplicates(read_clusters(of.build, self.next, end))
        self.cuts = lines_to_cut(of.build, of.line_tasks, self.next, end)
        self.cutter = Cutter(of.build, self.table, of.passage_join, rank) if of.passage_join else None
        self.kept: list[int] = []
        self.counts = {"lines_cut": 0} if of.line_tasks else {}

    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        nodes = range(self.next, self.next + table.num_rows)
        self.next = nodes.stop
        ids = table["id"].to_pylist()
        if ids != hex_ids(self.table.rows("id", np.array(nodes, np.int64))):
            raise damaged(self.table.folder, f"its ids are not those of {self.input}")
        rows = [self.duplicates.get(node) or Duplicate(i, 1, 1.0, None) for node, i in zip(nodes, ids, strict=True)]
        table, verdicts = self._cut_lines(table, nodes, [row.verdict for row in rows])
        table = self._cut_passages(table, nodes, verdicts)
        self.kept += [node for node, verdict in zip(nodes, verdicts, strict=True) if verdict is None]
        columns = zip(*(row.columns() for row in rows), strict=True)
        return append_columns(table, ADDED, columns), verdicts

    def report(self) -> TaskReport:
        files = [write_index(self.index_file, self._index_parts())] if self.kept else []
        if self.cutter:
            files.append(self.cutter.close())
            self.counts |= {"passages_cut": self.cutter.cut_spans, "passage_bytes_cut": self.cutter.cut_bytes}
        return TaskReport(self.counts, files)

    def _duplicates(self, clusters: dict[str, Any]) -> dict[int, Duplicate]:
        """{node: duplicate} of nodes that have duplicates."""
        nodes, survivors = clusters["node"], clusters["survivor"]
        same = (self.table.rows("exact", nodes) == self.table.rows("exact", survivors)).all(axis=1)
        same &= self.settings.exact
        ids = hex_ids(self.table.rows("id", survivors))
        urls = self.table.strings("url", survivors)
        similarities = np.where(same, 1.0, self._similarities(nodes, survivors))
        duplicates = {}
        for i, node in enumerate(nodes.tolist()):
            verdict, value = None, float(similarities[i])
            if node != survivors[i]:
                kind, threshold = ("exact", 1.0) if same[i] else ("near", self.settings.verify)
                if survivors[i] >= self.new:
                    verdict = Verdict(f"{kind}_known", value, threshold, f"{ids[i]} {urls[i] or ''}".strip())
                else:
                    verdict = Verdict(f"{kind}_duplicate", value, threshold, ids[i])
            duplicates[node] = Duplicate(ids[i], int(clusters["size"][i]), value, verdict)
        return duplicates

    def _similarities(self, nodes: I64, survivors: I64) -> Any:
        exact, parts = self.settings.verify_by == "exact", [np.empty(0)]
        counts = value_counts(self.table, nodes, exact) + value_counts(self.table, survivors, exact)
        for start, end in spans(counts, self.settings):
            pair = np.concatenate([nodes[start:end], survivors[start:end]])
            half = np.arange(len(pair) // 2)
            values, offsets = document_values(self.table, pair, exact)
            parts.append(similarity(values, offsets, half, half + len(half), exact))
        return np.concatenate(parts)

    def _cut_lines(
        self, table: pa.Table, nodes: range, verdicts: list[Verdict | None]
    ) -> tuple[pa.Table, list[Verdict | None]]:
        """The table with recurring lines cut; a document of nothing else is dropped with its text as it was."""
        if not any(node in self.cuts for node in nodes):
            return table, verdicts
        texts, urls, sources = (table[name].to_pylist() for name in ("text", "url", "source"))
        for i, node in enumerate(nodes):
            if node in self.cuts and verdicts[i] is None:
                rest = cut_lines(texts[i], site_of(urls[i], sources[i]), self.cuts[node])
                self.counts["lines_cut"] += len(self.cuts[node])
                if rest:
                    texts[i] = rest
                else:
                    verdicts[i] = Verdict("recurring_lines")
        return replace_texts(table, texts), verdicts

    def _cut_passages(self, table: pa.Table, nodes: range, verdicts: list[Verdict | None]) -> pa.Table:
        """The table with repeated passages cut; a document of nothing else is dropped with its text as it was."""
        if not self.cutter:
            return table
        rest = self.cutter.cut(nodes.start, table)
        for row, text in rest.items():
            if not text:
                verdicts[row] = Verdict("repeated_passages")
        changed = {row: text for row, text in rest.items() if text}
        mask = np.isin(np.arange(table.num_rows), list(changed))
        texts = pc.replace_with_mask(table["text"], mask, pa.array(changed.values(), pa.string()))
        return table.set_column(table.schema.get_field_index("text"), "text", texts)

    def _index_parts(self) -> Iterator[dict[str, Any]]:
        exact, kept = self.settings.verify_by == "exact", np.array(self.kept, np.int64)
        for start, end in spans(value_counts(self.table, kept, exact), self.settings):
            nodes = kept[start:end]
            names = ("id", "exact", "scope", "signature")
            part = {name: self.table.rows(name, nodes) for name in names} | {"url": self.table.strings("url", nodes)}
            if exact:
                part["shingles"], part["shingle_ends"] = self.table.shingles(nodes)
            yield part


def hex_ids(ids: Any) -> list[str]:
    """Ids as written in parquet files, of uint64 (n, 2)."""
    return [value.tobytes().hex() for value in ids]


STAGE = Stage("dedup", __name__, ("pyarrow",), passes, files, manifest, decided_by)
