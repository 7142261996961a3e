"""Build a corpus: raw archives to tokenized MDS shards, one stage after another.

>>> from pipeline import CorpusConfig, build_corpus  # doctest: +SKIP
>>> build_corpus(CorpusConfig.model_validate(recipe), run=Path("runs/mine"), base=Path())  # doctest: +SKIP
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.build import build_corpus
    from pipeline.config import CorpusConfig

__all__ = ["CorpusConfig", "build_corpus"]


def lazily(package: str, **modules: str) -> Callable[[str], Any]:
    """`__getattr__` of a package (PEP 562) that imports each public name from its module when it is first asked for."""

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get


__getattr__ = lazily(__name__, CorpusConfig="pipeline.config", build_corpus="pipeline.build")
