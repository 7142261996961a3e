"""Read a recipe file, apply `--set` overrides, validate, and report everything that is wrong with it at once.

YAML is read with the line of every value, by the rules of YAML 1.2: `no` is a word (and a language), `3e-3` and
`1_000` are numbers; PyYAML's own dialect, YAML 1.1, reads false, text, and surprises like base-60 numbers. Only
mappings, lists and scalars are read, so no tag can build another object. A key given twice is an error; PyYAML alone
keeps the last without a message.
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
from common.files import taken_literally
from recipes.explain import Document, explain, show
from recipes.mirror import is_remote, local_copy
from recipes.schema import Location, Recipe, Training, local_paths
from trainer.config import TrainConfig

Schema = TypeVar("Schema", Recipe, Training)


@dataclass(frozen=True)
class Loaded(Generic[Schema]):
    """A valid recipe. base: the folder that its relative paths start from; document: the text it was read from."""

    recipe: Schema
    base: Path
    document: Document

    @property
    def run(self) -> Path:
        """The run folder, or the local copy of one in object storage."""
        return local_copy(self.address) if is_remote(self.address) else Path(self.address)

    @property
    def address(self) -> str:
        """The run folder as a path or an fsspec URL."""
        return f"{self.recipe.runs.rstrip('/')}/{self.recipe.name}"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Loaded[Recipe]:
    """Load a recipe file, with overrides `a.b=value`. Raises RecipeError with everything that is wrong."""
    return _validate(Recipe, _read(path, overrides), path.parent)


def load_training(path: Path | None, overrides: Sequence[str] = ()) -> Loaded[Training]:
    """Load the training part of a recipe file, which may have no corpus; without a file, the defaults."""
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
    """Raise RecipeError if a local file or glob of the recipe matches nothing; the message names each."""
    missing = [
        f"{loaded.document.origin(location)}: {'.'.join(map(str, location))}: {_missing(loaded.base / path)}"
        for location, path, is_glob in local_paths(loaded.recipe)
        if not (
            _matches(loaded.base / path) if is_glob else (loaded.base / re.sub(r"\.py:\w+$", ".py", path)).is_file()
        )
    ]
    if missing:
        raise RecipeError(missing)


def training_config(loaded: Loaded[Recipe] | Loaded[Training]) -> TrainConfig:
    """The `train` section, with `initial` resolved against the recipe's folder. Raises RecipeError if absent."""
    config = loaded.recipe.train
    if config is None:
        raise RecipeError("train: missing; this recipe describes no training run")
    if config.initial is None:
        return config
    return config.model_copy(update={"initial": str(loaded.base / config.initial)})


def resolved_yaml(loaded: Loaded[Recipe], folder: Path) -> str:
    """The recipe with every default filled in, its relative paths rewritten to start from `folder`."""
    data = loaded.recipe.model_dump(mode="json")
    if (data.get("train") or {}).get("initial"):
        del data["train"]["preset"]  # the given model has its own shape, and both together are refused
    for location, path, _ in local_paths(loaded.recipe):
        parent: Any = data
        for key in location[:-1]:
            parent = parent[key]
        parent[location[-1]] = path if Path(path).is_absolute() else os.path.relpath(loaded.base / path, folder)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _read(path: Path, overrides: Sequence[str]) -> Document:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe{_others(path)}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: this is a folder; give a recipe file{_others(path / 'x.yaml')}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); is this a recipe?") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    return _override(parse_recipe(text, str(path)), overrides)


def _others(path: Path) -> str:
    """Recipes in the folder of a path that does not exist: the nearest name, else all."""
    names = sorted(str(file) for file in path.parent.glob("*.yaml"))
    if nearest := get_close_matches(str(path), names, n=1, cutoff=0.8):
        return f"; did you mean `{nearest[0]}`?"
    return f"; recipes there: {', '.join(names[:8])}" if names else ""


