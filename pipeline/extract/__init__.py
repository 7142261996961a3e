"""HTML to main text."""

from typing import TYPE_CHECKING

from pipeline import lazily

if TYPE_CHECKING:
    from pipeline.extract.text import decode, extract_text

__all__ = ["decode", "extract_text"]
__getattr__ = lazily(__name__, decode="pipeline.extract.text", extract_text="pipeline.extract.text")
