"""Statistics of a document's characters: shares of digits, signs and capitals, symbols, and copied stretches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.signals import characters as c

Array = np.ndarray[Any, Any]

BUILT_ON = {"characters": "0b12ee5c"}  # see numbering

COLUMNS = ("characters", "digit_ratio", "punctuation_ratio", "upper_ratio", "hashes", "ellipses", "copied_characters")
SHORTEST_COPY = 16  # characters
_DIGIT, _PUNCTUATION, _UPPER, _LOWER = c.DIGIT, c.PUNCTUATION, c.UPPER, c.LOWER
_SPACE, _UNSPACED = c.SPACE, c.UNSPACED
_HASH, _DOT, _ELLIPSIS = ord("#"), ord("."), 0x2026
_SLOTS = 1 << 13
_SEED = np.uint64(0x9E3779B97F4A7C15)


def measure(points: Array, ends: Array) -> Array:
    """float64 (documents, len(COLUMNS)); ratios are to visible characters, `hashes` and `ellipses` are counts.

    copied_characters: share of characters that a greedy Lempel-Ziv parse of the document copies from before, in
    stretches that begin with a word and are at least SHORTEST_COPY long: near 0 for prose, near 1 for one phrase.
    """
    out = np.zeros((len(ends), len(COLUMNS)))
    _measure(points, ends, c.character_table(), out)
    return out


@njit(cache=True)
def _copied(points: Array, low: int, high: int, table: Array, slots: Array) -> int:
    """Characters copied; `slots` remembers the last place of each hash of SHORTEST_COPY characters."""
    slots[:] = -1
    copied, i, bits = 0, low, _SPACE
    while i + SHORTEST_COPY <= high:
        before, bits = bits, int(table[points[i]])
        if not (before & _SPACE and not bits & _SPACE) and not bits & _UNSPACED:
            i += 1
            continue
        value = np.uint64(0)
        for k in range(i, i + SHORTEST_COPY, 2):
            pair = np.uint64(points[k]) << np.uint64(21) ^ np.uint64(points[k + 1])
            value = (value ^ pair) * _SEED
        slot = np.int64(value >> np.uint64(51))
        at, size = slots[slot], 0
        slots[slot] = i
        if at >= low:
            while i + size < high and points[at + size] == points[i + size]:
                size += 1
        if size >= SHORTEST_COPY:
            copied += size
            i += size
            bits = int(table[points[i - 1]])
        else:
            i += 1
    return copied


@njit(cache=True)
def _measure(points: Array, ends: Array, table: Array, out: Array) -> None:
    low = 0
    slots = np.empty(_SLOTS, np.int32)
    for document in range(ends.size):
        high, row = ends[document], out[document]
        visible, digits, signs, capitals, hashes, ellipses, dots = 0, 0, 0, 0, 0, 0, 0
        for i in range(low, high):
            point = points[i]
            bits = int(table[point])
            visible += bits & _SPACE == 0
            digits += bits & _DIGIT > 0
            signs += bits & _PUNCTUATION > 0
            capitals += bits & (_UPPER | _LOWER) == _UPPER
            hashes += point == _HASH
            dots = dots + 1 if point == _DOT else 0
            ellipses += (dots > 0 and dots % 3 == 0) + (point == _ELLIPSIS)
        row[0] = high - low
        row[1], row[2], row[3] = digits / max(visible, 1), signs / max(visible, 1), capitals / max(visible, 1)
        row[4], row[5] = hashes, ellipses
        row[6] = _copied(points, low, high, table, slots) / max(high - low, 1)
        low = high
