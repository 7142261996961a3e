"""Build a corpus: raw archives to tokenized MDS shards, one datatrove stage after another."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazily(package: str, **modules: str) -> Callable[[str], Any]:
    """`__getattr__` of a package (PEP 562) that imports each public name from its module when it is first asked for."""

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get
