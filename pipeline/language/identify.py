"""fastText language identification, batch by batch.

The model runs in our own kernel (network.py, predict.py), several times as fast as fastText's and with the same labels.
Long texts are sampled besides: WINDOWS pieces of WINDOW characters at fixed offsets decide as well as the whole where
the model is sure of them; where it is not (score below SURE), the whole text decides. benchmarks/language.py measures
these claims.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pipeline.language.model import find_model, normalize_label
from pipeline.language.network import read_network
from pipeline.language.predict import empty_cache, predict

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
        self._network, self._labels = read_network(find_model(model))
        self._cache = empty_cache(self._network)

    def identify(self, texts: list[str]) -> list[tuple[str, float]]:
        """(ISO 639 code, score 0 to 1) for each text; ("und", 0.0) where there is nothing to judge."""
        return [(guess.language, guess.score) for guess in self.guess(texts)]

    def guess(self, texts: list[str]) -> list[Guess]:
        """As `identify`, with the script."""
        guesses = self._ask([sample(text) for text in texts])
        unsure = [i for i, text in enumerate(texts) if guesses[i].score < SURE and len(text) > WINDOW * WINDOWS]
        for i, guess in zip(unsure, self._ask([texts[i] for i in unsure]), strict=True):
            guesses[i] = guess
        return guesses

    def shares(self, text: str) -> dict[str, float]:
        """{language: share of the characters in paragraphs of at least PARAGRAPH characters}, largest first."""
        paragraphs = [part for part in text.split("\n") if len(part) >= PARAGRAPH]
        total = sum(map(len, paragraphs))
        votes: dict[str, float] = {}
        for paragraph, guess in zip(paragraphs, self.guess(paragraphs), strict=True):
            votes[guess.language] = votes.get(guess.language, 0.0) + len(paragraph) / total
        return dict(sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])))

    def _ask(self, texts: list[str]) -> list[Guess]:
        labels, scores = predict(self._network, self._cache, texts)
        return [
            Guess(*normalize_label(self._labels[label]), score) if label >= 0 else Guess("und", None, 0.0)
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]


def sample(text: str) -> str:
    """At most WINDOWS x WINDOW characters, taken at fixed offsets of the text."""
    if len(text) <= WINDOW * WINDOWS:
        return text
    gap = (len(text) - WINDOW) // (WINDOWS - 1)
    return " ".join(text[i * gap : i * gap + WINDOW] for i in range(WINDOWS))