def _override(document: Document, overrides: Sequence[str]) -> Document:
    """Apply `a.b.0.c=value` to a copy of the document. Raises RecipeError."""
    data, origins = copy.deepcopy(document.data), dict(document.origins)
    for override in overrides:
        name = f"--set {override}"
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecipeError(f"{name}: expected FIELD=VALUE, e.g. `train.steps=500` or `sources.0.limit=10`")
        location = _assign(data, keys, _parse(text, name, {}), name)
        origins = {old: origin for old, origin in origins.items() if old[: len(location)] != location}
        origins[location] = name
    return Document(data, origins)


def _assign(data: dict[str, Any], keys: list[str], value: Any, name: str) -> Location:
    """Set the value at `keys`, creating mappings above it. Returns the keys with list indices as integers."""
    parent: Any = data
    location: list[str | int] = []
    for depth, key in enumerate(keys):
        if type(parent) not in (dict, list):
            raise RecipeError(f"{name}: `{'.'.join(keys[:depth])}` is {show(parent)}, which has no field `{key}`")
        location.append(_index(parent, key, keys[:depth], name) if isinstance(parent, list) else key)
        if depth == len(keys) - 1:
            parent[location[-1]] = value
            break
        if isinstance(parent, dict) and parent.get(key) is None:
            parent[key] = {}
        parent = parent[location[-1]]
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
    return next(iglob(taken_literally(str(pattern)), recursive=True), None) is not None  # noqa: PTH207 - Path.glob refuses "/..."


def _missing(path: Path) -> str:
    """Name what is missing: the outermost folder above `path`, or the file."""
    path = Path(os.path.normpath(path))
    for folder in reversed(path.parents):
        if not has_magic(str(folder)) and not folder.is_dir():
            return f"got {str(path)!r}, but there is no folder {str(folder)!r}"
    return f"got {str(path)!r}, {'which matches no file' if has_magic(str(path)) else 'which does not exist'}"


_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """Reads one YAML 1.2 text; enters the line of every value into `origins`, with `file` as the file's name."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own attribute

    def __init__(self, text: str, file: str, origins: dict[Location, str]) -> None:
        super().__init__(text)
        self.file, self.origins = file, origins
        self.open: list[yaml.Node] = []

    def read(self, node: yaml.Node, location: Location) -> Any:
        if node in self.open:
            raise yaml.MarkedYAMLError(problem="an alias within its own anchor", problem_mark=node.start_mark)
        self.origins.setdefault(location, self._line(node))
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, location)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.read(child, (*location, index)) for index, child in enumerate(node.value)]
            return self.construct_object(node)
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
            key, line = key_node.value, self._line(key_node)
            below = (*location, key)
            if key in mapping:
                field = ".".join(map(str, below))
                raise RecipeError(f"{line}: {field}: given twice (first at {self.origins[below]})")
            self.origins[below] = line
            mapping[key] = self.read(value_node, below)
        return mapping

    def _line(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"


for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


def parse_recipe(text: str, name: str) -> Document:
    """Parse a recipe file's text; messages call the file `name`. Raises RecipeError."""
    origins: dict[Location, str] = {(): f"{name}:1"}
    data = _parse(text, name, origins)
    if data is None:
        raise RecipeError(f"{name}:1: the recipe is empty; it needs at least `name` and `sources`")
    if not isinstance(data, dict):
        raise RecipeError(f"{name}:1: got {type(data).__name__}, allowed: `key: value` lines")
    return Document(data, origins)


def _parse(text: str, name: str, origins: dict[Location, str]) -> Any:
    """The value of a YAML text; enters the line of every value into `origins`. Raises RecipeError."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text, name, origins)
        root = loader.get_single_node()
        return loader.read(root, ()) if root is not None else None
    except yaml.reader.ReaderError as error:
        raise RecipeError(f"{name}: not text: character {error.character:#x} at {error.position}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise RecipeError(f"{name}{line}: not valid YAML: {error.problem or error.context}{hint}") from error
    finally:
        if loader:
            loader.dispose()
