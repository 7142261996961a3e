"""Statistics of a document's characters: shares of digits, signs and capitals, counts of symbols."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pipeline.signals import characters as c
from pipeline.signals.kernel import kernel

Array = np.ndarray[Any, Any]

BUILT_ON = {"characters": "", "kernel": ""}

COLUMNS = ("characters", "digit_ratio", "punctuation_ratio", "upper_ratio", "hashes", "ellipses")
_FIELDS = (c.SPACE, c.DIGIT, c.PUNCTUATION)
_BITS = 12  # of a counter: five of them are added up at once
_LONGEST = (1 << _BITS) - 1  # characters until a counter could be full
_HASH, _DOT, _ELLIPSIS = ord("#"), ord("."), 0x2026


def measure(points: Array, ends: Array) -> Array:
    """float64 (documents, len(COLUMNS)); ratios are to visible characters, `hashes` and `ellipses` are counts."""
    out = np.zeros((len(ends), len(COLUMNS)))
    _measure(points, ends, _counters(), out)
    return out


@cache
def _counters() -> Array:
    """uint64 for each code point: a one in the counter of each property that it has."""
    bits = c.character_table()
    found = [bits & field > 0 for field in _FIELDS]
    found += [bits & (c.UPPER | c.LOWER) == c.UPPER, np.arange(bits.size) == _HASH]
    counters: Array = sum(column.astype(np.uint64) << np.uint64(_BITS * k) for k, column in enumerate(found))
    return counters


@kernel
def _ellipses(points: Array, low: int, high: int) -> int:
    dots, signs = 0, 0
    for i in range(low, high):
        signs += points[i] == _ELLIPSIS
        if i + 2 < high:
            dots += (points[i] == _DOT) & (points[i + 1] == _DOT) & (points[i + 2] == _DOT)
    i = low
    while dots and i + 2 < high:  # three at a time
        if points[i] == _DOT and points[i + 1] == _DOT and points[i + 2] == _DOT:
            signs += 1
            i += 2
        i += 1
    return signs


@kernel
def _measure(points: Array, ends: Array, counters: Array, out: Array) -> None:
    low, mask = 0, np.uint64(_LONGEST)
    for document in range(ends.size):
        high, row = ends[document], out[document]
        spaces, digits, signs, capitals, hashes = 0, 0, 0, 0, 0
        for begin in range(low, high, _LONGEST):
            counts = np.uint64(0)
            for i in range(begin, min(begin + _LONGEST, high)):
                counts += counters[points[i]]
            spaces += np.int64(counts & mask)
            digits += np.int64(counts >> np.uint64(_BITS) & mask)
            signs += np.int64(counts >> np.uint64(2 * _BITS) & mask)
            capitals += np.int64(counts >> np.uint64(3 * _BITS) & mask)
            hashes += np.int64(counts >> np.uint64(4 * _BITS) & mask)
        visible = max(high - low - spaces, 1)
        row[0] = high - low
        row[1], row[2], row[3] = digits / visible, signs / visible, capitals / visible
        row[4], row[5] = hashes, _ellipses(points, low, high)
        low = high
