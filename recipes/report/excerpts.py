"""Passages of documents: which columns they are read from, and how a long text is cut around what is marked.

Each is cut to CHARACTERS, so a report holds a few hundred kB of text however large the corpus is. Control
characters are removed by the sections, HTML is escaped by the page.
"""

from __future__ import annotations

from collections.abc import Iterable

from recipes.report.blocks import Fragment

CHARACTERS = 1500
COLUMNS = ["id", "url", "path", "source", "language", "text"]
DROPPED_COLUMNS = [*COLUMNS, "rule", "value", "threshold", "detail"]


def fragments(text: str, marked: Iterable[tuple[int, int]], limit: int, context: int = 200) -> list[Fragment]:
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
