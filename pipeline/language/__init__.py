"""Language identification."""

from pipeline.language.identify import LanguageIdentifier, find_model

__all__ = ["LanguageIdentifier", "find_model"]
