"""fastText language identification, batch by batch.

Long texts are sampled: WINDOWS pieces of WINDOW characters at fixed offsets decide as well as the whole where the
model is sure of them; where it is not (score below SURE), the whole text decides. benchmarks/language.py measures
both claims.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import fasttext

from pipeline.language.model import find_model, normalize_label

WINDOW = 250
WINDOWS = 4
SURE = 0.8
PARAGRAPH = 80  # shortest paragraph, in characters, that has a vote


class Guess(NamedTuple):
    """language: ISO 639-1 or -3, "und" where there is nothing to judge; script: where the model names it."""

    language: str
    script: str | None
    score: float


class LanguageIdentifier:
    """Names the language of texts.

    >>> LanguageIdentifier().identify(["Der Hund schläft in der warmen Sonne."])  # doctest: +SKIP
    [('de', 0.99...)]
    """

    def __init__(self, model: str | Path | None = None) -> None:
        # fasttext-wheel's own predict breaks on numpy 2; the binding below it does not.
        self._predict = fasttext.FastText._FastText(str(find_model(model))).f.predict

    def identify(self, texts: list[str]) -> list[tuple[str, float]]:
        """(ISO 639 code, score 0 to 1) for each text; ("und", 0.0) where there is nothing to judge."""
        return [(guess.language, guess.score) for guess in self.guess(texts)]

    def guess(self, texts: list[str]) -> list[Guess]:
        """As `identify`, with the script."""
        return [self._guess(text) for text in texts]

    def shares(self, text: str) -> dict[str, float]:
        """{language: share of the characters in paragraphs of at least PARAGRAPH characters}, largest first."""
        paragraphs = [part for part in text.split("\n") if len(part) >= PARAGRAPH]
        total = sum(map(len, paragraphs))
        votes: dict[str, float] = {}
        for paragraph, guess in zip(paragraphs, self.guess(paragraphs), strict=True):
            votes[guess.language] = votes.get(guess.language, 0.0) + len(paragraph) / total
        return dict(sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])))

    def _guess(self, text: str) -> Guess:
        guess = self._ask(sample(text))
        return guess if guess.score >= SURE or len(text) <= WINDOW * WINDOWS else self._ask(text)

    def _ask(self, text: str) -> Guess:
        found = self._predict(" ".join(text.split()) + "\n", 1, 0.0, "strict")
        if not found:
            return Guess("und", None, 0.0)
        score, label = found[0]
        return Guess(*normalize_label(label), min(float(score), 1.0))


def sample(text: str) -> str:
    """At most WINDOWS x WINDOW characters, taken at fixed offsets of the text."""
    if len(text) <= WINDOW * WINDOWS:
        return text
    gap = (len(text) - WINDOW) // (WINDOWS - 1)
    return " ".join(text[i * gap : i * gap + WINDOW] for i in range(WINDOWS))
