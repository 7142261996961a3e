"""Kinds of charts that several sections draw: bars, columns, curves; and what to say of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cli.report.page import Figure, Table, thin

KEPT, BEFORE = 0, 6  # colours: of what is in the corpus, of what came in
LOGARITHMIC = {"type": "log", "dtick": 1}  # an axis that names powers of ten alone
POINTS = 1000  # of a curve; longer ones are averaged


def bars(name: str, values: list[Any], labels: list[Any]) -> dict[str, Any]:
    """A trace of horizontal bars."""
    return {"type": "bar", "orientation": "h", "name": name, "x": values, "y": labels}


def columns(name: str, labels: list[Any], values: list[Any], color: int = KEPT) -> dict[str, Any]:
    """A trace of upright bars; color: its place among the page's colours, which differ in light and dark."""
    return {"type": "bar", "name": name, "x": labels, "y": values, "meta": {"color": color}}


def sampled(whole: bool) -> str:
    """The sentence that belongs under numbers which a sample stands for."""
    return "" if whole else "From an even sample of the documents, scaled up."


def lines(
    title: str,
    series: dict[str, list[tuple[float, float]]],
    unit: str,
    axis: str = "step",
    *,
    wide: bool = True,
) -> Figure:
    """Curves over steps, with a table that has a row for each place where any of them has a point."""
    series = {name: points for name, points in series.items() if points}
    places = sorted({x for points in series.values() for x, _ in points})
    known = {name: dict(points) for name, points in series.items()}
    rows = [[int(place), *(known[name].get(place) for name in series)] for place in places]
    return Figure(
        title,
        [
            {"type": "scatter", "mode": "lines+markers" if len(points) < 30 else "lines", "name": name}
            | {"x": [x for x, _ in points], "y": [float(f"{y:.6g}") for _, y in points]}
            for name, points in series.items()
        ],
        Table(title, [axis, *series], thin(rows), note="evenly spaced rows" if len(rows) > len(thin(rows)) else ""),
        {"xaxis": {"title": {"text": axis}}, "yaxis": {"title": {"text": unit}}, "hovermode": "x unified"},
        height=360 if wide else 260,
        wide=wide,
    )


def averaged(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: means of equal runs of the finite ones, at the last place of each."""
    finite = [(x, y) for x, y in points if isinstance(y, int | float) and math.isfinite(y)]
    size = max(1, math.ceil(len(finite) / limit))
    parts = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(part[-1][0], math.fsum(y for _, y in part) / len(part)) for part in parts]
