"""Text to packed sequences of token ids in MDS shards."""

from typing import TYPE_CHECKING

from pipeline import lazily

if TYPE_CHECKING:
    from pipeline.tokenize.tokenizer import Encoder

__all__ = ["Encoder"]
__getattr__ = lazily(__name__, Encoder="pipeline.tokenize.tokenizer")
