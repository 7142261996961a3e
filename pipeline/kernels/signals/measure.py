"""Quality signals of a text, all of them in a few passes over its code points.

A batch of texts becomes one array of code points. One scan finds lines and the parts between white space (`chunks`),
each different part is cut into tokens once (`words`), and `ngrams` and `line_counts` count; a column of the result is
one statistic that rules compare with a threshold (`pipeline.quality.presets`). Definitions follow datatrove 0.9, which
users compare with, to the denominator; `words` says where the word rule differs. Nothing depends on threads, platform
or hash seed. The first call in a fresh checkout compiles for some twenty seconds; numba keeps the result.

DEFINITIONS gives unit, formula and source of each signal. All are finite; shares lie between 0 and 1, counts and means
are at least 0. A *token* and a *word* are those of `words`; a *line* is that of each source's reference
(`line_counts`). Sources: G Gopher (Rae et al. 2021, appendix A1.1 and table A1), C4 Raffel et al. 2020 section 2.2, FW
FineWeb (Penedo et al. 2024, section 3.6), each as datatrove 0.9 computes it; P this project.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import Array
from pipeline.kernels.hashing import code_points
from pipeline.kernels.signals import line_counts, ngrams, words
from pipeline.kernels.signals.chunks import CITED, Lines, scan
from pipeline.kernels.signals.lexicon import stop_bits, stop_table

Signals = dict[str, Array]

BATCH_CHARACTERS = 1 << 19  # code points per call of a kernel: what a core's cache holds
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_SENTENCE_ENDS = tuple(".?!…\"'”’)]")
_AFTER_SIGN = re.compile(r"\[(?<=[\s.?!…\"'”’)\]]\[)(?:\d*|edit|citation needed)]")  # begins with what is rare
# What adds up over lines.
_C4_COUNTS = [n for n in line_counts.LINES if n.startswith(("c4_", "curly", "lorem")) and n != "c4_lines"]


class Definition(NamedTuple):
    """unit: of the value; formula: how it is computed; source: G, C4, FW or P."""

    unit: str
    formula: str
    source: str


_SHARE_OF_TEXT = "share of characters"
DEFINITIONS: dict[str, Definition] = {
    "characters": Definition("characters", "code points of the text", "P"),
    "words": Definition("words", "tokens with a character that is neither punctuation nor a symbol", "G"),
    "mean_word_length": Definition("characters", "characters of words / words", "G"),
    "hash_ratio": Definition("per token", "`#` / tokens (may exceed 1)", "G"),
    "ellipsis_ratio": Definition("per token", "(`...` + `…`) / tokens (may exceed 1)", "G"),
    "bullet_lines": Definition("share of lines", "lines that begin with `•` or `-`, after white space", "G"),
    "ellipsis_lines": Definition("share of lines", "lines that end in `...` or `…`, before white space", "G"),
    "alpha_words": Definition("share of tokens", "tokens with a letter / tokens (punctuation counts as tokens)", "G"),
    "alpha_only_words": Definition("share of words", "tokens with a letter / words, 1 at most", "P"),
    "stop_words": Definition("words", "different stop words of the language (English: Gopher's eight)", "G"),
    "duplicate_lines": Definition("share of lines", "lines seen before / lines", "G"),
    "duplicate_line_characters": Definition(_SHARE_OF_TEXT, "characters of lines seen before / characters", "G"),
    "repeated_line_characters": Definition(
        _SHARE_OF_TEXT, "characters of non-blank lines seen before / characters but newlines", "FW"
    ),
    "punctuated_lines": Definition("share of lines", "non-blank lines that end in terminal punctuation", "FW"),
    "short_lines": Definition("share of lines", "non-blank lines of at most 30 characters", "FW"),
    "longest_line": Definition("characters", "longest line", "P"),
    "duplicate_paragraphs": Definition("share of paragraphs", "paragraphs seen before / paragraphs", "G"),
    "duplicate_paragraph_characters": Definition(_SHARE_OF_TEXT, "of paragraphs seen before / characters", "G"),
    **{
        f"top_{n}gram": Definition(
            _SHARE_OF_TEXT, f"of all occurrences of the most frequent {n} tokens in a row, with spaces between", "G"
        )
        for n in (2, 3, 4)
    },
    **{
        f"duplicate_{n}gram": Definition(
            _SHARE_OF_TEXT, f"of {n} tokens in a row seen before; counting continues after them", "G"
        )
        for n in range(5, 11)
    },
    "c4_sentences": Definition(
        "sentences", "those on lines that C4 keeps, without its terminal-punctuation rule", "C4"
    ),
    "curly_brackets": Definition("lines", "lines with `{` among those of 3 words and more", "C4"),
    "lorem_ipsum": Definition("lines", "lines with `lorem ipsum` among those of 3 words and more", "C4"),
    "c4_terminal_sentences": Definition("sentences", "c4_sentences of lines that end in . ? ! \" or '", "C4"),
    "c4_terminal_curly_brackets": Definition("lines", "curly_brackets of such lines", "C4"),
    "c4_terminal_lorem_ipsum": Definition("lines", "lorem_ipsum of such lines", "C4"),
    "c4_lines": Definition("share of lines", "lines that C4 keeps, without its terminal-punctuation rule", "C4"),
    "newlines_per_word": Definition("per token", "newlines / tokens (may exceed 1)", "FW"),
    "stop_word_ratio": Definition("share of words", "stop words of the language / words", "P"),
    "unique_words": Definition("share of tokens", "different tokens / tokens", "P"),
    "word_entropy": Definition("bits", "entropy of the tokens' frequencies", "P"),
    "digit_ratio": Definition("share of visible characters", "decimal digits", "P"),
    "punctuation_ratio": Definition("share of visible characters", "punctuation (Unicode's P)", "P"),
    "upper_ratio": Definition("share of visible characters", "capital letters", "P"),
    "copied_characters": Definition(
        _SHARE_OF_TEXT, "of tokens that a greedy Lempel-Ziv parse copies from before, 4 and more in a row", "P"
    ),
}
SIGNALS = tuple(DEFINITIONS)


def signals(texts: list[str], *, language: str | Sequence[str] = "en") -> Signals:
    """{signal: float64 (len(texts),)}; finite for any text.

    language: ISO 639 code of all texts or of each; decides whose stop words count (none for a language without a
    list in `lexicon`).
    """
    languages = [language] * len(texts) if isinstance(language, str) else list(language)
    if len(languages) != len(texts):
        raise ValueError(f"got {len(languages)} languages for {len(texts)} texts")
    parts = [_measure(texts[low:high], languages[low:high]) for low, high in _batches(texts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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
    lines = line_counts.measure_lines(points, ends, parts, rows, tokens.sentences)
    counts = {
        **_columns(line_counts.CHARACTERS, line_counts.measure_characters(points, ends)),
        **_columns(ngrams.COLUMNS, ngrams.measure(ends, parts, tokens, stop_bits(languages), *stop_table())),
        **_columns(line_counts.LINES, lines),
    }
    _recount_without_citations(texts, ends, rows, counts)
    return _ratios(counts)


def _columns(names: tuple[str, ...], values: Array) -> Signals:
    return {name: values[:, i] for i, name in enumerate(names)}


def _recount_without_citations(texts: list[str], ends: Array, rows: Lines, counts: Signals) -> None:
    """Correct C4's counts for its deletion of citation marks: count the lines that have some with and without them."""
    cited: dict[int, list[str]] = {}
    marked = np.flatnonzero(rows.marks & CITED)
    documents = np.searchsorted(rows.row_ends, marked, "right")
    starts = ends[documents] - np.array([len(text) for text in texts], np.int64)[documents]
    begins = rows.row_begins[marked] - starts
    stops = np.append(rows.row_begins, ends[-1:])[marked + 1] - starts  # beyond the text's end in its last row
    for document, begin, stop in zip(documents.tolist(), begins.tolist(), stops.tolist(), strict=True):
        if _is_cited(line := texts[document][begin:stop]):
            cited.setdefault(document, []).append(line)
    if cited:
        blocks = ["".join(lines) for lines in cited.values()]
        recounted = _c4_counts([*blocks, *(_CITATION.sub("", block) for block in blocks)])
        for name, values in recounted.items():
            counts[name][list(cited)] += values[len(blocks) :] - values[: len(blocks)]


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
    counts = _columns(line_counts.LINES, line_counts.measure_lines(points, ends, parts, rows, sentences))
    return {name: counts[name] for name in _C4_COUNTS}


def _ratios(counts: Signals) -> Signals:
    """Counts to the statistics that rules read: those here, all others as they were counted."""
    characters, tokens, words = (np.maximum(counts[name], 1) for name in ("characters", "tokens", "words"))
    ratios = {
        "mean_word_length": counts["word_characters"] / words,
        "hash_ratio": counts["hashes"] / tokens,
        "ellipsis_ratio": counts["ellipses"] / tokens,
        "alpha_words": counts["letter_tokens"] / tokens,
        "alpha_only_words": np.minimum(counts["letter_tokens"] / words, 1.0),
        "newlines_per_word": counts["newlines"] / tokens,
        "stop_word_ratio": counts["stop_word_tokens"] / words,
        "unique_words": counts["unique_words"] / tokens,
        **{name: counts[name] / characters for name in ngrams.COLUMNS if name.endswith(("gram", "copied_characters"))},
    }
    return {name: ratios[name] if name in ratios else counts[name] for name in SIGNALS}
