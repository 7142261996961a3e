"""A histogram of each signal that a rule looks at: kept and dropped documents, with the rules' thresholds as lines.

From bounded samples, scaled up where they are not complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from cli.contents import Sample, read_recipe, read_sample
from cli.report.page import Block, Figure, Table, axis, sampled
from common.runfolder import RunFolder, Stage
from pipeline.config import QualityConfig

BINS = 40


def signal_histograms(run: RunFolder) -> list[Block]:
    """The language score and the quality signals, in order of what their rules dropped."""
    figures: list[Block] = []
    if language := run.stages.get("language"):
        threshold = float(read_recipe(run).get("language", {}).get("threshold", 0.65))
        lines = [(threshold, f"language.threshold ≥ {threshold:g}")]
        figures += _histogram(_sides(language, ["language_score"]), "language_score", lines)
    if quality := run.stages.get("quality"):
        thresholds = _thresholds(run)
        sides = _sides(quality, list(thresholds))
        for signal, lines in thresholds.items():
            figures += _histogram(sides, signal, lines)
    return figures


def _sides(stage: Stage, columns: list[str]) -> dict[str, Sample]:
    return {"kept": read_sample(stage.data, columns), "dropped": read_sample(stage.dropped, columns)}


def _thresholds(run: RunFolder) -> dict[str, list[tuple[float, str]]]:
    """(threshold, rule) of each signal by the recipe, largest drops first; without overrides by language."""
    from pipeline.quality.rules import rules_for

    given = read_recipe(run).get("quality", {})
    settings = QualityConfig.model_validate({key: given[key] for key in given if key in QualityConfig.model_fields})
    thresholds: dict[str, list[tuple[float, str]]] = {}
    drops: Counter[str] = Counter()
    dropped = run.stages["quality"].stats.get("dropped", {})
    for name, rule in rules_for(settings, "en").items():
        sign = "≥" if rule.op == ">=" else "≤"
        thresholds.setdefault(rule.signal, []).append((rule.threshold, f"{name} {sign} {rule.threshold:,g}"))
        drops[rule.signal] += dropped.get(name, 0)
    return dict(sorted(thresholds.items(), key=lambda item: -drops[item[0]]))


def _histogram(sides: dict[str, Sample], signal: str, lines: Sequence[tuple[float, str]]) -> list[Block]:
    values = {
        side: np.array([value for value in sample.column(signal) if value is not None], np.float64)
        for side, sample in sides.items()
    }
    together = np.concatenate(list(values.values()))
    if not len(together):
        return []
    edges, logarithmic = bin_edges(together, [line for line, _ in lines])
    counts = {
        side: np.round(np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)[0] * sides[side].scale).astype(int)
        for side, numbers in values.items()
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
        "yaxis": axis("documents"),
        "shapes": [
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": {"dash": "dash"}}
            for x in (_position(line, edges) for line, _ in lines)
        ],
    }
    traces = [
        {"type": "bar", "name": side, "x": list(range(len(labels))), "y": column.tolist(), "customdata": labels}
        | {"hovertemplate": "%{customdata}: %{y:,}<extra>" + side + "</extra>"}
        for side, column in counts.items()
    ]
    note = "; ".join(text for _, text in lines) + ("; logarithmic steps" if logarithmic else "")
    note += ". " + sampled(all(sample.complete for sample in sides.values()))
    return [Figure(signal, traces, table, layout, note=note.strip(), height=260, wide=False)]


def bin_edges(values: np.ndarray[Any, Any], lines: Sequence[float]) -> tuple[np.ndarray[Any, Any], bool]:
    """BINS + 1 edges over the values and the thresholds, and whether they are in equal ratios (values over decades).

    The outer 1 % of the values on either side falls into the outer bins.
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
    """A value's position on an axis that numbers the bins."""
    return float(np.interp(value, edges, np.arange(len(edges)) - 0.5))
