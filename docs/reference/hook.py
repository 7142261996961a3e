"""mkdocs hook: tables made from the pydantic models and the presets, so that they cannot go stale.

<!-- recipe fields -->       a table for each model of a recipe
<!-- fields: dedup -->       the table of one of them, by its path; several paths give several tables
<!-- rules -->               the presets' rules with their thresholds
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.quality.presets import OPTIONAL, PRESETS
from recipes.schema import Recipe

sys.path.insert(0, str(Path(__file__).parent.parent.parent))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by their tables."""
    markdown = markdown.replace("<!-- recipe fields -->", "\n".join(_all_models()))
    markdown = markdown.replace("<!-- rules -->", "\n".join(_rules()))
    return re.sub(r"<!-- fields: ([\w. ]+) -->", lambda found: "\n".join(_some_models(found[1].split())), markdown)


def _all_models() -> Iterator[str]:
    for path, model in _walk():
        yield f"\n## {path.rstrip('.') or 'top level'}\n\n{(model.__doc__ or '').strip()}\n"
        yield from _table(model)


def _some_models(paths: list[str]) -> Iterator[str]:
    models = {path.rstrip("."): model for path, model in _walk()}
    for path in paths:
        yield f"Fields of `{path}`:\n"
        yield from _table(models[path])
        yield ""


def _walk() -> Iterator[tuple[str, type[BaseModel]]]:
    """(path, model), outermost first, each model once."""
    waiting: list[tuple[str, type[BaseModel]]] = [("", Recipe)]
    seen: set[type[BaseModel]] = set()
    while waiting:
        path, model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        yield path, model
        for name, field in model.model_fields.items():
            is_list = get_origin(field.annotation) is list
            waiting += [(f"{path}{name}.{'0.' if is_list else ''}", kind) for kind in _models(field.annotation)]


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


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _type(annotation: Any) -> str:
    """A type in words: its choices, without the bounds that Annotated carries."""
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
    # A backslash before a bar would show in a code span.
    return f"`{text}`" if "|" not in text else f"<code>{escape(text).replace('|', '&#124;')}</code>"
