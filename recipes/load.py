"""Read a recipe file, apply `--set` overrides, validate, and say everything that is wrong with it at once.

YAML text to plain values, remembering the line on which each stands.

Scalars follow YAML 1.2: `no` is a word (and a language), `3e-3` a number, `1_000` a number; YAML 1.1, PyYAML's
own dialect, reads false, text, and surprises like octal and base-60 numbers. Only plain mappings, lists and
scalars are read: no tag can build another object. A key given twice is an error; PyYAML silently keeps the last.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from glob import has_magic, iglob
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import ValidationError

from common.errors import RecipeError
from recipes.explain import Document, explain, show
from recipes.mirror import is_remote, local_copy
from recipes.schema import Location, Recipe, Training, local_paths
from trainer.config import TrainConfig

Schema = TypeVar("Schema", Recipe, Training)


@dataclass(frozen=True)
class Loaded(Generic[Schema]):
    """A valid recipe. base: the folder against which its relative paths are meant; document: what was written."""

    recipe: Schema
    base: Path
    document: Document

    @property
    def run(self) -> Path:
        """The run folder, or the local copy of one in object storage."""
        return local_copy(self.address) if is_remote(self.address) else Path(self.address)

    @property
    def address(self) -> str:
        """Where the run folder lies: a path or an fsspec URL."""
        return f"{self.recipe.runs.rstrip('/')}/{self.recipe.name}"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Loaded[Recipe]:
    """A recipe file with overrides `a.b=value` applied. Raises RecipeError with all that is wrong."""
    return _validate(Recipe, _read(path, overrides), path.parent)


def load_training(path: Path | None, overrides: Sequence[str] = ()) -> Loaded[Training]:
    """The training part of a recipe file, which needs no corpus then; without a file, the defaults."""
    if path is None:
        return _validate(Training, _override(Document({}, {}), overrides), Path())
    document = _read(path, overrides)
    if "sources" in document.data:
        recipe = _validate(Recipe, document, path.parent).recipe
        if recipe.train is None:
            raise RecipeError(f"{path}:1: train: missing; this recipe describes no training run")
        return Loaded(Training(name=recipe.name, runs=recipe.runs, train=recipe.train), path.parent, document)
    return _validate(Training, document, path.parent)


def check_paths(loaded: Loaded[Recipe]) -> None:
    """Raise RecipeError that names every local file or glob of the recipe that is not there."""
    missing = [
        f"{loaded.document.origin(location)}: {'.'.join(map(str, location))}: {_nothing_at(loaded.base / path)}"
        for location, path, is_glob in local_paths(loaded.recipe)
        if not (
            _matches(loaded.base / path) if is_glob else (loaded.base / re.sub(r"\.py:\w+$", ".py", path)).is_file()
        )
    ]
    if missing:
        raise RecipeError(missing)


def training_config(loaded: Loaded[Recipe] | Loaded[Training]) -> TrainConfig:
    """The `train` section, its path meant against the recipe's folder. Raises RecipeError where there is none."""
    config = loaded.recipe.train
    if config is None:
        raise RecipeError("train: missing; this recipe describes no training run")
    if config.initial is None:
        return config
    return config.model_copy(update={"initial": str(loaded.base / config.initial)})


def resolved_yaml(loaded: Loaded[Recipe], folder: Path) -> str:
    """The recipe with every default filled in, to be kept in `folder`; its paths are rewritten to hold there."""
    data = loaded.recipe.model_dump(mode="json")
    for location, path, _ in local_paths(loaded.recipe):
        holder: Any = data
        for key in location[:-1]:
            holder = holder[key]
        holder[location[-1]] = path if Path(path).is_absolute() else os.path.relpath(loaded.base / path, folder)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _read(path: Path, overrides: Sequence[str]) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe{_neighbours(path)}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: this is a folder; give a recipe file{_neighbours(path / 'x.yaml')}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); is this a recipe?") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    return _override(parse_recipe(text, str(path)), overrides)


def _neighbours(path: Path) -> str:
    """Recipes beside a path that does not exist, the nearest name first."""
    names = sorted(str(file) for file in path.parent.glob("*.yaml"))
    if nearest := get_close_matches(str(path), names, n=1, cutoff=0.8):
        return f"; did you mean `{nearest[0]}`?"
    return f"; there are: {', '.join(names[:8])}" if names else ""


def _override(document: Document, overrides: Sequence[str]) -> Document:
    """Apply `a.b.0.c=value` to a copy of the document. Raises RecipeError."""
    data, origins = copy.deepcopy(document.data), dict(document.origins)
    for override in overrides:
        name = f"--set {override}"
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecipeError(f"{name}: got no `FIELD=VALUE`, allowed: e.g. `train.steps=500`, `sources.0.limit=10`")
        location = _assign(data, keys, parse_value(text, name), name)
        origins = {place: origin for place, origin in origins.items() if place[: len(location)] != location}
        origins[location] = name
    return Document(data, origins)


def _assign(data: dict[str, Any], keys: list[str], value: Any, name: str) -> Location:
    """Set the value at `keys`, making mappings on the way. Returns the keys with list indices as integers."""
    holder: Any = data
    location: list[str | int] = []
    for depth, key in enumerate(keys):
        if type(holder) not in (dict, list):
            raise RecipeError(f"{name}: `{'.'.join(keys[:depth])}` is {show(holder)}, which has no field `{key}`")
        location.append(_index(holder, key, keys[:depth], name) if isinstance(holder, list) else key)
        if depth == len(keys) - 1:
            holder[location[-1]] = value
            break
        if isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
        holder = holder[location[-1]]
    return tuple(location)


def _index(items: list[Any], key: str, above: list[str], name: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        field = ".".join(above)
        allowed = f"0 to {len(items) - 1}" if items else "nothing (it is empty)"
        raise RecipeError(f"{name}: got index `{key}` into the list `{field}`, allowed: {allowed}")
    return int(key)


def _validate(schema: type[Schema], document: Document, base: Path) -> Loaded[Schema]:
    try:
        return Loaded(schema.model_validate(document.data), base, document)
    except ValidationError as error:
        raise RecipeError(explain(error, document, schema)) from error


def _matches(pattern: Path) -> bool:
    return next(iglob(str(pattern), recursive=True), None) is not None  # noqa: PTH207 - Path.glob refuses "/..."


def _nothing_at(path: Path) -> str:
    """What is missing: the first folder on the way, or the file."""
    path = Path(os.path.normpath(path))
    for folder in reversed(path.parents):
        if not has_magic(str(folder)) and not folder.is_dir():
            return f"got {str(path)!r}, but there is no folder {str(folder)!r}"
    return f"got {str(path)!r}, {'which matches no file' if has_magic(str(path)) else 'which does not exist'}"


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
