"""A histogram of each signal that a rule looks at: kept and dropped documents, thresholds drawn in.

From the bounded sample, scaled up where that is not the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.config import QualityConfig
from pipeline.presets import QualityRule
from recipes.report.blocks import Block, Figure, Section, Table
from recipes.report.charts import sampled
from recipes.report.runfolder import RunFolder, Stage

BINS = 40


def section(run: RunFolder) -> Section:
    """Histograms."""
    return Section("signals", "Signals and thresholds", "Kept and dropped documents by value.", signals(run))


def signals(run: RunFolder) -> list[Block]:
    """A histogram of each signal that a rule looks at, kept and dropped apart, thresholds drawn in."""
    figures: list[Block] = []
    language = run.stages.get("language")
    if language:
        threshold = float(run.recipe.get("language", {}).get("threshold", 0.65))
        lines = [(threshold, f"language.threshold ≥ {threshold:g}")]
        figures += _histogram(language, "language_score", lines)
    quality = run.stages.get("quality")
    if quality:
        for signal, lines in _thresholds(run).items():
            figures += _histogram(quality, signal, lines)
    return figures


def _thresholds(run: RunFolder) -> dict[str, list[tuple[float, str]]]:
    """(threshold, rule) of each signal by the recipe, those that drop most first; without overrides per language."""
    from pipeline.quality.rules import rules_for

    given = {key: value for key, value in run.recipe.get("quality", {}).items() if key in QualityConfig.model_fields}
    settings = QualityConfig.model_validate(given)
    found: dict[str, list[tuple[float, str]]] = {}
    drops: Counter[str] = Counter()
    dropped = run.stages["quality"].stats.get("dropped", {})
    rule: QualityRule
    for name, rule in rules_for(settings, "en").items():
        sign = "≥" if rule.op == ">=" else "≤"
        found.setdefault(rule.signal, []).append((rule.threshold, f"{name} {sign} {rule.threshold:,g}"))
        drops[rule.signal] += dropped.get(name, 0)
    return dict(sorted(found.items(), key=lambda item: -drops[item[0]]))


def _histogram(stage: Stage, signal: str, lines: Sequence[tuple[float, str]]) -> list[Block]:
    sides = {"kept": stage.kept([signal]), "dropped": stage.dropped([signal])}
    values = {
        side: np.array([value for value in sample.column(signal) if value is not None], np.float64)
        for side, sample in sides.items()
    }
    together = np.concatenate(list(values.values()))
    if not len(together):
        return []
    edges, logarithmic = bin_edges(together, [line for line, _ in lines])
    counts = {
        side: np.round(np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] * sides[side].scale).astype(int)
        for side, found in values.items()
    }
    labels = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    table = Table(
        signal,
        ["from", "to", *counts],
        [
            [float(edges[i]), float(edges[i + 1]), *(int(column[i]) for column in counts.values())]
            for i in range(len(labels))
            if any(column[i] for column in counts.values())
        ],
        note="; ".join(text for _, text in lines),
    )
    ticks = round_numbers(edges[0], edges[-1], logarithmic=logarithmic)
    layout = {
        "barmode": "stack",
        "bargap": 0.02,
        "xaxis": {"tickvals": [_position(tick, edges) for tick in ticks], "ticktext": [f"{tick:,g}" for tick in ticks]},
        "yaxis": {"title": {"text": "documents"}},
        "shapes": [
            {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper", "line": {"dash": "dash"}}
            for place in (_position(line, edges) for line, _ in lines)
        ],
    }
    traces = [
        {"type": "bar", "name": side, "x": list(range(len(labels))), "y": column.tolist(), "customdata": labels}
        | {"hovertemplate": "%{customdata}: %{y:,}<extra>" + side + "</extra>"}
        for side, column in counts.items()
    ]
    note = "; ".join(text for _, text in lines) + ("; logarithmic steps" if logarithmic else "")
    whole = all(sample.whole for sample in sides.values())
    return [Figure(signal, traces, table, layout, note=f"{note}. {sampled(whole)}".strip(), height=260, wide=False)]


def bin_edges(values: np.ndarray[Any, Any], lines: Sequence[float]) -> tuple[np.ndarray[Any, Any], bool]:
    """BINS + 1 edges over the bulk of the values and the thresholds; in equal ratios where values span decades.

    The outer 1 % on either side falls into the outer bins.
    """
    near = [line for line in lines if line <= 4 * values.max() or line == min(lines)]
    low, high = np.quantile(values, [0.01, 0.99])
    low, high = min(low, *near, values.max()) if near else low, max(high, *near) if near else high
    if high <= low:
        high = low + 1.0
    positive = values[values > 0]
    if len(positive) and high > 100 and np.median(positive) < high / 20:
        return np.geomspace(max(low, 1.0), high, BINS + 1), True
    margin = 0.02 * (high - low)
    return np.linspace(low - margin if low < 0 or low > margin else low, high + margin, BINS + 1), False


def round_numbers(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Three to seven round numbers between low and high, powers of ten on a logarithmic axis."""
    if logarithmic:
        powers = range(int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9)) + 1)
        return [10.0**power for power in powers]
    unit = 10.0 ** np.floor(np.log10((high - low) / 2))
    step = next(unit * factor for factor in (0.5, 1, 2, 5) if (high - low) / (unit * factor) <= 6)
    return [float(f"{i * step:.6g}") for i in range(int(np.ceil(low / step)), int(high / step) + 1)]


def _position(value: float, edges: np.ndarray[Any, Any]) -> float:
    """Where a value lies on an axis that numbers the bins."""
    return float(np.interp(value, edges, np.arange(len(edges)) - 0.5))
