"""Stage `language`: identify each document's language, keep the wanted ones above their threshold.

Adds `language`, `language_script` (where the model names it) and `language_score`. Drops by `language_score` (below
the language's threshold), `language_unwanted` (not in `keep`) and, if `mixed` is set, `language_mixed` (too small a
share of the paragraphs, by length, in the main language).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import LanguageConfig
from pipeline.language.identify import Guess, LanguageIdentifier, find_model
from pipeline.stage import Build
from pipeline.task import CorpusStep, DocumentStep, Verdicts

ADDED = (
    pa.field("language", pa.string()),
    pa.field("language_script", pa.string()),
    pa.field("language_score", pa.float64()),
)
Reason = tuple[str | None, float | None, float | None]


def passes(build: Build) -> Iterator[CorpusStep]:
    """One pass, a task for each input file."""
    yield LanguageStep(build)


def external_files(settings: LanguageConfig, base: Path) -> list[Path]:
    """The model."""
    return [find_model(base / settings.model if settings.model else None)]


def manifest(build: Build) -> dict[str, Any]:
    """Nothing beyond the runner's fields."""
    return {}


class LanguageStep(DocumentStep):
    """Identifies and filters."""

    def __init__(self, build: Build) -> None:
        super().__init__("language", build.workdir, build.inputs, ADDED)
        self.settings: LanguageConfig = build.settings
        self.model = str(external_files(build.settings, build.base)[0])
        self._identifier: LanguageIdentifier | None = None

    def judge(self, table: pa.Table, rank: int) -> Verdicts:
        # Loaded by the task, not the constructor: a fastText model does not travel between processes.
        self._identifier = self._identifier or LanguageIdentifier(self.model)
        texts = table["text"].to_pylist()
        guesses = self._identifier.guess(texts)
        languages = [guess.language for guess in guesses]
        columns = (languages, [guess.script for guess in guesses], [guess.score for guess in guesses])
        for added, column in zip(ADDED, columns, strict=True):
            table = table.append_column(added, pa.array(column, added.type))
        reasons = [self._reason(guess) for guess in guesses]
        if self.settings.mixed is not None:
            reasons = [
                reason if reason[0] else self._mixed(text, self._identifier, self.settings.mixed)
                for text, reason in zip(texts, reasons, strict=True)
            ]
        rules, values, thresholds = ([reason[i] for reason in reasons] for i in range(3))
        return Verdicts(table, rules, values, thresholds, languages)  # type: ignore[arg-type]

    def _reason(self, guess: Guess) -> Reason:
        threshold = self.settings.thresholds.get(guess.language, self.settings.threshold)
        if guess.score < threshold:
            return "language_score", guess.score, threshold
        if self.settings.keep is not None and guess.language not in self.settings.keep:
            return "language_unwanted", guess.score, threshold
        return None, None, None

    @staticmethod
    def _mixed(text: str, identifier: LanguageIdentifier, least: float) -> Reason:
        main = next(iter(identifier.shares(text).values()), 1.0)
        return ("language_mixed", main, least) if main < least else (None, None, None)
