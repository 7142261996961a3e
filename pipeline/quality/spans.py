"""The span of a text that best shows why a signal has its value, for the report and `pretrain inspect`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

Span = tuple[int, int]
# Nearly the tokens that the signals count, without their kernels, which take half a second to load; the ranges are of
# scripts without spaces, in which each letter is one.
_TOKEN = re.compile(r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+|\S")
_NO_LETTERS = re.compile(r"(?:[^\w\s]|[\d_])(?:\s*(?:[^\w\s]|[\d_]))*")
_PATTERNS = {
    "curly_brackets": r"\{",
    "lorem_ipsum": r"(?i)lorem ipsum",
    "hash_ratio": r"#+",
    "ellipsis_ratio": r"\.\.\.|…",
    "bullet_lines": r"(?m)^\s*[•-].*$",
    "ellipsis_lines": r"(?m)^.*(?:\.\.\.|…)[ \t]*$",
    "punctuated_lines": r"(?m)^.*[^\s.?!。！？…]$",
    "short_lines": r"(?m)^.{1,30}$",
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
        longest = max(_NO_LETTERS.finditer(text), key=lambda run: len(run[0]), default=None)
        return longest.span() if longest else _beginning(text)
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
    tokens = list(_TOKEN.finditer(text))
    grams = list(zip(*([token[0] for token in tokens[i:]] for i in range(n)), strict=False))
    wanted = Counter(grams).most_common(1)[0][0] if most and grams else None
    seen: set[tuple[str, ...]] = set()
    for i, gram in enumerate(grams):
        if gram == wanted or (not most and gram in seen):
            return tokens[i].start(), tokens[i + n - 1].end()
        seen.add(gram)
    return _beginning(text)
