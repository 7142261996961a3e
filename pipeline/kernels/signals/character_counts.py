"""Statistics of a document's characters: shares of digits, signs and capitals, counts of symbols."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, inner, kernel
from pipeline.kernels.signals import characters

Array = np.ndarray[Any, Any]


COLUMNS = ("characters", "digit_ratio", "punctuation_ratio", "upper_ratio", "hashes", "ellipses")
_BITS = 10  # of a counter: six of them are added up at once
_UNTIL_FULL = (1 << _BITS) - 1  # characters
_HASH, _DOT, _ELLIPSIS = ord("#"), ord("."), 0x2026
_SPACES, _DIGITS, _SIGNS, _CAPITALS, _HASHES, _ELLIPSES = range(6)


def measure(points: Array, ends: Array) -> Array:
    """float64 (documents, len(COLUMNS)); ratios are to visible characters, `hashes` and `ellipses` are counts."""
    counts = np.zeros((len(ends), 6), np.int64)
    _count(points, ends, _counters(), counts)
    characters = np.diff(ends, prepend=0)
    visible = np.maximum(characters - counts[:, _SPACES], 1)
    ratios = [counts[:, k] / visible for k in (_DIGITS, _SIGNS, _CAPITALS)]
    return np.column_stack([characters, *ratios, counts[:, _HASHES], counts[:, _ELLIPSES]])


@cache
def _counters() -> Array:
    """uint64 for each code point: a one in the counter of each property that it has."""
    bits, point = characters.character_table(), np.arange(0x110000)
    fields = [bits & flag > 0 for flag in (characters.SPACE, characters.DIGIT, characters.PUNCTUATION)]
    fields += [bits & (characters.UPPER | characters.LOWER) == characters.UPPER, point == _HASH, point == _ELLIPSIS]
    counters = np.zeros(0x110000, np.uint64)
    for k, field in enumerate(fields):
        counters |= field.astype(np.uint64) << np.uint64(_BITS * k)
    return counters


@inner
def _triple_dots(points: Array) -> int:
    """Three dots in a row, not overlapping."""
    overlapping, found, i = 0, 0, 0
    for k in range(points.size - 2):  # the compiler makes vectors of it, and most texts have none
        overlapping += (points[k] == _DOT) & (points[k + 1] == _DOT) & (points[k + 2] == _DOT)
    while overlapping and i < points.size - 2:
        if points[i] == _DOT and points[i + 1] == _DOT and points[i + 2] == _DOT:
            found += 1
            i += 2
        i += 1
    return found


@kernel(**UNCOUNTED, error_model="numpy")
def _count(points: Array, ends: Array, counters: Array, out: Array) -> None:
    low, mask = 0, np.uint64(_UNTIL_FULL)
    for document in range(ends.size):
        text, row = points[low : ends[document]], out[document]
        low = ends[document]
        for begin in range(0, text.size, _UNTIL_FULL):
            counts = np.uint64(0)
            for point in text[begin : begin + _UNTIL_FULL]:
                counts += counters[point]
            for k in range(row.size):
                row[k] += np.int64(counts >> np.uint64(_BITS * k) & mask)
        row[_ELLIPSES] += _triple_dots(text)
