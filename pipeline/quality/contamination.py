"""Overlap with evaluation data: word n-grams that a text shares with a set of evaluation texts.

Words are folded as for MinHash (case, accents and punctuation do not count) and compared n at a time by 64-bit hashes:
one pass over a text, linear. Evaluation texts of fewer than n words cannot be found; they are counted (`untested`).
13-grams: Brown et al. 2020, appendix C.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import PipelineError
from pipeline.documents import open_text
from pipeline.kernels.overlap import word_ngrams


class Contamination:
    """The n-grams of evaluation texts.

    >>> Contamination(["to be or not to be that is the question"], 5).find(["It's to be, or not: to be!"])
    [(2, 'to be, or not: to')]
    """

    def __init__(self, evaluations: Sequence[str], ngram: int = 13) -> None:
        self.ngram = ngram
        hashes = [word_ngrams(text, ngram)[0] for text in evaluations]
        self.untested = sum(len(part) == 0 for part in hashes)
        self._known = np.unique(np.concatenate([*hashes, np.empty(0, np.uint64)]))

    def find(self, texts: Sequence[str]) -> list[tuple[int, str]]:
        """For each text the number of its n-grams that are known, and the first of them as the text spells it."""
        return [self._find(text) for text in texts]

    def _find(self, text: str) -> tuple[int, str]:
        hashes, spans = word_ngrams(text, self.ngram)
        if not len(hashes) or not len(self._known):
            return 0, ""
        slots = np.searchsorted(self._known, hashes)
        hits = np.flatnonzero(self._known[np.minimum(slots, len(self._known) - 1)] == hashes)
        return len(hits), text[spans[hits[0], 0] : spans[hits[0], 1]] if len(hits) else ""


def read_evaluations(paths: Sequence[Path]) -> list[str]:
    """Texts of evaluation files: each text field of each jsonl row, each line of a txt file. Raises PipelineError."""
    return [text for path in paths for text in _read(path) if text.strip()]


def _read(path: Path) -> Iterator[str]:
    jsonl = path.name.removesuffix(".gz").endswith((".jsonl", ".json"))
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - the error names it
                if not jsonl:
                    yield line
                elif line.strip():
                    yield from _strings(json.loads(line))
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        kind = "JSON lines" if jsonl else "text"
        raise PipelineError(f"{path}: line {number}: not readable as {kind}: {error}") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
