"""YAML text to plain values, remembering the line on which each stands.

Scalars follow YAML 1.2: `no` is a word (and a language), `3e-3` a number, `1_000` a number; YAML 1.1, PyYAML's
own dialect, reads false, text, and surprises like octal and base-60 numbers. Only plain mappings, lists and
scalars are read: no tag can build another object. A key given twice is an error; PyYAML silently keeps the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from recipes.errors import RecipeError
from recipes.schema import Location

_TAG = "tag:yaml.org,2002:"
_SCALARS = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to say it


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


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


def parse_recipe(text: str, name: str) -> Document:
    """Parse a recipe file's text; `name` stands for the file in messages. Raises RecipeError."""
    origins: dict[Location, str] = {(): f"{name}:1"}
    data = _parse(text, name, origins)
    if data is None:
        raise RecipeError(f"{name}:1: the recipe is empty; it needs at least `name` and `sources`")
    if not isinstance(data, dict):
        raise RecipeError(f"{name}:1: got {type(data).__name__}, allowed: `key: value` lines")
    return Document(data, origins)


def parse_value(text: str, name: str) -> Any:
    """A YAML value given on the command line. Raises RecipeError."""
    return _parse(text, name, {})


def _parse(text: str, name: str, origins: dict[Location, str]) -> Any:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return _Reader(loader, name, origins).read(root, ()) if root is not None else None
    except yaml.reader.ReaderError as error:
        raise RecipeError(f"{name}: not text: character {error.character:#x} at {error.position}") from error
    except yaml.MarkedYAMLError as error:
        raise RecipeError(_describe(error, name)) from error
    finally:
        if loader:
            loader.dispose()


class _Reader:
    """Turns a tree of YAML nodes into values and notes each one's line."""

    def __init__(self, loader: _Loader, name: str, origins: dict[Location, str]) -> None:
        self.loader = loader
        self.name = name
        self.origins = origins
        self.open: list[yaml.Node] = []

    def read(self, node: yaml.Node, location: Location) -> Any:
        if node in self.open:
            raise yaml.MarkedYAMLError(problem="an alias within its own anchor", problem_mark=node.start_mark)
        self.origins.setdefault(location, self._where(node))
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, location)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.read(child, (*location, index)) for index, child in enumerate(node.value)]
            return self.loader.construct_object(node)
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
            place = (*location, key)
            if key in mapping:
                field = ".".join(map(str, place))
                raise RecipeError(f"{self._where(key_node)}: {field}: given twice (first at {self.origins[place]})")
            self.origins[place] = self._where(key_node)
            mapping[key] = self.read(value_node, place)
        return mapping

    def _where(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def _describe(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
    return f"{name}{line}: not valid YAML: {error.problem or error.context}{hint}"
