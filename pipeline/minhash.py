"""MinHash signatures of texts in one fused pass over their code points.

Code points are folded (case, accents and digits fall together, punctuation separates), words are hashed, word
n-grams are hashed in a ring, and each n-gram updates all minima. Characters of scripts written without spaces
are words of their own. The permutations of the 32-bit hash space are multiply-adds with odd multipliers (Dietzfelbinger
et al. 1997). Nothing depends on threads, platform or Python's hash seed. Cost: one multiply and one compare
per n-gram and hash; the first call in a fresh checkout compiles for some seconds (numba caches it).
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np
from numba import njit

U32 = np.ndarray[Any, np.dtype[np.uint32]]
EMPTY = np.uint32(0xFFFFFFFF)
_TABLE_SIZE = 0x32000  # the planes that hold letters; code points above fall into one class
_ALONE = np.uint32(1 << 31)  # flag: a word of its own
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x31FFF),
)


class MinHasher:
    """Computes signatures of bands x rows hashes over word n-grams.

    >>> MinHasher().signatures(["one two three four five six"]).shape
    (1, 112)
    """

    def __init__(self, bands: int = 14, rows: int = 8, ngram: int = 5, seed: int = 1) -> None:
        self.bands, self.rows, self.ngram = bands, rows, ngram
        random = np.random.Generator(np.random.PCG64(seed))
        words = random.integers(0, 2**32, size=(2, bands * rows), dtype=np.uint64).astype(np.uint32)
        self._multipliers, self._offsets = words[0] | np.uint32(1), words[1]

    def signatures(self, texts: list[str]) -> U32:
        """uint32 (len(texts), bands * rows). A text without any word has all hashes EMPTY."""
        points = [np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32) for text in texts]
        ends = np.cumsum([len(p) for p in points], dtype=np.int64)
        joined = np.concatenate(points) if points else np.empty(0, np.uint32)
        out = np.full((len(texts), self.bands * self.rows), EMPTY, np.uint32)
        if texts:
            _sign(joined, ends, fold_table(), self.ngram, self._multipliers, self._offsets, out)
        return out

    def band_keys(self, signatures: U32) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """uint64 (documents, bands): hash of each band's rows; equal keys are candidate duplicates."""
        keys = np.empty((len(signatures), self.bands), np.uint64)
        _band_keys(signatures, self.rows, keys)
        return keys


@cache
def fold_table() -> U32:
    """uint32 (_TABLE_SIZE,): 0 separates words; else the folded character, with _ALONE for unspaced scripts."""
    table = np.zeros(_TABLE_SIZE, np.uint32)
    for point in range(_TABLE_SIZE):
        character = chr(point)
        category = unicodedata.category(character)
        if category[0] == "N":
            table[point] = ord("0")
        elif category[0] == "L":
            base = unicodedata.normalize("NFKD", character.lower())[0]
            table[point] = ord(base)
        elif category[0] == "M":
            table[point] = point
    for low, high in _UNSPACED:
        table[low : high + 1] |= np.where(table[low : high + 1] > 0, _ALONE, np.uint32(0))
    return table


@njit(cache=True, inline="always")
def _mix(x: np.uint64) -> np.uint64:
    """Finalizer of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _minimize(shingle: np.uint64, multipliers: U32, offsets: U32, row: U32) -> None:
    low = np.uint32(shingle & np.uint64(0xFFFFFFFF))
    for j in range(row.size):
        row[j] = min(row[j], np.uint32(low * multipliers[j] + offsets[j]))


@njit(cache=True)
def _shingle(ring: Any, words: int, ngram: int) -> np.uint64:
    """Hash of the last min(words, ngram) word hashes, oldest first."""
    value = np.uint64(0x9E3779B97F4A7C15)
    count = min(words, ngram)
    for k in range(words - count, words):
        value = _mix(value * np.uint64(3) + ring[k % ngram])
    return value


@njit(cache=True)
def _sign(points: U32, ends: Any, table: U32, ngram: int, multipliers: U32, offsets: U32, out: U32) -> None:
    ring = np.zeros(ngram, np.uint64)
    start = 0
    for document in range(ends.size):
        words = 0
        word = np.uint64(0)
        for i in range(start, ends[document] + 1):
            at_end = i == ends[document]
            folded = np.uint32(0)
            if not at_end:
                folded = table[points[i]] if points[i] < table.size else _ALONE
            alone = folded >= _ALONE
            if word != 0 and (folded == 0 or alone):  # the word before this character is complete
                ring[words % ngram] = word
                words += 1
                word = np.uint64(0)
                if words >= ngram:
                    _minimize(_shingle(ring, words, ngram), multipliers, offsets, out[document])
            if alone:
                ring[words % ngram] = _mix(np.uint64(folded))
                words += 1
                if words >= ngram:
                    _minimize(_shingle(ring, words, ngram), multipliers, offsets, out[document])
            elif folded != 0:
                word = (word ^ np.uint64(folded)) * np.uint64(0x100000001B3) + np.uint64(1)
        if 0 < words < ngram:  # a short document is one shingle
            _minimize(_shingle(ring, words, ngram), multipliers, offsets, out[document])
        start = ends[document]


@njit(cache=True)
def _band_keys(signatures: U32, rows: int, keys: Any) -> None:
    for i in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            value = np.uint64(band + 1)
            for j in range(band * rows, (band + 1) * rows):
                value = _mix(value * np.uint64(3) + np.uint64(signatures[i, j]))
            keys[i, band] = value
