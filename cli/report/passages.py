"""For each rule with the most drops: dropped documents with the reason marked, and the kept one nearest to it.

Passages of documents: which columns they are read from, and how a long text is cut around what is marked.

Each is cut to CHARACTERS, so a report holds a few hundred kB of text however large the corpus is. Control
characters are removed by the sections, HTML is escaped by the page.

Clusters of equal and nearly equal documents: how many of each size, and the texts of the largest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cli.report.charts import LOGARITHMIC, columns, sampled
from cli.report.page import Block, Figure, Fragment, Section, Table, Text, Texts
from cli.terminal import clean, printable
from common.runfolder import Row, RunFolder, Stage, find_rows, read_group, sample_groups
from pipeline.quality.presets import PRESETS
from pipeline.quality.spans import offending

PER_RULE = 3
RULES = 20  # with the most drops
SEARCHED = 100_000  # characters of a document in which the reason is looked for

_RULES = {name: rule for rules in PRESETS.values() for name, rule in rules.items()}


def samples_section(run: RunFolder) -> Section:
    """Samples by rule."""
    return Section("samples", "Dropped, and just kept", "The offending part is marked.", samples(run))


def samples(run: RunFolder) -> list[Block]:
    """For each rule with the most drops: dropped documents, and kept ones that came nearest to its threshold."""
    drops = [
        (count, name, stage) for stage in run.stages.values() for name, count in stage.stats.get("dropped", {}).items()
    ]
    drops.sort(key=lambda drop: (-drop[0], drop[1]))
    blocks: list[Block] = []
    for number, (count, name, stage) in enumerate(drops[:RULES]):
        rows = find_rows(stage.folder / "dropped", "rule", {name}, DROPPED_COLUMNS, PER_RULE)
        items = [_dropped_text(row, name) for row in rows]
        if (near := _nearest(stage, name)) is not None:
            items.append(near)
        blocks.append(Texts(f"{name}: {count:,} dropped by {stage.name}", items, opened=number == 0))
    return blocks


def _dropped_text(row: Row, rule: str) -> Text:
    text = printable(row["text"][:SEARCHED])
    signal = _RULES[rule].signal if rule in _RULES else ""
    facts = [clean(row["detail"], 400)] if row.get("detail") else []
    if rule not in " ".join(facts):  # else the detail says both already
        facts = [f"{name} {row[name]:.4g}" for name in ("value", "threshold") if row.get(name) is not None] + facts
    marked = [offending(text, signal)] if signal else []
    column = ("dropped", fragments(text, marked, CHARACTERS))
    return Text(clean(row["url"] or row["path"], 120), "; ".join(facts), [column] if text.strip() else [])


def _nearest(stage: Stage, rule: str) -> Text | None:
    """The kept document whose value is nearest to the rule's published threshold, on the right side of it."""
    if rule not in _RULES:
        return None
    signal, _, threshold = _RULES[rule]
    best: tuple[float, Any, int, int] | None = None
    for path, number in sample_groups(stage.folder / "data")[0]:
        table = read_group(path, number, [signal])
        if not table.num_columns:
            return None
        for index, value in enumerate(table[signal].to_pylist()):
            if value is not None and (best is None or abs(value - threshold) < best[0]):
                best = (abs(value - threshold), path, number, index)
    if best is None:
        return None
    row = read_group(best[1], best[2], [*COLUMNS, signal]).take([best[3]]).to_pylist()[0]
    text = printable(row["text"][:SEARCHED])
    facts = f"value {row[signal]:.4g}, published threshold {threshold:g}"
    column = ("kept, the nearest to the threshold", fragments(text, [offending(text, signal)], CHARACTERS))
    return Text(clean(row["url"] or row["path"], 120), facts, [column])


CHARACTERS = 1500
COLUMNS = ["id", "url", "path", "source", "language", "text"]
DROPPED_COLUMNS = [*COLUMNS, "rule", "value", "threshold", "detail"]


