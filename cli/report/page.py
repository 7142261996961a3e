"""The blocks of a report (tables, figures, texts, code), and the one self-contained HTML file made of them.

Blocks are plain values; a figure's traces and layout are plotly's JSON without colours and fonts, which the page's
light and dark templates set. Every figure comes with the table of its numbers.

The file holds plotly.js, style, script and data. Jinja2 escapes every text, and the figures' JSON is escaped for its
script element. Beyond that the page's content security policy forbids every request, and every script but the two whose
hashes it lists: a document's text that ever got through as markup could not run or load anything.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

_HERE = Path(__file__).parent
# Okabe and Ito's colours, which colour-blind readers can tell apart, ordered for light and dark backgrounds.
_COLORS = {
    "light": ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b"],
    "dark": ["#56b4e9", "#e69f00", "#2fbf93", "#cc79a7", "#f0e442", "#4f94d4", "#b0b0b0"],
}
_INK = {"light": "#1c1c1c", "dark": "#e6e6e6"}
KEPT, BEFORE = 0, 6  # colours by number: documents in the corpus, documents that came in
POINTS = 1000  # of a curve; longer curves are averaged
MAX_ROWS = 60  # of a curve's table

Fragment = tuple[str, bool]  # text, and whether it is marked


@dataclass(frozen=True)
class Table:
    """Rows under named columns. Numbers are aligned right with thousands separators; None is shown as a dash."""

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
    """One or two labelled texts side by side, in fragments, below a line of `facts`."""

    heading: str
    facts: str
    columns: list[tuple[str, list[Fragment]]]


@dataclass(frozen=True)
class Texts:
    """Texts under one title, folded unless `opened`."""

    title: str
    items: list[Text]
    note: str = ""
    opened: bool = False


@dataclass(frozen=True)
class Code:
    """Preformatted text, e.g. a recipe."""

    title: str
    text: str


Block = Table | Figure | Texts | Code


@dataclass(frozen=True)
class Section:
    """A titled part of the page; a section without blocks is left out."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block]


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Settings of a figure's axis."""
    return {"title": {"text": title}, **settings}


def log_axis(title: str) -> dict[str, Any]:
    """A logarithmic axis that labels powers of ten only."""
    return axis(title, type="log", dtick=1)


def bars_layout(title: str, **settings: Any) -> dict[str, Any]:
    """Layout of horizontal bars, the first one on top."""
    return {"xaxis": axis(title), "yaxis": {"autorange": "reversed"}, **settings}


def bars(name: str, values: list[Any], labels: list[Any]) -> dict[str, Any]:
    """A trace of horizontal bars."""
    return {"type": "bar", "orientation": "h", "name": name, "x": values, "y": labels}


def columns(name: str, labels: list[Any], values: list[Any], color: int = KEPT) -> dict[str, Any]:
    """A trace of upright bars; color: a number of the page's colours, which differ in light and dark."""
    return {"type": "bar", "name": name, "x": labels, "y": values, "meta": {"color": color}}


def lines(
    title: str, series: dict[str, list[tuple[float, float]]], unit: str, x: str = "step", *, wide: bool = True
) -> Figure:
    """Curves over `x`, with a table that has a row for each x at which any of them has a point."""
    series = {name: points for name, points in series.items() if points}
    positions = sorted({x for points in series.values() for x, _ in points})
    values = {name: dict(points) for name, points in series.items()}
    rows = [[int(position), *(values[name].get(position) for name in series)] for position in positions]
    shown = thin(rows)
    return Figure(
        title,
        [
            {"type": "scatter", "mode": "lines+markers" if len(points) < 30 else "lines", "name": name}
            | {"x": [x for x, _ in points], "y": [float(f"{y:.6g}") for _, y in points]}
            for name, points in series.items()
        ],
        Table(title, [x, *series], shown, note="evenly spaced rows" if len(rows) > len(shown) else ""),
        {"xaxis": axis(x), "yaxis": axis(unit), "hovermode": "x unified"},
        height=360 if wide else 260,
        wide=wide,
    )


def averaged(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: means over equally many finite points each, at the last x of each."""
    finite = [(x, y) for x, y in points if isinstance(y, int | float) and math.isfinite(y)]
    size = max(1, math.ceil(len(finite) / limit))
    parts = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(part[-1][0], math.fsum(y for _, y in part) / len(part)) for part in parts]


def sampled(complete: bool) -> str:
    """The note on numbers that were scaled up from a sample."""
    return "" if complete else "From an even sample of the documents, scaled up."


def show(value: Any) -> str:
    """A table cell as text: 1,234, 0.1235, `–` for None."""
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
    """At most `limit` rows, evenly spaced, with the first and the last."""
    if len(rows) <= limit:
        return rows
    return [rows[round(i * (len(rows) - 1) / (limit - 1))] for i in range(limit)]


def render(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page as HTML. facts: (label, value) pairs for its head."""
    shown = [section for section in sections if section.blocks]
    figures = [block for section in shown for block in section.blocks if isinstance(block, Figure)]
    scripts = {
        "plotly": (_plotly() / "plotly.min.js").read_text("utf-8"),
        "script": (_HERE / "page.js").read_text("utf-8"),
    }
    return template().render(
        title=title,
        facts=facts,
        sections=shown,
        numbers={id(figure): number for number, figure in enumerate(figures)},
        identity=id,
        style=Markup((_HERE / "page.css").read_text("utf-8")),
        scripts={name: Markup(text) for name, text in scripts.items()},
        policy=_policy(list(scripts.values())),
        data=_script_json({"figures": [_spec(figure) for figure in figures], "themes": _themes()}),
    )


@cache
def template() -> Template:
    """The page's template, compiled once a process."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["show"] = show
    environment.tests |= {
        name: lambda block, kind=kind: isinstance(block, kind)
        for name, kind in (("figure", Figure), ("table", Table), ("texts", Texts), ("code", Code))
    }
    return environment.get_template("page.html.jinja")


def _plotly() -> Path:
    """plotly's data files. Importing plotly to ask for them would take 0.3 s."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("plotly", name="plotly")
    return Path(spec.origin).parent / "package_data"


def _spec(figure: Figure) -> dict[str, Any]:
    return {"data": figure.traces, "layout": {"height": figure.height} | figure.layout}


def _themes() -> dict[str, Any]:
    """plotly's white and dark templates with our colours, on the page's own background."""
    themes = {}
    for name, base in (("light", "plotly_white"), ("dark", "plotly_dark")):
        template = json.loads((_plotly() / f"templates/{base}.json").read_bytes())
        font = {"family": "system-ui, sans-serif", "size": 13, "color": _INK[name]}
        clear = dict.fromkeys(("paper_bgcolor", "plot_bgcolor"), "rgba(0,0,0,0)")
        template["layout"] |= {"colorway": _COLORS[name], "font": font, **clear}
        themes[name] = template
    return themes


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
