"""HTML to main text."""

from typing import TYPE_CHECKING

from pipeline import lazily

if TYPE_CHECKING:
    from pipeline.extract.decoding import decode
    from pipeline.extract.text import extract_text

__all__ = ["decode", "extract_text"]
__getattr__ = lazily(__name__, decode="pipeline.extract.decoding", extract_text="pipeline.extract.text")
