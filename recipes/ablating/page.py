"""An ablation's results for people: the table on the terminal, and a page with table, plot and verdicts."""

from __future__ import annotations

from typing import Any

from rich.table import Table as TerminalTable

from recipes.report.blocks import Figure, Section, Table
from recipes.terminal import make_table

_COLUMNS = ["variant", "documents", "tokens", "epochs", "bits per byte", "spread", "by seed"]


def terminal_table(found: dict[str, Any]) -> TerminalTable:
    """The variants, one a line."""
    table = make_table(*_COLUMNS)
    for row in _rows(found):
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return table


def sections(found: dict[str, Any]) -> list[Section]:
    """The comparison as a page."""
    rows = found["variants"]
    names = [row["variant"] for row in rows]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean and spread",
            "marker": {"size": 12},
            "x": [row["mean"] for row in rows],
            "y": names,
            "error_x": {"type": "data", "array": [row["spread"] or 0.0 for row in rows]},
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "each seed",
            "marker": {"size": 9, "symbol": "line-ns-open"},
            "x": [score for row in rows for score in row["bits_per_byte"]],
            "y": [row["variant"] for row in rows for _ in row["bits_per_byte"]],
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "bits per byte, lower is better"}},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
    table = Table("Variants", _COLUMNS, _rows(found), note="spread: standard deviation over seeds")
    figure = Figure("Bits per byte on the held-out text", traces, table, layout, height=120 + 60 * len(rows))
    said = Table("Verdicts", ["verdict"], [[verdict["says"]] for verdict in found["verdicts"]])
    lead = f"{found['held_out_bytes']:,} bytes of held-out text, which no variant's stages saw."
    return [Section("results", "Results", lead, [said, figure, table])]


def _rows(found: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for row in found["variants"]:
        spread = f"{row['spread']:.4f}" if row["spread"] is not None else "-"
        scores = "  ".join(f"{score:.4f}" for score in row["bits_per_byte"])
        counts = [row["variant"], row["documents"], row["tokens"], round(row["epochs"], 2)]
        rows.append([*counts, f"{row['mean']:.4f}", spread, scores])
    return rows
