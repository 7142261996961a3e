"""Language identification."""

from pipeline.language.identify import LanguageIdentifier
from pipeline.language.model import find_model

__all__ = ["LanguageIdentifier", "find_model"]
