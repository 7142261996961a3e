"""Documents by language and by length, from the bounded sample, scaled up where that is not the whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc

from recipes.report.blocks import Block, Figure, Section, Table
from recipes.report.charts import BEFORE, KEPT, LOGARITHMIC, columns, sampled
from recipes.report.runfolder import RunFolder, Stage, read_group, sample_groups

TOP = 20  # languages in the chart; the table has all


def section(run: RunFolder) -> Section:
    """Languages, then lengths."""
    return Section("languages", "Languages and lengths", "", [*languages(run), *lengths(run)])


def languages(run: RunFolder) -> list[Block]:
    """Documents by language when identified, and at the end."""
    identified = run.stages.get("language")
    texts = [stage for name, stage in run.stages.items() if name != "tokenize"]
    if not identified or not texts:
        return []
    before, after = identified.kept(["language"]), texts[-1].kept(["language"])
    found, kept = (Counter(sample.column("language")) for sample in (before, after))
    rows: list[list[Any]] = []
    for language, count in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        first, last = round(count * before.scale), round(kept[language] * after.scale)
        rows.append([language, first, last, 100 * last / first])
    most = rows[:TOP]
    names = [row[0] for row in most]
    return [
        Figure(
            "Documents by language",
            [
                columns("identified", names, [row[1] for row in most], BEFORE),
                columns("in the corpus", names, [row[2] for row in most]),
            ],
            Table("Documents by language", ["language", "identified", "in the corpus", "kept %"], rows),
            {"barmode": "group", "yaxis": {"title": {"text": "documents"}} | LOGARITHMIC},
            note=f"logarithmic; the {len(most)} most frequent of {len(rows)}. {sampled(before.whole and after.whole)}",
        )
    ]


def lengths(run: RunFolder) -> list[Block]:
    """Lengths of documents after extraction and in the corpus, in steps of a factor of two."""
    texts = [stage for name, stage in run.stages.items() if name != "tokenize"]
    if not texts:
        return []
    shown = {f"after {stage.name}": stage for stage in dict.fromkeys([texts[0], texts[-1]])}
    counts = {name: _length_counts(stage) for name, stage in shown.items()}
    present = [power for column in counts.values() for power in column]
    if not present:
        return []
    powers = range(min(present), max(present) + 1)
    labels = [_size_label(power) for power in powers]
    rows: list[list[Any]] = [
        [label, *(column[power] for column in counts.values())] for label, power in zip(labels, powers, strict=True)
    ]
    colors = [BEFORE, KEPT][-len(counts) :]
    traces = [
        columns(name, labels, [column[power] for power in powers], color)
        for (name, column), color in zip(counts.items(), colors, strict=True)
    ]
    return [
        Figure(
            "Lengths of documents",
            traces,
            Table("Documents by length", ["bytes of text, at least", *counts], rows),
            {"barmode": "group", "xaxis": {"title": {"text": "bytes of text, at least"}, "type": "category"}}
            | {"yaxis": {"title": {"text": "documents"}}},
        )
    ]


def _length_counts(stage: Stage) -> Counter[int]:
    """Documents by floor(log2(bytes of text)), scaled up from the sample."""
    counts: Counter[int] = Counter()
    groups, total = sample_groups(stage.folder / "data")
    for path, number in groups:
        sizes = pc.binary_length(read_group(path, number, ["text"])["text"]).to_numpy()
        counts.update(np.log2(np.maximum(sizes, 1)).astype(int).tolist())
    scale = total / max(sum(counts.values()), 1)
    return Counter({power: round(count * scale) for power, count in counts.items()})


def _size_label(power: int) -> str:
    for unit, step in (("M", 20), ("k", 10)):
        if power >= step:
            return f"{1 << (power - step)}{unit}"
    return str(1 << power)
