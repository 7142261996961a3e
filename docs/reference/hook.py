"""mkdocs hook: tables made from the recipe's schema and the quality presets, so that they are always up to date.

<!-- recipe fields -->       a table for each model of a recipe
<!-- fields: dedup -->       the table of one model, by its path; several paths give several tables
<!-- rules -->               the presets' rules with their thresholds
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.quality.presets import OPTIONAL, PRESETS
from recipes.schema import Recipe, walk


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by their tables."""
    markdown = markdown.replace("<!-- recipe fields -->", "\n".join(_all_models()))
    markdown = markdown.replace("<!-- rules -->", "\n".join(_rules()))
    return re.sub(r"<!-- fields: ([\w. ]+) -->", lambda match: "\n".join(_some_models(match[1].split())), markdown)


def _all_models() -> Iterator[str]:
    shown = set()
    for path, model in walk(Recipe):
        if model not in shown:
            shown.add(model)
            yield f"\n## {'.'.join(map(str, path)) or 'top level'}\n\n{(model.__doc__ or '').strip()}\n"
            yield from _table(model)


def _some_models(paths: list[str]) -> Iterator[str]:
    models = {".".join(map(str, path)): model for path, model in walk(Recipe)}
    for path in paths:
        yield f"Fields of `{path}`:\n"
        yield from _table(models[path])
        yield ""


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {meaning} |"


def _rules() -> Iterator[str]:
    yield "| rule | keeps a document while | |\n|---|---|---|"
    for rules in PRESETS.values():
        for name, rule in rules.items():
            optional = "optional" if name in OPTIONAL else ""
            yield f"| `{name}` | `{rule.signal} {rule.op} {rule.threshold:g}` | {optional} |"


def _type(annotation: Any) -> str:
    """A type in words: a union's members, a literal's values; the bounds in Annotated are left out."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin in (Union, UnionType):
        return " or ".join(map(_type, parts))
    name = getattr(origin or annotation, "__name__", str(annotation))
    inner = ", ".join(_type(part).replace("`", "") for part in parts)
    return f"`{name}[{inner}]`" if parts else f"`{name}`".replace("NoneType", "null")


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required" if field.default_factory is None else "-"
    if isinstance(field.default, BaseModel):
        return "see there"
    if isinstance(field.default, int) and not isinstance(field.default, bool):
        return f"`{field.default:_}`"
    text = json.dumps(field.default, default=str)
    # In a code span, Markdown would show the backslash that escapes a bar in a table.
    return f"`{text}`" if "|" not in text else f"<code>{escape(text).replace('|', '&#124;')}</code>"
