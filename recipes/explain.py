"""Turn pydantic's errors into lines for the person who wrote the recipe.

    FILE:LINE: FIELD: got VALUE, allowed: ..., did you mean `X`?

Each line says where the value stands, what it is and what may stand there. A value that fits no member of a
union (`0.3`, `false` or `{threshold, enabled}`) gives one line with all that is allowed, not one per member.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recipes.schema import Location

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
_BOUNDS = {"greater_than": "above {gt}", "greater_than_equal": "at least {ge}"} | {
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}

# Patterns of pipeline.config and recipes.schema in words.
PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters of a to z, digits, `.`, `_` and `-`, no sign first, e.g. my-run",
    r"^[^:]+\.py:[A-Za-z][A-Za-z0-9_]*$": "FILE.py:NAME, e.g. my_filters.py:keep_recipes",
    r"^[a-z][a-z0-9_]*$": "small letters of a to z, digits and `_`, a letter first",
}


_RENAMED: dict[Location, str] = {("dedup", "threshold"): "dedup.candidates_at"}


@dataclass(frozen=True)
class Document:
    """A parsed recipe: plain values, and for each location where it was said (`FILE:LINE` or `--set ...`)."""

    data: dict[str, Any]
    origins: dict[Location, str]

    def nearest(self, location: Location) -> Location:
        """`location`, or the innermost thing around it that was written down."""
        while location and location not in self.origins:
            location = location[:-1]
        return location

    def origin(self, location: Location) -> str:
        """Where `location`, or the innermost thing around it, was said."""
        return self.origins.get(self.nearest(location), "--set")


def explain(error: ValidationError, document: Document, schema: type[BaseModel]) -> list[str]:
    """One message per wrong field, in the order in which the fields stand in the recipe."""
    groups: dict[Location, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        groups.setdefault(_written(details, document.data), []).append(details)
    order = {place: number for number, place in enumerate(document.origins)}
    wrong = [place for place in groups if not _told_deeper(place, groups)]
    wrong.sort(key=lambda place: order.get(document.nearest(place), 0))
    return [_message(place, groups[place], document, schema) for place in wrong]


def similar(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean ...?` for the nearest candidate, or nothing."""
    nearest = get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""


def show(value: Any) -> str:
    """A value as one would write it, cut to 60 characters."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _written(details: ErrorDetails, data: Any) -> Location:
    """Where in the recipe an error is: its location without the names that pydantic gives to union members."""
    place: list[str | int] = []
    for key in details["loc"]:
        children = dict(enumerate(data)) if isinstance(data, list) else data
        if isinstance(children, dict) and key in children:
            place.append(key)
            data = children[key]
    if details["type"] == "missing":
        place.append(details["loc"][-1])
    return tuple(place)


def _told_deeper(place: Location, groups: dict[Location, list[ErrorDetails]]) -> bool:
    """Whether a deeper error already tells what is wrong with the mapping at `place`."""
    is_mapping = all(isinstance(details["input"], dict) for details in groups[place])
    own_rule = any(details["type"] == "value_error" for details in groups[place])
    return is_mapping and not own_rule and any(other[: len(place)] == place and other != place for other in groups)


def _message(place: Location, group: list[ErrorDetails], document: Document, schema: type[BaseModel]) -> str:
    field = ".".join(map(str, place))
    first = group[0]
    if first["type"] == "extra_forbidden":
        return f"{document.origin(place)}: {field}: unknown key{_unknown_key(place, schema)}"
    if first["type"] == "missing":
        return f"{document.origin(place[:-1])}: {field}: missing; it must be given"
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        named = re.search(r"`(\w+)`", text)
        place += _find(named.group(1), first["input"]) if named else ()
        return f"{document.origin(place)}: {'.'.join(map(str, place)) or 'recipe'}: {text}"
    value = first["input"]
    allowed = " or ".join(dict.fromkeys(_allowed(details) for details in group))
    hint = "; remove the key to keep its default" if value is None else _nearest_choice(first)
    return f"{document.origin(place)}: {field}: got {show(value)}, allowed: {allowed}{hint}"


def _find(key: str, data: Any) -> Location:
    """Where `key` stands in `data`, at any depth; () where it does not."""
    if not isinstance(data, dict):
        return ()
    if key in data:
        return (key,)
    below = ((name, *_find(key, value)) for name, value in data.items())
    return next((place for place in below if len(place) > 1), ())


def _allowed(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _BOUNDS:
        return _BOUNDS[kind].format_map(context)
    if kind == "literal_error":
        return ", ".join(_choices(details))
    if kind == "int_from_float":
        return _KINDS["int"]
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind == "too_short":
        return f"at least {context['min_length']} item"
    name, _, reason = kind.partition("_")
    if reason in ("type", "parsing", "required") and name in _KINDS:
        return _KINDS[name]
    return details["msg"]


def _choices(details: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", details["ctx"]["expected"])


def _nearest_choice(details: ErrorDetails) -> str:
    if details["type"] != "literal_error" or not isinstance(details["input"], str):
        return ""
    return similar(details["input"], _choices(details))


def _unknown_key(place: Location, schema: type[BaseModel]) -> str:
    """What is allowed beside an unknown key, and the nearest spelling there or elsewhere in the schema."""
    key = str(place[-1])
    if place in _RENAMED:
        return f"; it is called `{_RENAMED[place]}` now"
    siblings = [name for model in _models_at(place[:-1], schema) for name in model.model_fields]
    elsewhere = [field for field in _fields(schema) if field.rpartition(".")[2] == key]
    # A near spelling here, then the same word elsewhere, then a faint resemblance here.
    hint = similar(key, siblings, 0.8)
    if not hint:
        hint = f"; did you mean `{elsewhere[0]}`?" if elsewhere else similar(key, siblings)
    return f", allowed: {', '.join(siblings)}{hint}"


def _models_at(place: Location, schema: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that the mapping at `place` may be."""
    types: list[Any] = [schema]
    for key in place:
        types = [inner for outer in types for inner in _step(outer, key)]
    return [kind for kind in types if _is_model(kind)]


def _step(kind: Any, key: str | int) -> Iterator[Any]:
    """Types of what stands under `key` in a value of type `kind`."""
    if _is_model(kind) and key in kind.model_fields:
        yield from _members(kind.model_fields[key].annotation)
    elif get_origin(kind) in (list, dict):
        yield from _members(get_args(kind)[-1])


def _members(annotation: Any) -> Iterator[Any]:
    """Members of a union, without `Annotated`."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every field of a schema as the path that `--set` takes, `0` standing for a list's items."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in _members(field.annotation):
            is_list = get_origin(kind) is list
            for member in _members(get_args(kind)[0] if is_list else kind):
                if _is_model(member):
                    yield from _fields(member, f"{prefix}{name}.{'0.' if is_list else ''}")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
