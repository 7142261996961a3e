"""Stage `language`: identify each document's language, keep the wanted ones above their threshold.

Adds `language` and `language_score`. Drops by `language_score` (below the language's threshold) and
`language_unwanted` (not in `keep`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import LanguageConfig
from pipeline.language.identify import LanguageIdentifier, find_model
from pipeline.stage import Build
from pipeline.step import CorpusStep, DocumentStep, Verdicts

ADDED = (pa.field("language", pa.string()), pa.field("language_score", pa.float64()))


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
        found = self._identifier.identify(table["text"].to_pylist())
        languages, scores = [language for language, _ in found], [score for _, score in found]
        table = table.append_column(ADDED[0], pa.array(languages, pa.string()))
        table = table.append_column(ADDED[1], pa.array(scores, pa.float64()))
        reasons = [self._reason(language, score) for language, score in found]
        rules, values, thresholds = ([reason[i] for reason in reasons] for i in range(3))
        return Verdicts(table, rules, values, thresholds, languages)  # type: ignore[arg-type]

    def _reason(self, language: str, score: float) -> tuple[str | None, float | None, float | None]:
        threshold = self.settings.thresholds.get(language, self.settings.threshold)
        if score < threshold:
            return "language_score", score, threshold
        if self.settings.keep is not None and language not in self.settings.keep:
            return "language_unwanted", score, threshold
        return None, None, None
