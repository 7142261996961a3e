"""One hash of all that decides a stage's output: its settings, code, libraries and everything upstream.

A stage is skipped only if its manifest has this fingerprint. Code enters as the content of the module that defines the
stage and of every module of `pipeline` and `common` that it imports, directly or not, by its import statements (so that
editing the language stage does not rebuild extraction). `pipeline.config` is left out: the stage's own settings are
hashed by value.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grimp
import xxhash

from common.files import dump_json

_ROOT = Path(__file__).parent.parent


def fingerprint(parts: dict[str, Any]) -> str:
    """xxh3-128 of the canonical JSON of `parts`, as hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(dump_json(parts).encode())


def code_version(module: str) -> str:
    """Hash of the source of `module` and of all that it imports from `pipeline` and `common`."""
    modules = sorted({module} | _imports().find_upstream_modules(module))
    return fingerprint({name: _source(name).read_text(encoding="utf-8") for name in modules})


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of distributions."""
    return {name: version(name) for name in names}


@cache
def _imports() -> grimp.ImportGraph:
    graph = grimp.build_graph("pipeline", "common", cache_dir=None)
    graph.remove_module("pipeline.config")
    return graph


def _source(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
