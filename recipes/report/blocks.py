"""What a report is made of: sections of tables, figures with their tables, and texts.

Builders return these plain values; `page.py` alone knows HTML. A figure's traces and layout are plotly's JSON
without colours and fonts, which the page's light and dark templates set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_ROWS = 60

Fragment = tuple[str, bool]  # text, and whether it is marked


@dataclass(frozen=True)
class Table:
    """Rows under named columns. Numbers stand right and get thousands separators; None is shown as a dash."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A plotly figure and the table of its numbers."""

    title: str
    traces: list[dict[str, Any]]
    table: Table
    layout: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    height: int = 320
    wide: bool = True


@dataclass(frozen=True)
class Text:
    """One or two texts side by side, each a label and fragments; `facts` is the line above them."""

    heading: str
    facts: str
    columns: list[tuple[str, list[Fragment]]]


@dataclass(frozen=True)
class Texts:
    """Texts under one title, folded away until they are asked for unless `opened`."""

    title: str
    items: list[Text]
    note: str = ""
    opened: bool = False


@dataclass(frozen=True)
class Code:
    """Text that is shown as it is, e.g. a recipe."""

    title: str
    text: str


Block = Table | Figure | Texts | Code


@dataclass(frozen=True)
class Section:
    """A titled part of the page; one without blocks is left out."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block]


def show(value: Any) -> str:
    """A table cell: 1,234 and 0.1235 and `–` for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value and abs(value) < 0.001:
            return f"{value:.2e}"
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"
    return str(value)


def thin(rows: list[list[Any]], limit: int = MAX_ROWS) -> list[list[Any]]:
    """At most `limit` rows, evenly spaced, the first and the last among them."""
    if len(rows) <= limit:
        return rows
    return [rows[round(i * (len(rows) - 1) / (limit - 1))] for i in range(limit)]
