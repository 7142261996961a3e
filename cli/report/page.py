"""Sections to one HTML file that needs nothing else: plotly.js, style, script, data and tables in it.

Jinja2 escapes every text; the figures' JSON is escaped for its place inside a script element. On top of that the
page forbids itself, by a content security policy, every request and every script but the two whose hashes it names:
should a document's text ever get through as markup, it still could not run or load anything.

What a report is made of: sections of tables, figures with their tables, and texts.

Builders return these plain values; `page.py` alone knows HTML. A figure's traces and layout are plotly's JSON
without colours and fonts, which the page's light and dark templates set.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.io import templates
from plotly.offline import get_plotlyjs

HERE = Path(__file__).parent
_TRANSPARENT = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
# Okabe and Ito's colours, which colour-blind readers tell apart, in an order for light and dark ground.
_COLORS = {
    "light": ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b"],
    "dark": ["#56b4e9", "#e69f00", "#2fbf93", "#cc79a7", "#f0e442", "#4f94d4", "#b0b0b0"],
}


def render(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page. facts: (label, value) pairs for the head."""
    shown = [section for section in sections if section.blocks]
    figures = [block for section in shown for block in section.blocks if isinstance(block, Figure)]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["show"] = show
    environment.tests |= {
        name: lambda block, kind=kind: isinstance(block, kind)
        for name, kind in (("figure", Figure), ("table", Table), ("texts", Texts), ("code", Code))
    }
    scripts = {"plotly": get_plotlyjs(), "script": (HERE / "page.js").read_text("utf-8")}
    return environment.get_template("page.html.jinja").render(
        title=title,
        facts=facts,
        sections=shown,
        numbers={id(figure): number for number, figure in enumerate(figures)},
        identity=id,
        style=Markup((HERE / "page.css").read_text("utf-8")),
        scripts={name: Markup(text) for name, text in scripts.items()},
        policy=_policy(list(scripts.values())),
        data=_script_json({"figures": [_spec(figure) for figure in figures], "themes": _themes()}),
    )


def _spec(figure: Figure) -> dict[str, Any]:
    return {"data": figure.traces, "layout": {"height": figure.height} | figure.layout}


def _themes() -> dict[str, Any]:
    """plotly's white and dark templates with our colours, on the page's own ground."""
    themes = {}
    for name, base in (("light", "plotly_white"), ("dark", "plotly_dark")):
        template = templates[base].to_plotly_json()
        font = {"family": "system-ui, sans-serif", "size": 13, "color": "#1c1c1c" if name == "light" else "#e6e6e6"}
        template["layout"] |= {"colorway": _COLORS[name], "font": font, **_TRANSPARENT}
        themes[name] = template
    return themes


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


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
