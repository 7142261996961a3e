"""Clusters of equal and nearly equal documents: how many of each size, and the texts of the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq

from recipes.report.blocks import Block, Figure, Section, Table, Text, Texts
from recipes.report.charts import LOGARITHMIC, columns, sampled
from recipes.report.excerpts import CHARACTERS, COLUMNS, DROPPED_COLUMNS, fragments
from recipes.report.runfolder import Row, RunFolder, Stage, find_rows, read_group
from recipes.terminal import clean, printable

SIZES = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 99), (100, 999), (1000, None))
LARGEST = 5


def section(run: RunFolder) -> Section:
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