def fragments(text: str, marked: Iterable[tuple[int, int]], limit: int, context: int = 200) -> list[Fragment]:
    """The text cut into marked and unmarked parts, at most `limit` characters from a little before the first mark."""
    marked = list(marked)
    start = max(0, marked[0][0] - context) if marked and marked[0][1] > limit else 0
    end = min(len(text), start + limit)
    parts: list[Fragment] = [("… ", False)] if start else []
    at = start
    for first, last in marked:
        first, last = max(first, at), min(last, end)
        if first < last:
            parts += [(text[at:first], False), (text[first:last], True)]
            at = last
    parts += [(text[at:end], False), (" …" if end < len(text) else "", False)]
    return [part for part in parts if part[0]]


SIZES = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 99), (100, 999), (1000, None))
LARGEST = 5


def duplicates_section(run: RunFolder) -> Section:
    """Sizes and examples."""
    lead = "Clusters of equal and nearly equal documents, of which one survives."
    return Section("duplicates", "Duplicates", lead, [*sizes(run), *largest(run)])


def sizes(run: RunFolder) -> list[Block]:
    """How many clusters there are of each size."""
    stage = run.stages.get("dedup")
    sample = stage.kept(["cluster_size"]) if stage else None
    if sample is None or "cluster_size" not in sample:
        return []
    found = np.array(sample.column("cluster_size"))
    rows: list[list[Any]] = []
    for low, high in SIZES:
        inside = (found >= low) & ((found <= high) if high else True)
        count = round(int(inside.sum()) * sample.scale)
        label = f"{low}" if low == high else f"{low} to {high}" if high else f"{low:,} or more"
        rows.append([label, count, round(float(found[inside].sum()) * sample.scale)])
    return [
        Figure(
            "Sizes of duplicate clusters",
            [columns("clusters", [row[0] for row in rows], [row[1] for row in rows])],
            Table("Clusters by size", ["documents in the cluster", "clusters", "documents"], rows),
            {"xaxis": {"title": {"text": "documents in the cluster"}, "type": "category"}}
            | {"yaxis": {"title": {"text": "clusters"}} | LOGARITHMIC},
            note=f"logarithmic; 1 = no duplicate. {sampled(sample.whole)}",
        )
    ]


def largest(run: RunFolder) -> list[Block]:
    """The largest clusters: size, survivor, and a dropped member."""
    stage = run.stages.get("dedup")
    if not stage:
        return []
    survivors = _largest(stage)
    copies = {
        row["cluster"]: row
        for row in find_rows(stage.folder / "dropped", "cluster", set(survivors), [*DROPPED_COLUMNS, "cluster"], 1)
    }
    items = []
    for name, row in survivors.items():
        texts = [("kept", fragments(printable(row["text"]), [], CHARACTERS))]
        facts = f"{row['cluster_size']:,} documents"
        if copy := copies.get(name):
            texts.append(("dropped", fragments(printable(copy["text"]), [], CHARACTERS)))
            facts += f"; the copy shown: {copy['rule']}, similarity {copy['value']:.2f}, {clean(copy['url'], 100)}"
        items.append(Text(clean(row["url"], 120), facts, texts))
    return [Texts("The largest clusters: the survivor beside a dropped copy", items)] if items else []


def _largest(stage: Stage) -> dict[str, Row]:
    """Survivors of the largest clusters. Row groups are chosen by the greatest size in their footers' statistics."""
    found: list[tuple[int, Any, int]] = []
    for path in sorted((stage.folder / "data").glob("*.parquet")):
        footer = pq.read_metadata(path)
        if "cluster_size" not in footer.schema.names:
            return {}
        column = footer.schema.names.index("cluster_size")
        for number in range(footer.num_row_groups):
            statistics = footer.row_group(number).column(column).statistics
            if statistics and statistics.has_min_max and statistics.max > 1:
                found.append((-statistics.max, path, number))
    rows: list[Row] = []
    for _, path, number in sorted(found)[:LARGEST]:
        table = read_group(path, number, [*COLUMNS, "cluster", "cluster_size"])
        order = sorted(range(table.num_rows), key=lambda i: -table["cluster_size"][i].as_py())
        rows += table.take(order[:LARGEST]).to_pylist()
    rows.sort(key=lambda row: (-row["cluster_size"], row["id"]))
    return {row["cluster"]: row for row in rows[:LARGEST] if row["cluster_size"] > 1}
