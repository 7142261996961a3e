"""For each rule with the most drops: dropped documents with the reason marked, and the kept one nearest to it."""

from __future__ import annotations

from typing import Any

from pipeline.presets import PRESETS
from pipeline.quality.spans import offending
from recipes.report.blocks import Block, Section, Text, Texts
from recipes.report.excerpts import CHARACTERS, COLUMNS, DROPPED_COLUMNS, fragments
from recipes.report.runfolder import Row, RunFolder, Stage, find_rows, read_group, sample_groups
from recipes.terminal import clean, printable

PER_RULE = 3
RULES = 20  # with the most drops
SEARCHED = 100_000  # characters of a document in which the reason is looked for

_RULES = {name: rule for rules in PRESETS.values() for name, rule in rules.items()}


def section(run: RunFolder) -> Section:
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
