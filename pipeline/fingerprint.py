"""One hash of all that decides a stage's output: its settings, code, libraries and everything upstream.

A stage is skipped only if its manifest has this fingerprint. Code enters as the content of the module that defines the
stage and of every module of `pipeline` and `common` that it imports, directly or not, by its import statements (so that
editing the language stage does not rebuild extraction). `pipeline.config` is left out: the stage's own settings are
hashed by value.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xxhash

from common.files import dump_json

_ROOT = Path(__file__).parent.parent
_BY_VALUE = {"pipeline.config"}


def fingerprint(parts: dict[str, Any]) -> str:
    """xxh3-128 of the canonical JSON of `parts`, as hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(dump_json(parts).encode())


def code_version(module: str) -> str:
    """Hash of `module`'s source and of every `pipeline` module in its import closure."""
    sources = {name: _source(name).read_text(encoding="utf-8") for name in sorted(_closure(module))}
    return fingerprint(sources)


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of the distributions whose behaviour decides a stage's output."""
    return {name: version(name) for name in names}


@cache
def _closure(module: str) -> frozenset[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in _BY_VALUE:
            seen.add(name)
            waiting.extend(_imports(name))
    return frozenset(seen)


def _imports(module: str) -> Iterator[str]:
    """Modules of `common` and `pipeline` that `module` imports anywhere, lazy imports included."""
    for node in ast.walk(ast.parse(_source(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith(("common.", "pipeline.")) and _exists(name))


def _exists(module: str) -> bool:
    return _source(module).is_file()


def _source(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
