"""The span of a text that best shows why a signal has its value, for the report and `pretrain inspect`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from pipeline.kernels.hashing import code_points
from pipeline.kernels.signals.line_counts import SHORT_LINE
from pipeline.kernels.signals.words import HAS_LETTER, tokenize

Span = tuple[int, int]
_PATTERNS = {
    "curly_brackets": r"\{",
    "lorem_ipsum": r"(?i)lorem ipsum",
    "hash_ratio": r"#+",
    "ellipsis_ratio": r"\.\.\.|…",
    "bullet_lines": r"(?m)^\s*[•-].*$",
    "ellipsis_lines": r"(?m)^.*(?:\.\.\.|…)[ \t]*$",
    "punctuated_lines": r"(?m)^.*[^\s.?!。！？…]$",
    "short_lines": rf"(?m)^.{{1,{SHORT_LINE}}}$",
    "newlines_per_word": r"\n\n+",
    "digit_ratio": r"\d[\d .,]*",
    "upper_ratio": r"[A-Z][A-Z ]+",
    "mean_word_length": r"\S{25,}",
}


def offending(text: str, signal: str) -> Span:
    """(start, end) of the offending span in code points; the beginning of the text if no span stands out."""
    if pattern := _PATTERNS.get(signal.replace("c4_terminal_", "")):
        match = re.search(pattern, text)
        return match.span() if match else _beginning(text)
    if "line" in signal:
        return _repeated(text, re.finditer(r"[^\n]+", text))
    if "paragraph" in signal:
        return _repeated(text, re.finditer(r"(?s)\S.*?(?=\n\n|$)", text))
    if signal.endswith("gram"):
        return _ngram(text, int(re.sub(r"\D", "", signal)), most=signal.startswith("top"))
    if signal.startswith("alpha"):
        return _without_letters(text)
    return _beginning(text)


def _beginning(text: str) -> Span:
    return 0, min(len(text), 80)


def _repeated(text: str, parts: Iterable[re.Match[str]]) -> Span:
    """The second occurrence of the part whose repetitions take the most characters."""
    spans: dict[str, list[Span]] = {}
    for part in parts:
        spans.setdefault(part.group(), []).append(part.span())
    worst = max(spans, key=lambda part: len(part) * (len(spans[part]) - 1), default="")
    return spans[worst][1] if len(spans.get(worst, [])) > 1 else _beginning(text)


def _ngram(text: str, n: int, *, most: bool) -> Span:
    """The most frequent n-gram, or the first that occurred before."""
    starts, lengths, _, hashes, _ = tokenize(*code_points([text]))
    values = hashes.tolist()
    grams = list(zip(*(values[i:] for i in range(n)), strict=False))
    counts = Counter(grams)
    wanted = counts.most_common(1)[0][0] if most and grams else None
    seen: set[tuple[int, ...]] = set()
    for i, gram in enumerate(grams):
        if gram == wanted or (not most and gram in seen):
            return int(starts[i]), int(starts[i + n - 1] + lengths[i + n - 1])
        seen.add(gram)
    return _beginning(text)


def _without_letters(text: str) -> Span:
    """The longest run of tokens without a letter."""
    starts, lengths, kinds, _, _ = tokenize(*code_points([text]))
    bare = np.flatnonzero(np.diff(np.concatenate([[0], (kinds & HAS_LETTER) == 0, [0]])))
    if not len(bare):
        return _beginning(text)
    first, last = max(bare.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0])
    return int(starts[first]), int(starts[last - 1] + lengths[last - 1])
