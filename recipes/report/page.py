"""Sections to one HTML file that needs nothing else: plotly.js, style, script, data and tables in it.

Jinja2 escapes every text; the figures' JSON is escaped for its place inside a script element. On top of that the
page forbids itself, by a content security policy, every request and every script but the two whose hashes it names:
should a document's text ever get through as markup, it still could not run or load anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.io import templates
from plotly.offline import get_plotlyjs

from recipes.report.blocks import Code, Figure, Section, Table, Texts, show

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
