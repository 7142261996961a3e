"""MinHash signatures of UTF-8 texts in one fused pass; kernels only, no I/O.

UTF-8 bytes -> code points -> fold table (`pipeline.fold`) -> word hashes -> rolling hashes of word n-grams -> minima
of bands x rows permutations. A permutation is a 32-bit multiply-add with an odd multiplier (Dietzfelbinger et al.
1997, "A reliable randomized algorithm for the closest-pair problem"); multipliers come from splitmix64. All arithmetic
is on integers of fixed width, so signatures do not depend on platform, numba, vector width, threads or Python's
hash seed; tests/pipeline/test_minhash.py holds golden values.

- A word is a run of letters and digits; in signatures a number counts as the word "number", whatever its digits. A
  character of a script written without spaces is a word.
- A text with fewer words than `ngram` is one shingle: it is like another only if it has the same words. A text with
  fewer than 4 x ngram words keeps its numbers as they are: they are too much of it to be ignored (otherwise
  "All links, part 1/3" and "All links, part 2/3" would be equal).
- A text without words has all hashes EMPTY and is like no other.

Cost: per n-gram and 16 hashes one vector multiply, add and minimum (AVX-512; the same results without), beside some
cycles a byte for words: benchmarks/minhash.py. The first call in a fresh checkout compiles for some seconds; numba
keeps the result in __pycache__ for the next process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.fold import ALONE, IGNORED, LETTER, fold_table

U8 = np.ndarray[Any, np.dtype[np.uint8]]
U32 = np.ndarray[Any, np.dtype[np.uint32]]
U64 = np.ndarray[Any, np.dtype[np.uint64]]
I64 = np.ndarray[Any, np.dtype[np.int64]]

EMPTY = np.uint32(0xFFFFFFFF)
VERSION = 3  # of everything that decides a signature; an index of another version cannot be compared
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd; base of the rolling polynomial modulo 2^64
_FNV = np.uint64(0x100000001B3)
_NUMBER = np.uint64(0xD6E8FEB86659FD93)  # the word that stands for any number
_LANES = 64  # shingles are padded to whole vectors (4 of 16 x 32 bits)
_BLOCK = 2048  # shingles whose minima are taken at a time: 8 kB stay in the first cache


class MinHasher:
    """Signatures of bands x rows hashes over word n-grams.

    >>> MinHasher().signatures(["one two three four five six"]).shape
    (1, 112)
    """

    def __init__(self, bands: int = 14, rows: int = 8, ngram: int = 5, seed: int = 1) -> None:
        if min(bands, rows, ngram) < 1:
            raise ValueError(f"bands ({bands}), rows ({rows}) and ngram ({ngram}) must be at least 1")
        self.bands, self.rows, self.ngram, self.seed = bands, rows, ngram, seed
        words = _random_words(seed, 2 * bands * rows)
        self._multipliers, self._offsets = words[::2] | np.uint32(1), words[1::2].copy()

    def signatures(self, texts: list[str]) -> U32:
        """uint32 (len(texts), bands * rows). Lone surrogates count as punctuation."""
        return self.signatures_utf8(*join_utf8(texts))

    def signatures_utf8(self, data: U8, ends: I64) -> U32:
        """Signatures of texts that lie one after the other in `data`, valid UTF-8; text i ends at ends[i].

        The first begins at ends[0], so `ends` has one entry more than there are texts (as Arrow's offsets).
        """
        out = np.full((len(ends) - 1, self.bands * self.rows), EMPTY, np.uint32)
        _sign(data, ends, fold_table(), self.ngram, self._multipliers, self._offsets, out)
        return out

    def shingle_sets(self, data: U8, ends: I64) -> tuple[U32, I64]:
        """Sorted distinct 32-bit shingle hashes of each text, joined, and int64 offsets (texts + 1,).

        Numbers stand as they are here, so that two pages of a template that differ in their numbers are as unlike as
        these make them; of texts without numbers, signatures estimate exactly the Jaccard similarity of these sets
        (up to collisions of 32-bit hashes).
        """
        found: tuple[U32, I64] = _shingle_sets(data, ends, fold_table(), self.ngram)
        return found

    def band_keys(self, signatures: U32) -> U64:
        """uint64 (documents, bands): hash of each band's rows; equal keys are candidate duplicates."""
        keys = np.empty((len(signatures), self.bands), np.uint64)
        _band_keys(signatures, self.rows, keys)
        return keys


def join_utf8(texts: list[str]) -> tuple[U8, I64]:
    """The texts' UTF-8 bytes, uint8, and their boundaries, int64 (len(texts) + 1,)."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=ends[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def _random_words(seed: int, count: int) -> U32:
    """The upper halves of `count` numbers of splitmix64; numpy's own streams may change between versions."""
    x = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 32)) * _BASE
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)


