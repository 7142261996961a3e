"""Which part of a text a quality rule objects to, for a reader's eye.

Each function finds spans by the idea of a signal (`pipeline.signals`), not by its exact arithmetic: the value that
decided stands beside the text. Rules about what is missing (words, sentences, stop words) have no span.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from recipes.report.blocks import Fragment

Span = tuple[int, int]

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_LINE = re.compile(r"[^\n]+")
_PARAGRAPH = re.compile(r"\S(?:[^\n]|\n(?!\s*\n))*")
_BULLET = re.compile(r"^[ \t]*[•\-*‣●◦–].*$", re.MULTILINE)
_ELLIPSIS_LINE = re.compile(r"^.*(?:\.\.\.|…)[ \t]*$", re.MULTILINE)
_LONG_WORD = re.compile(r"\w{14,}")
_TERMINAL = tuple(".?!\"'”’»…。！？」؟।۔)")
_SHORT = 30


def spans(signal: str, text: str) -> list[Span]:
    """(start, end) of what a rule on `signal` objects to, in order and without overlaps."""
    if found := re.fullmatch(r"(?:top|duplicate)_(\d+)gram", signal):
        return _ngrams(text, int(found[1]), top=signal.startswith("top"))
    finder = _FINDERS.get(signal)
    return finder(text) if finder else []


def fragments(text: str, marked: Iterable[Span], limit: int, context: int = 200) -> list[Fragment]:
    """The text cut into marked and unmarked parts, at most `limit` characters from a little before the first mark."""
    marked = list(marked)
    start = max(0, marked[0][0] - context) if marked and marked[0][1] > limit else 0
    end = min(len(text), start + limit)
    parts: list[Fragment] = [("… ", False)] if start else []
    at = start
    for first, last in marked:
        first, last = max(first, at), min(last, end)
        if first < last:
            parts += [(text[at:first], False), (text[first:last], True)]
            at = last
    parts += [(text[at:end], False), (" …" if end < len(text) else "", False)]
    return [part for part in parts if part[0]]


def _all(pattern: re.Pattern[str]) -> Callable[[str], list[Span]]:
    return lambda text: [match.span() for match in pattern.finditer(text)]


def _lines(holds: Callable[[str], bool]) -> Callable[[str], list[Span]]:
    return lambda text: [match.span() for match in _LINE.finditer(text) if holds(match[0].strip())]


def _without_letters(text: str) -> list[Span]:
    parts = re.finditer(r"\S+", text)
    return [part.span() for part in parts if not any(character.isalpha() for character in part[0])]


def _repeated(pattern: re.Pattern[str]) -> Callable[[str], list[Span]]:
    """Parts that occurred before."""

    def find(text: str) -> list[Span]:
        seen: set[str] = set()
        found = []
        for match in pattern.finditer(text):
            part = match[0].strip()
            if part and part in seen:
                found.append(match.span())
            seen.add(part)
        return found

    return find


def _ngrams(text: str, n: int, *, top: bool) -> list[Span]:
    """Every occurrence of the most frequent word n-gram (top), or all n-grams that occurred before."""
    words = list(_WORD.finditer(text))
    grams = [tuple(word[0] for word in words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)
    if not counts or max(counts.values()) < 2:
        return []
    most = max(counts, key=lambda gram: counts[gram])
    seen: set[tuple[str, ...]] = set()
    found = []
    for i, gram in enumerate(grams):
        if gram == most if top else gram in seen:
            found.append((words[i].start(), words[i + n - 1].end()))
        seen.add(gram)
    return _joined(found)


def _joined(found: list[Span]) -> list[Span]:
    """Overlapping spans as one."""
    joined: list[Span] = []
    for start, end in found:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


_FINDERS: dict[str, Callable[[str], list[Span]]] = {
    "curly_brackets": _all(re.compile(r"[{}]")),
    "lorem_ipsum": _all(re.compile(r"lorem ipsum", re.IGNORECASE)),
    "hash_ratio": _all(re.compile(r"#+")),
    "ellipsis_ratio": _all(re.compile(r"\.\.\.|…")),
    "bullet_lines": _all(_BULLET),
    "ellipsis_lines": _all(_ELLIPSIS_LINE),
    "mean_word_length": _all(_LONG_WORD),
    "alpha_words": _without_letters,
    "newlines_per_word": _lines(lambda line: len(line.split()) < 4),
    "short_lines": _lines(lambda line: 0 < len(line) <= _SHORT),
    "punctuated_lines": _lines(lambda line: bool(line) and not line.endswith(_TERMINAL)),
    "duplicate_lines": _repeated(_LINE),
    "duplicate_line_characters": _repeated(_LINE),
    "duplicate_paragraphs": _repeated(_PARAGRAPH),
    "duplicate_paragraph_characters": _repeated(_PARAGRAPH),
}
