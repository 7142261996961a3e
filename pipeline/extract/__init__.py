"""HTML to main text."""

from pipeline.extract.text import decode, extract_text

__all__ = ["decode", "extract_text"]
