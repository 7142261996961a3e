"""Stage `dedup`: signatures, joins, clusters, and one survivor of each cluster (docs/format.md lists the columns).

Passes: `signatures` (a task per input file) -> `exact-join`, `band-join` (a task per partition of the keys) ->
`stars-0`, ... and `clusters` (a task per share of the nodes) -> `lines`, `line-join` (optional) -> `passages`,
`passage-join` (optional) -> `dedup` (a task per input file). They share `pipeline.dedup.table`; its rows name documents
only within one building of the stage, whose fingerprint covers the input files, and the last pass checks every row's
id. Drops: `exact_duplicate`, `near_duplicate`, and `exact_known`, `near_known` where an earlier corpus (`against`) has
the document; value: Jaccard similarity to the document that stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import CorpusConfig, DedupConfig
from pipeline.dedup.components import components
from pipeline.dedup.joins import BandJoinPass, JoinPass, Values, spans
from pipeline.dedup.lines import LineJoinPass, LinePass, cut_lines, lines_to_cut, site_of
from pipeline.dedup.signatures import (
    SignaturePass,
    hex_ids,
    id_words,
    index_files,
    make_hasher,
    open_indexes,
    signature_settings,
    write_index,
)
from pipeline.dedup.substrings import Cutter, PassageJoinPass
from pipeline.dedup.survivors import ClusterPass, read_clusters
from pipeline.dedup.table import Table, damaged
from pipeline.dedup.winnowed import PassagePass
from pipeline.documents import append_columns, read_rows, replace_texts
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
    exact = JoinPass(build, table, "exact", 1) if settings.exact else None
    near = BandJoinPass(build, table, "band", hasher.bands) if settings.minhash else None
    joins = [each for each in (exact, near) if each]
    yield from joins
    yield ClusterPass(build, table, (yield from components(build, table, joins)))
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
    """The seed of the hashes; of earlier corpora only how many there are, since their indexes are hashed."""
    return {"seed": config.seed, "against": len(config.dedup.against)}


def manifest(build: Build[DedupConfig]) -> dict[str, Any]:
    """Settings of the index, for a later corpus's `against`."""
    hasher = make_hasher(build.settings, build.seed)
    return {"index": signature_settings(build.settings, build.seed, hasher.bands * hasher.rows)}


class DedupPass(DocumentPass):
    """Keeps each cluster's survivor, cuts repeated lines and passages, and writes the index of what is kept."""

    def __init__(
        self, build: Build[DedupConfig], table: Table, line_tasks: int, passage_join: PassageJoinPass | None
    ) -> None:
        super().__init__("dedup", build.workdir, build.inputs, ADDED, build.texts)
        self.build, self.table, self.line_tasks, self.passage_join = build, table, line_tasks, passage_join

    def reads(self, rank: int) -> Sequence[Path]:
        earlier = range(len(self.inputs), len(self.table.starts) - 1)
        handed = [f"documents/{task:05d}-*" for task in (rank, *earlier)]
        if self.passage_join:
            handed.append("documents/*/columns.bin")  # ids of documents that have a passage
        handed += [f"{name}/*" for name in ("clusters", "line-join", "passages", "passage-join")]
        return [self.inputs[rank], *(self.workdir / ".scratch" / name for name in handed)]

    def open(self, rank: int) -> DedupJudge:
        return DedupJudge(self, rank)


class DedupJudge(Judge):
    """Decides on the documents of one input file, in the order of their nodes (`pipeline.dedup.table`)."""

    def __init__(self, of: DedupPass, rank: int) -> None:
        self.settings, self.table = of.build.settings, of.table
        self.input, self.index_file = of.inputs[rank], of.workdir / f"index/{rank:05d}.parquet"
        self.new = int(of.table.starts[len(of.inputs)])  # first node of earlier corpora
        self.next, end = int(of.table.starts[rank]), int(of.table.starts[rank + 1])
        self.rows = read_clusters(of.build, self.next, end)
        self.nodes = self.rows["node"].copy()
        self.cuts = lines_to_cut(of.build, of.line_tasks, self.next, end)
        self.cutter = Cutter(of.build, self.table, of.passage_join, rank) if of.passage_join else None
        self.kept: list[int] = []
        self.counts = {"lines_cut": 0} if of.line_tasks else {}

    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        nodes = range(self.next, self.next + table.num_rows)
        self.next = nodes.stop
        if (id_words(table) != self.table.rows(np.array(nodes, np.int64), "id")[0]).any():
            raise damaged(self.table.folder, f"its ids are not those of {self.input}")
        verdicts: list[Verdict | None] = [None] * len(nodes)
        columns: list[list[Any]] = [table["id"].to_pylist(), [1] * len(nodes), [None] * len(nodes), [None] * len(nodes)]
        low, high = np.searchsorted(self.nodes, [nodes.start, nodes.stop]).tolist()
        rows = self.rows[low:high]
        fates = (rows[name].tolist() for name in ("node", "survivor", "size", "similarity", "same"))
        for node, survivor, size, value, same, name in zip(*fates, hex_ids(rows["id"]).to_pylist(), strict=True):
            row = node - nodes.start
            columns[0][row], columns[1][row] = name, size
            if survivor != node:
                verdicts[row], columns[2][row], columns[3][row] = self._drop(survivor, name, value, same), name, value
        table, verdicts = self._cut_lines(table, nodes, verdicts)
        table = self._cut_passages(table, nodes, verdicts)
        self.kept += [node for node, verdict in zip(nodes, verdicts, strict=True) if verdict is None]
        return append_columns(table, ADDED, columns), verdicts

    def report(self) -> TaskReport:
        files = [write_index(self.index_file, self._index_parts())] if self.kept else []
        if self.cutter:
            files.append(self.cutter.close())
            self.counts |= {"passages_cut": self.cutter.cut_spans, "passage_bytes_cut": self.cutter.cut_bytes}
        return TaskReport(self.counts, files)

    def _drop(self, survivor: int, name: str, value: float, same: bool) -> Verdict:
        """Verdict on a duplicate. survivor: node of the document that stays, name: its id."""
        kind, threshold = ("exact", 1.0) if same else ("near", self.settings.verify)
        if survivor < self.new:
            return Verdict(f"{kind}_duplicate", value, threshold, name)
        known = np.array([survivor])
        (url,) = self.table.strings(known, *self.table.rows(known, "url"))
        return Verdict(f"{kind}_known", value, threshold, f"{name} {(url or b'').decode()}".strip())

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
        kept, names = np.array(self.kept, np.int64), ("id", "exact", "scope", "signature", "url")
        (sets,) = self.table.rows(kept, "shingles")
        values_of = Values(self.table, kept, sets, self.settings)
        for start, end in spans(values_of.counts, self.settings):
            *columns, places = self.table.rows(kept[start:end], *names)
            part = dict(zip(names, columns, strict=False)) | {"url": self.table.strings(kept[start:end], places)}
            yield part | ({"sets": values_of.take(np.arange(start, end))} if values_of.exact else {})


def mixes(settings: DedupConfig) -> bool:
    """Lines that recur on a site, or passages of any documents, are cut from texts."""
    return settings.line_documents is not None or settings.substrings is not None


STAGE = Stage("dedup", __name__, ("pyarrow",), passes, files, manifest, decided_by, mixes=mixes)
