"""Turn pydantic's errors into messages for the author of a recipe.

    FILE:LINE: FIELD: got VALUE, allowed: ..., did you mean `X`?

Each message names the line, the field, the value and what is allowed. A value that fits no member of a union
(`0.3`, `false` or `{threshold, enabled}`) gives one message with all that is allowed, not one per member.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recipes.schema import ITEM, KEY, Location, walk

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping (`key: value`)",
    "model": "a mapping (`key: value`)",
    "none": "nothing",
}
_BOUNDS = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}
# The patterns of pipeline.config and recipes.schema in words.
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters a to z, digits, `.`, `_` and `-`, a letter or digit first, e.g. my-run",
    r"^[a-z][a-z0-9_]*$": "lower-case letters a to z, digits and `_`, a letter first",
    r"^[^:]+\.py:[A-Za-z][A-Za-z0-9_]*$": "FILE.py:NAME, e.g. my_filters.py:keep_recipes",
}


_RENAMED: dict[Location, str] = {("dedup", "threshold"): "dedup.candidates_at"}


@dataclass(frozen=True)
class Document:
    """A parsed recipe: plain values, and where each was given (`FILE:LINE` or `--set ...`)."""

    data: dict[str, Any]
    origins: dict[Location, str]

    def nearest(self, location: Location) -> Location:
        """`location`, or the innermost mapping or list around it that was given."""
        while location and location not in self.origins:
            location = location[:-1]
        return location

    def origin(self, location: Location) -> str:
        """Where `location`, or the innermost mapping or list around it, was given."""
        return self.origins.get(self.nearest(location), "--set")


def explain(error: ValidationError, document: Document, schema: type[BaseModel]) -> list[str]:
    """One message per wrong field, in the recipe's order."""
    errors: dict[Location, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        errors.setdefault(_location(details, document.data), []).append(details)
    order = {location: number for number, location in enumerate(document.origins)}
    wrong = [location for location in errors if not _explained_below(location, errors)]
    wrong.sort(key=lambda location: order.get(document.nearest(location), 0))
    return [_message(location, errors[location], document, schema) for location in wrong]


def similar(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean ...?` with the nearest candidate, or nothing."""
    nearest = get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""


def show(value: Any) -> str:
    """A value for a message, cut to 60 characters."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _location(details: ErrorDetails, data: Any) -> Location:
    """An error's location in the recipe: pydantic's, without the names that it gives to members of a union."""
    location: list[str | int] = []
    for key in details["loc"]:
        children = dict(enumerate(data)) if isinstance(data, list) else data
        if isinstance(children, dict) and key in children:
            location.append(key)
            data = children[key]
    if details["type"] == "missing":
        location.append(details["loc"][-1])
    return tuple(location)


def _explained_below(location: Location, errors: dict[Location, list[ErrorDetails]]) -> bool:
    """Whether an error further inside already explains what is wrong with the mapping at `location`."""
    is_mapping = all(isinstance(details["input"], dict) for details in errors[location])
    own_rule = any(details["type"] == "value_error" for details in errors[location])
    inside = (other for other in errors if other[: len(location)] == location and other != location)
    return is_mapping and not own_rule and any(inside)


def _message(location: Location, group: list[ErrorDetails], document: Document, schema: type[BaseModel]) -> str:
    first = group[0]
    origin, value = document.origin(location), first["input"]
    if first["type"] == "extra_forbidden":
        text = f"unknown key{_allowed_keys(location, schema)}"
    elif first["type"] == "missing":
        origin, text = document.origin(location[:-1]), "missing; it must be given"
    elif first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        named = re.search(r"`(\w+)`", text)
        location += _find(named[1], value) if named else ()
        origin = document.origin(location)
    else:
        allowed = " or ".join(dict.fromkeys(_allowed(details) for details in group))
        hint = "; remove the key to keep its default" if value is None else ""
        if first["type"] == "literal_error" and isinstance(value, str):
            hint = similar(value, _choices(first))
        text = f"got {show(value)}, allowed: {allowed}{hint}"
    return f"{origin}: {'.'.join(map(str, location)) or 'recipe'}: {text}"


def _find(key: str, data: Any) -> Location:
    """Location of `key` in `data`, at any depth; () where it is absent."""
    if not isinstance(data, dict):
        return ()
    if key in data:
        return (key,)
    below = ((name, *_find(key, value)) for name, value in data.items())
    return next((location for location in below if len(location) > 1), ())


def _allowed(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _BOUNDS:
        return _BOUNDS[kind].format_map(context)
    if kind == "literal_error":
        return ", ".join(_choices(details))
    if kind == "int_from_float":
        return _KINDS["int"]
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind == "too_short":
        return f"at least {context['min_length']} item"
    name, _, reason = kind.partition("_")
    if reason in ("type", "parsing", "required") and name in _KINDS:
        return _KINDS[name]
    return details["msg"]


def _choices(details: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", details["ctx"]["expected"])


def _allowed_keys(location: Location, schema: type[BaseModel]) -> str:
    """The keys allowed where an unknown one is, and the nearest spelling there or elsewhere in the schema."""
    if location in _RENAMED:
        return f"; it is called `{_RENAMED[location]}` now"
    *parent, key = location
    siblings: list[str] = []
    elsewhere: list[str] = []
    for path, model in walk(schema):
        fits = len(path) == len(parent) and all(a in (b, ITEM, KEY) for a, b in zip(path, parent, strict=True))
        siblings += model.model_fields if fits else ()
        if key in model.model_fields and KEY not in path:
            elsewhere.append(".".join(map(str, (*path, key))))
    # First a near spelling here, then the same key elsewhere, then a faint resemblance here.
    hint = similar(str(key), siblings, 0.8)
    if not hint:
        hint = f"; did you mean `{elsewhere[0]}`?" if elsewhere else similar(str(key), siblings)
    return f", allowed: {', '.join(siblings)}{hint}"
