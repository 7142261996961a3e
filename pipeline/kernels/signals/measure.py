"""Quality signals of a text, all of them in a few passes over its code points.

A batch of texts becomes one array of code points. One scan finds parts between white space and lines (`parts`), each
different part is cut into tokens once (`words`), and `ngrams`, `lines` and `text` count; a column of the result is one
statistic that rules compare with a threshold (`pipeline.quality.presets`). Definitions follow
datatrove 0.9, which users compare with, to the denominator; `words` says where the word rule differs. Nothing
depends on threads, platform or hash seed. `definitions` lists unit, formula and source of each signal. The
first call in a fresh checkout compiles for some twenty seconds; numba keeps the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.kernels.signals import character_counts, line_counts, ngrams, stopwords, words
from pipeline.kernels.signals.chunks import CITED, Lines, scan

Array = np.ndarray[Any, Any]
Signals = dict[str, Array]

BATCH_CHARACTERS = 1 << 19  # code points per call of a kernel: what a core's cache holds
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_SENTENCE_ENDS = tuple(".?!…\"'”’)]")
_AFTER_SIGN = re.compile(r"\[(?<=[\s.?!…\"'”’)\]]\[)(?:\d*|edit|citation needed)]")  # begins with what is rare
_C4 = [name for name in line_counts.COLUMNS if name.startswith(("c4_", "curly", "lorem"))]
_C4_COUNTS = [name for name in _C4 if name != "c4_lines"]  # what adds up over lines


def signals(texts: list[str], *, language: str | Sequence[str] = "en") -> Signals:
    """{signal: float64 (len(texts),)}; finite for any text.

    language: ISO 639 code of all texts or of each; decides whose stop words count (none for a language without a
    list in `stopwords`).
    """
    languages = [language] * len(texts) if isinstance(language, str) else list(language)
    if len(languages) != len(texts):
        raise ValueError(f"got {len(languages)} languages for {len(texts)} texts")
    parts = [_measure(texts[low:high], languages[low:high]) for low, high in _batches(texts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def code_points(texts: list[str]) -> tuple[Array, Array]:
    """uint32 code points of all texts in a row, and int64 (len(texts),) where each ends."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return points, np.cumsum([len(item) for item in texts], dtype=np.int64)


def _batches(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about BATCH_CHARACTERS together; at least one, which may be empty."""
    low, size = 0, 0
    for high, item in enumerate(texts):
        if high > low and size + len(item) > BATCH_CHARACTERS:
            yield low, high
            low, size = high, 0
        size += len(item)
    yield low, len(texts)


def _measure(texts: list[str], languages: list[str]) -> Signals:
    points, ends = code_points(texts)
    parts, rows = scan(points, ends, np.array([language == "en" for language in languages], bool))
    tokens = words.cut(points, parts)
    stops = stopwords.language_bits(languages), *stopwords.table()
    found = {
        **_columns(character_counts.COLUMNS, character_counts.measure(points, ends)),
        **_columns(ngrams.COLUMNS, ngrams.measure(ends, parts, tokens, *stops)),
        **_columns(line_counts.COLUMNS, line_counts.measure(points, ends, parts, rows, tokens.sentences)),
    }
    _without_citations(texts, ends, rows, found)
    return _ratios(found)


def _columns(names: tuple[str, ...], values: Array) -> Signals:
    return {name: values[:, i] for i, name in enumerate(names)}


def _without_citations(texts: list[str], ends: Array, rows: Lines, found: Signals) -> None:
    """C4 deletes citation marks from its lines before it counts: count such lines again, as they are and without."""
    cited: dict[int, list[str]] = {}
    marked = np.flatnonzero(rows.marks & CITED)
    documents = np.searchsorted(rows.row_ends, marked, "right")
    starts = ends[documents] - np.array([len(character_counts) for character_counts in texts], np.int64)[documents]
    begins = rows.row_begins[marked] - starts
    stops = np.append(rows.row_begins, ends[-1:])[marked + 1] - starts  # beyond the text's end in its last row
    for document, begin, stop in zip(documents.tolist(), begins.tolist(), stops.tolist(), strict=True):
        if _is_cited(line := texts[document][begin:stop]):
            cited.setdefault(document, []).append(line)
    if cited:
        blocks = ["".join(line_counts) for line_counts in cited.values()]
        counts = _c4_counts([*blocks, *(_CITATION.sub("", block) for block in blocks)])
        for name, values in counts.items():
            found[name][list(cited)] += values[len(blocks) :] - values[: len(blocks)]


def _is_cited(line: str) -> bool:
    """Whether a citation mark follows the end of a sentence: elsewhere its deletion changes no count."""
    for match in _AFTER_SIGN.finditer(line):
        at = match.start()
        if line[max(at - 8, 0) : at].rstrip()[-1:] in _SENTENCE_ENDS:
            return True
    return False


def _c4_counts(texts: list[str]) -> Signals:
    points, ends = code_points(texts)
    parts, rows = scan(points, ends, np.ones(len(ends), bool))
    sentences = words.cut(points, parts).sentences
    found = _columns(line_counts.COLUMNS, line_counts.measure(points, ends, parts, rows, sentences))
    return {name: found[name] for name in _C4_COUNTS}


def _ratios(found: Signals) -> Signals:
    """Counts to the statistics that rules read."""
    characters, tokens, count = found["characters"], np.maximum(found["tokens"], 1), np.maximum(found["words"], 1)
    shares = {name: found[name] / np.maximum(characters, 1) for name in ngrams.COLUMNS[8:]}
    return {
        "characters": characters,
        "words": found["words"],
        "mean_word_length": found["word_characters"] / count,
        "hash_ratio": found["hashes"] / tokens,
        "ellipsis_ratio": found["ellipses"] / tokens,
        "bullet_lines": found["bullet_lines"],
        "ellipsis_lines": found["ellipsis_lines"],
        "alpha_words": found["letter_tokens"] / tokens,
        "alpha_only_words": np.minimum(found["letter_tokens"] / count, 1.0),
        "stop_words": found["stop_words"],
        **{name: found[name] for name in line_counts.COLUMNS[1:9]},
        **{name: shares[name] for name in shares if name != "copied_characters"},
        **{name: found[name] for name in _C4},
        "newlines_per_word": found["newlines"] / tokens,
        "stop_word_ratio": found["stop_word_tokens"] / count,
        "unique_words": found["unique_words"] / tokens,
        "word_entropy": found["word_entropy"],
        **{name: found[name] for name in ("digit_ratio", "punctuation_ratio", "upper_ratio")},
        "copied_characters": shares["copied_characters"],
    }
