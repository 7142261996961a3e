"""mkdocs hook: writes the tables of reference/recipe.md from the pydantic models, so that they cannot go stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from recipes.schema import Recipe


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker by one table for each model of a recipe."""
    marker = "<!-- recipe fields -->"
    return markdown.replace(marker, "\n".join(tables())) if marker in markdown else markdown


def tables() -> Iterator[str]:
    """A heading, the model's docstring and a table of its fields, outermost first, each model once."""
    waiting: list[tuple[str, type[BaseModel]]] = [("", Recipe)]
    seen: set[type[BaseModel]] = set()
    while waiting:
        path, model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        yield f"\n## {path.rstrip('.') or 'top level'}\n\n{(model.__doc__ or '').strip()}\n"
        yield "| field | type | default | meaning |\n|---|---|---|---|"
        for name, field in model.model_fields.items():
            inner = [kind for kind in _models(field.annotation) if kind not in seen]
            is_list = get_origin(field.annotation) is list
            waiting += [(f"{path}{name}.{'0.' if is_list else ''}", kind) for kind in inner]
            meaning = (field.description or "").replace("|", "\\|").replace("<", "&lt;")
            yield f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {meaning} |"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _type(annotation: Any) -> str:
    text = getattr(annotation, "__name__", "") if get_origin(annotation) is None else str(annotation)
    for noise in ("typing.", "pipeline.config.", "trainer.config.", "recipes.schema."):
        text = text.replace(noise, "")
    return f"`{text}`".replace("|", "\\|") if "Annotated" not in text else f"`{_plain(annotation)}`".replace("|", "\\|")


def _plain(annotation: Any) -> str:
    """A type without the bounds that Annotated carries."""
    if get_origin(annotation) is not None and hasattr(annotation, "__metadata__"):
        return _plain(get_args(annotation)[0])
    if get_args(annotation):
        name = getattr(get_origin(annotation), "__name__", "")
        parts = [_plain(part) for part in get_args(annotation)]
        return " | ".join(parts) if name in ("Union", "UnionType") else f"{name}[{', '.join(parts)}]"
    return getattr(annotation, "__name__", str(annotation)).replace("NoneType", "None")


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required" if field.default_factory is None else "-"
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{field.default!r}`".replace("|", "\\|")
