"""Language identification."""

from typing import TYPE_CHECKING

from pipeline import lazily

if TYPE_CHECKING:
    from pipeline.language.identify import LanguageIdentifier, find_model

__all__ = ["LanguageIdentifier", "find_model"]
__getattr__ = lazily(__name__, LanguageIdentifier="pipeline.language.identify", find_model="pipeline.language.identify")
