"""Stage `language`: identify each document's language, keep the wanted ones above their threshold.

Adds `language`, `language_script` (where the model names it) and `language_score`. Drops by `language_score` (below
the language's threshold), `language_unwanted` (not in `keep`) and, if `mixed` is set, `language_mixed` (too small a
share of the paragraphs, by length, in the main language).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig, LanguageConfig
from pipeline.documents import append_columns
from pipeline.language.identify import Guess, LanguageIdentifier, find_model
from pipeline.reuse import known
from pipeline.stage import Build, Stage
from pipeline.task import DocumentPass, Judge, Verdict, Verdicts

ADDED = (
    pa.field("language", pa.string()),
    pa.field("language_script", pa.string()),
    pa.field("language_score", pa.float64()),
)


def files(settings: LanguageConfig, base: Path) -> list[Path]:
    return [find_model(base / settings.model if settings.model else None)]


def decided_by(config: CorpusConfig) -> dict[str, Any]:
    """Not where the model lies: its content is hashed."""
    return {"model": None}


class LanguagePass(DocumentPass):
    def __init__(self, build: Build[LanguageConfig]) -> None:
        super().__init__("language", build.workdir, build.inputs, ADDED, build.texts)
        self.settings = build.settings
        self.model = str(files(build.settings, build.base)[0])
        self.earlier = build.earlier

    def open(self, rank: int) -> LanguageJudge:
        return LanguageJudge(self.settings, self.model, known(self.earlier, rank, [field.name for field in ADDED]))


@lru_cache(maxsize=1)
def _identifier(model: str) -> LanguageIdentifier:
    """The model, loaded once in a process: it does not travel between processes."""
    return LanguageIdentifier(model)


class LanguageJudge(Judge):
    """Guesses languages and compares them with the recipe's thresholds."""

    def __init__(self, settings: LanguageConfig, model: str, guessed: dict[str, tuple[Any, ...]]) -> None:
        """guessed: columns of documents whose language is known already, by id."""
        self.settings, self.model, self.guessed = settings, model, guessed

    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        texts, ids = table["text"].to_pylist(), table["id"].to_pylist()
        new = [number for number, each in enumerate(ids) if each not in self.guessed]
        fresh = iter(_identifier(self.model).guess([texts[number] for number in new]) if new else [])
        guesses = [Guess(*self.guessed[each]) if each in self.guessed else next(fresh) for each in ids]
        columns = [[getattr(guess, name) for guess in guesses] for name in ("language", "script", "score")]
        verdicts = [self._verdict(text, guess) for text, guess in zip(texts, guesses, strict=True)]
        return append_columns(table, ADDED, columns), verdicts

    def _verdict(self, text: str, guess: Guess) -> Verdict | None:
        settings, language = self.settings, guess.language
        threshold = settings.thresholds.get(language, settings.threshold)
        if guess.score < threshold:
            return Verdict("language_score", guess.score, threshold, language)
        if settings.keep is not None and language not in settings.keep:
            return Verdict("language_unwanted", guess.score, threshold, language)
        if settings.mixed is not None:
            main = next(iter(_identifier(self.model).shares(text).values()), 1.0)
            if main < settings.mixed:
                return Verdict("language_mixed", main, settings.mixed, language)
        return None


STAGE = Stage(
    "language", __name__, ("numba", "pyarrow"), lambda build: iter([LanguagePass(build)]), files,
    decided_by=decided_by, single=LanguagePass,
)  # fmt: skip
