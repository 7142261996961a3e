"""Quality signals of a text: plain statistics that rules compare with thresholds.

Signal, unit and range; definitions follow the paper named in `pipeline.presets`:

    words, c4_sentences, curly_brackets, lorem_ipsum, stop_words          counts, >= 0
    mean_word_length                                                      characters, >= 0
    hash_ratio, ellipsis_ratio                                            per word, >= 0
    bullet_lines, ellipsis_lines, punctuated_lines, short_lines           share of lines, 0 to 1
    alpha_words                                       share of whitespace-separated parts, 0 to 1
    duplicate_lines, duplicate_paragraphs                                 share of lines, paragraphs, 0 to 1
    duplicate_line_characters, duplicate_paragraph_characters,
    top_2gram ... top_4gram, duplicate_5gram ... duplicate_10gram         share of characters, 0 to 1
    newlines_per_word                                                     per word, >= 0

A word is a run of letters, marks and digits (an apostrophe or hyphen inside belongs to it), or one character of a
script that is written without spaces; other visible characters are symbols, counted where a ratio is to all tokens.
Gopher's and datatrove's word splitters differ in detail from this rule. Costs about 1 MB/s a core.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD_CHARACTER = rf"[^\W_{_UNSPACED}]|[\u0300-\u036f\u0900-\u0dff]"
_TOKEN = re.compile(rf"[{_UNSPACED}]|(?:{_WORD_CHARACTER})+(?:['’-](?:{_WORD_CHARACTER})+)*|[^\w\s]+|_+")
_SENTENCE_END = re.compile(r"[.!?…؟।۔]+[\"'”’»)\]]*(?=\s|$)|[。！？]")
_PARAGRAPHS = re.compile(r"\n\s*\n")
_TERMINAL = (".", "?", "!", '"', "'", "”", "’", "»", "…", "。", "！", "？", "」", "؟", "।", "۔", ")")
_BULLETS = ("•", "-", "*", "‣", "●", "◦", "–")
_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_C4_LINE_NOTICES = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
SHORT_LINE = 30  # characters (FineWeb)
MAX_C4_WORD = 1000  # characters (C4)
MIN_C4_WORDS = 3  # words a line (C4)


def signals(texts: list[str], *, language: str = "en") -> dict[str, np.ndarray[Any, Any]]:
    """{signal: float64 (len(texts),)}; finite for any text."""
    rows = [_signals(text) for text in texts]
    return {name: np.array([row[name] for row in rows], np.float64) for name in _signals("")}


def _signals(text: str) -> dict[str, float]:
    tokens = _TOKEN.findall(text)
    words = [token for token in tokens if token[0].isalnum() or token[-1].isalnum()]
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = [part.strip() for part in _PARAGRAPHS.split(text) if part.strip()]
    found = {
        **_gopher(text, tokens, words, lines),
        **_repetition(words, lines, paragraphs),
        **_c4(text, lines),
        **_fineweb(text, words, lines),
    }
    return {name: float(value) for name, value in found.items()}


def _gopher(text: str, tokens: list[str], words: list[str], lines: list[str]) -> dict[str, float]:
    count = max(len(tokens), 1)
    return {
        "words": len(words),
        "mean_word_length": sum(map(len, words)) / max(len(words), 1),
        "hash_ratio": text.count("#") / count,
        "ellipsis_ratio": (text.count("...") + text.count("…")) / count,
        "bullet_lines": _share(lines, lambda line: line.startswith(_BULLETS)),
        "ellipsis_lines": _share(lines, lambda line: line.endswith(("...", "…"))),
        "alpha_words": _share(text.split(), lambda part: any(character.isalpha() for character in part)),
        "stop_words": len(_STOP_WORDS & {word.lower() for word in words}),
    }


def _repetition(words: list[str], lines: list[str], paragraphs: list[str]) -> dict[str, float]:
    found = {}
    for name, parts in (("line", lines), ("paragraph", paragraphs)):
        seen: set[str] = set()
        repeated = [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
        found[f"duplicate_{name}s"] = len(repeated) / max(len(parts), 1)
        found[f"duplicate_{name}_characters"] = sum(map(len, repeated)) / max(sum(map(len, parts)), 1)
    characters = max(sum(map(len, words)), 1)
    lengths = np.array([len(word) for word in words], np.int64)
    ids = _number(words)
    for n in (2, 3, 4):
        found[f"top_{n}gram"] = _top_ngram(ids, lengths, n) / characters
    for n in range(5, 11):
        found[f"duplicate_{n}gram"] = _duplicate_ngrams(ids, lengths, n) / characters
    return found


def _c4(text: str, lines: list[str]) -> dict[str, float]:
    kept = [line for line in lines if _c4_keeps(line)]
    folded = text.lower()
    return {
        "c4_sentences": sum(max(len(_SENTENCE_END.findall(line)), 1) for line in kept),
        "curly_brackets": text.count("{"),
        "lorem_ipsum": folded.count("lorem ipsum"),
    }


def _c4_keeps(line: str) -> bool:
    """Whether C4's line rules keep a line (all but terminal punctuation, which FineWeb leaves out)."""
    words = _TOKEN.findall(line)
    folded = line.lower()
    return (
        len(words) >= MIN_C4_WORDS
        and max(map(len, line.split())) <= MAX_C4_WORD
        and not any(notice in folded for notice in _C4_LINE_NOTICES)
    )


def _fineweb(text: str, words: list[str], lines: list[str]) -> dict[str, float]:
    return {
        "punctuated_lines": _share(lines, lambda line: line.endswith(_TERMINAL)),
        "short_lines": _share(lines, lambda line: len(line) <= SHORT_LINE),
        "newlines_per_word": text.count("\n") / max(len(words), 1),
    }


def _share(parts: list[str], holds: Any) -> float:
    return float(sum(map(holds, parts))) / max(len(parts), 1)


def _number(words: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Each word as the position of its first occurrence: exact, where a hash might collide."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(word, len(first)) for word in words], np.int64)


def _ngrams(ids: np.ndarray[Any, Any], n: int) -> np.ndarray[Any, Any]:
    """Each n-gram of `ids` as the number of its first equal one, int64 (max(len(ids) - n + 1, 0),)."""
    codes = ids
    for k in range(1, n):
        pairs = codes[: len(ids) - k] * (len(ids) + 1) + ids[k:]
        codes = np.unique(pairs, return_inverse=True)[1].ravel()
    return codes[: max(len(ids) - n + 1, 0)]


def _top_ngram(ids: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any], n: int) -> int:
    """Characters in all occurrences of the most frequent n-gram (the longest of equally frequent ones)."""
    codes = _ngrams(ids, n)
    if not len(codes):
        return 0
    counts = Counter(codes.tolist())
    most = max(counts.values())
    if most < 2:
        return 0
    sizes = np.convolve(lengths, np.ones(n, np.int64), "valid")
    longest = max(int(sizes[int(np.argmax(codes == code))]) for code, count in counts.items() if count == most)
    return longest * most


def _duplicate_ngrams(ids: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any], n: int) -> int:
    """Characters of words that lie in any n-gram which occurred before, each word counted once."""
    codes = _ngrams(ids, n)
    if not len(codes):
        return 0
    first = np.unique(codes, return_index=True)[1]
    repeated = np.ones(len(codes), bool)
    repeated[first] = False
    covered = np.zeros(len(ids) + 1, np.int64)
    starts = np.flatnonzero(repeated)
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + n, -1)
    return int(lengths[np.cumsum(covered[:-1]) > 0].sum())
