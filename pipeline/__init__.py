"""Build a corpus: raw archives to tokenized MDS shards, one stage after another.

>>> from pipeline import CorpusConfig, build_corpus  # doctest: +SKIP
>>> build_corpus(CorpusConfig.model_validate(recipe), run=Path("runs/mine"), base=Path())  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.build import build_corpus
    from pipeline.config import CorpusConfig

__all__ = ["CorpusConfig", "build_corpus"]


def __getattr__(name: str) -> Any:
    """Import on first use: `import pipeline.config` must load no heavy library."""
    if name == "build_corpus":
        from pipeline.build import build_corpus

        return build_corpus
    if name == "CorpusConfig":
        from pipeline.config import CorpusConfig

        return CorpusConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
