"""Statistics of a document's characters: shares of digits, signs and capitals, counts of symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.signals import characters as c

Array = np.ndarray[Any, Any]

BUILT_ON = {"characters": "31663ff6"}  # see numbering

COLUMNS = ("characters", "digit_ratio", "punctuation_ratio", "upper_ratio", "hashes", "ellipses")
_UPPER, _LOWER = c.UPPER, c.LOWER
_SPACE_SHIFT, _DIGIT_SHIFT, _PUNCTUATION_SHIFT = (flag.bit_length() - 1 for flag in (c.SPACE, c.DIGIT, c.PUNCTUATION))
_HASH, _DOT, _ELLIPSIS = ord("#"), ord("."), 0x2026


def measure(points: Array, ends: Array) -> Array:
    """float64 (documents, len(COLUMNS)); ratios are to visible characters, `hashes` and `ellipses` are counts."""
    out = np.zeros((len(ends), len(COLUMNS)))
    _measure(points, ends, c.character_table(), out)
    return out


@njit(cache=True)
def _measure(points: Array, ends: Array, table: Array, out: Array) -> None:
    low = 0
    for document in range(ends.size):
        high, row = ends[document], out[document]
        spaces, digits, signs, capitals, hashes, ellipses = 0, 0, 0, 0, 0, 0
        for i in range(low, high):
            bits = int(table[points[i]])
            spaces += bits >> _SPACE_SHIFT & 1
            digits += bits >> _DIGIT_SHIFT & 1
            signs += bits >> _PUNCTUATION_SHIFT & 1
            capitals += bits & (_UPPER | _LOWER) == _UPPER
        i = low
        while i < high:
            point = points[i]
            if point == _HASH:
                hashes += 1
            elif point == _ELLIPSIS:
                ellipses += 1
            elif point == _DOT and i + 2 < high and points[i + 1] == _DOT and points[i + 2] == _DOT:
                ellipses += 1
                i += 2
            i += 1
        visible = max(high - low - spaces, 1)
        row[0] = high - low
        row[1], row[2], row[3] = digits / visible, signs / visible, capitals / visible
        row[4], row[5] = hashes, ellipses
        low = high
