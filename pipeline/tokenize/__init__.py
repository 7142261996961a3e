"""Text to packed sequences of token ids in MDS shards."""

from pipeline.tokenize.tokenizer import Encoder

__all__ = ["Encoder"]
