"""Text to packed sequences in MDS shards."""

from pipeline.tokenize.pack import pack

__all__ = ["pack"]