@njit(cache=True)
def _mix(x: Any) -> Any:
    """Finalizer of splitmix64 (Steele et al. 2014): uint64 to uint64, a permutation."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _sign(data: U8, ends: I64, table: U32, ngram: int, multipliers: U32, offsets: U32, out: U32) -> None:
    shingles = np.empty(_capacity(ends), np.uint32)
    for i in range(ends.size - 1):
        count = _shingles_of(data, ends[i], ends[i + 1], table, ngram, shingles)
        if count:
            padded = -(-count // _LANES) * _LANES
            shingles[count:padded] = shingles[count - 1]
            _minimize(shingles[:padded], multipliers, offsets, out[i])


@njit(cache=True)
def _shingle_sets(data: U8, ends: I64, table: U32, ngram: int) -> tuple[U32, I64]:
    shingles = np.empty(_capacity(ends), np.uint32)
    joined = np.empty((ends[-1] - ends[0]) // 2 + ends.size, np.uint32)
    offsets = np.zeros(ends.size, np.int64)
    for i in range(ends.size - 1):
        count = _shingle(data, ends[i], ends[i + 1], table, ngram, True, shingles)
        distinct = np.unique(shingles[:count])
        offsets[i + 1] = offsets[i] + distinct.size
        joined[offsets[i] : offsets[i + 1]] = distinct
    return joined[: offsets[-1]].copy(), offsets


@njit(cache=True)
def _capacity(ends: I64) -> int:
    """Room for the shingles of the longest text: a word takes two bytes at least, its separator included."""
    longest = 0
    for i in range(ends.size - 1):
        longest = max(longest, ends[i + 1] - ends[i])
    return longest // 2 + 1 + _LANES


@njit(cache=True)
def _minimize(shingles: U32, multipliers: U32, offsets: U32, row: U32) -> None:
    """Lower `row[j]` to the least multipliers[j] * shingle + offsets[j] modulo 2^32."""
    for start in range(0, shingles.size, _BLOCK):
        block = shingles[start : start + _BLOCK]
        for j in range(row.size):
            a, b, least = multipliers[j], offsets[j], row[j]
            for k in range(block.size):  # in this form LLVM keeps vectors of minima; with min() it does not
                value = np.uint32(block[k] * a + b)
                least = value if value < least else least
            row[j] = least


@njit(cache=True)
def _decode(data: U8, i: int) -> tuple[Any, int]:
    """(code point, bytes) of the two- to four-byte sequence at data[i]."""
    lead, second = np.int64(data[i]), np.int64(data[i + 1]) & 0x3F
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | second, 2
    third = np.int64(data[i + 2]) & 0x3F
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | second << 6 | third, 3
    return (lead & 0x07) << 18 | second << 12 | third << 6 | (np.int64(data[i + 3]) & 0x3F), 4


@njit(cache=True)
def _shingles_of(data: U8, start: int, end: int, table: U32, ngram: int, out: U32) -> int:
    """Hashes of the text's shingles, in order, into `out`; returns how many."""
    count: int = _shingle(data, start, end, table, ngram, False, out)
    if 0 < count <= 3 * ngram:  # count + ngram - 1 words
        count = _shingle(data, start, end, table, ngram, True, out)
    return count


@njit(cache=True)
def _shingle(data: U8, start: int, end: int, table: U32, ngram: int, keep_numbers: bool, out: U32) -> int:
    """`_shingles_of` with every number as the same word, or as it is."""
    ring = np.zeros(ngram, np.uint64)
    leaving = np.uint64(1)
    for _ in range(ngram):
        leaving *= _BASE
    rolling, whole, word = np.uint64(0), np.uint64(0), np.uint64(0)
    seen = np.uint32(0)  # flags of the characters of the present word; 0 between words
    place, words, count = 0, 0, 0
    i = start
    while i <= end:
        folded = np.uint32(0)
        if i < end:
            byte = np.uint32(data[i])
            if byte < 0x80:
                folded = table[byte]
                i += 1
            else:
                point, size = _decode(data, i)
                folded = table[point] if point < table.size else IGNORED
                i += size
        else:
            i += 1
        if folded != 0 and folded < ALONE:
            if folded != IGNORED:
                word = (word ^ np.uint64(folded)) * _FNV
                seen |= folded
            continue
        # A separator, a character that is a word, or the end: the word before it is complete.
        for _ in range(2):
            if seen:
                value = _mix(word)
                if seen < LETTER and not keep_numbers:
                    value = _NUMBER
                whole = (whole + value) * _BASE
                rolling = rolling * _BASE + value - ring[place] * leaving
                ring[place] = value
                place = place + 1 if place + 1 < ngram else 0
                words += 1
                if words >= ngram:
                    out[count] = np.uint32(_mix(rolling) >> np.uint64(32))
                    count += 1
                word, seen = np.uint64(0), np.uint32(0)
            if folded == 0:
                break
            word, seen, folded = np.uint64(folded), folded, np.uint32(0)
    if 0 < words < ngram:
        out[0] = np.uint32(_mix(whole) >> np.uint64(32))
        return 1
    return count


@njit(cache=True)
def _band_keys(signatures: U32, rows: int, keys: U64) -> None:
    for i in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            value = np.uint64(band + 1)
            for j in range(band * rows, (band + 1) * rows):
                value = _mix(value * np.uint64(3) + np.uint64(signatures[i, j]))
            keys[i, band] = value
