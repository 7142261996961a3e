"""What each rule dropped, counted as `pretrain inspect` does: by it only, by it first, by it alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from recipes.report.blocks import Block, Figure, Section, Table
from recipes.report.charts import bars, sampled
from recipes.report.runfolder import RunFolder

TOP = 20  # rules in the chart; the table has all


def section(run: RunFolder) -> Section:
    """Drops by rule."""
    return Section("rules", "What each rule dropped", "", rules(run))


def rules(run: RunFolder) -> list[Block]:
    """Drops by rule, counted as `pretrain inspect` does: by it only, by it first, by it alone."""
    rows: list[list[Any]] = []
    whole = True
    for stage in run.stages.values():
        first = stage.stats["dropped"]
        if not first:
            continue
        sample = stage.dropped(["rule", "failed_rules"])
        whole = whole and sample.whole
        only: Counter[str] = Counter()
        anywhere: Counter[str] = Counter()
        for rule, listed in zip(sample.column("rule"), sample.column("failed_rules"), strict=True):
            failed = listed.split() if listed else [rule]
            anywhere.update(failed)
            if len(failed) == 1:
                only[rule] += 1
        for rule in sorted(anywhere.keys() | first.keys()):
            rows.append(
                [
                    stage.name,
                    rule,
                    min(round(only[rule] * sample.scale), first.get(rule, 0)),
                    first.get(rule, 0),
                    max(round(anywhere[rule] * sample.scale), first.get(rule, 0)),
                ]
            )
    if not rows:
        return []
    rows.sort(key=lambda row: (-row[4], row[1]))
    most = rows[:TOP]
    names = [row[1] for row in most]
    traces = [bars(name, [row[i] for row in most], names) for i, name in ((2, "only"), (3, "first"), (4, "alone"))]
    return [
        Figure(
            "Documents dropped, by rule",
            traces,
            Table("Drops by rule", ["stage", "rule", "only", "first", "alone"], rows),
            {"yaxis": {"autorange": "reversed"}, "xaxis": {"title": {"text": "documents"}}, "barmode": "group"},
            note="only: no other rule drops them; first: counted for this rule in the funnel; alone: this rule would"
            " drop them whatever the others do. " + sampled(whole),
            height=90 + 40 * len(most),
        )
    ]
