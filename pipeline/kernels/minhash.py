"""MinHash signatures of UTF-8 texts in one fused pass.

UTF-8 bytes -> code points -> folded characters -> word hashes -> rolling hashes of word n-grams (shingles) -> minima
of bands x rows permutations. A permutation is a 32-bit multiply-add with an odd multiplier (Dietzfelbinger et al.
1997, "A reliable randomized algorithm for the closest-pair problem"); multipliers come from splitmix64. All arithmetic
is on integers of fixed width, so signatures do not depend on platform, numba, vector width, threads or Python's
hash seed; tests/pipeline/kernels/test_minhash.py holds golden values.

- A word is a run of letters, digits and underscores; in signatures a number counts as the word "number", whatever its
  digits. Case, accents and compatibility forms (full-width, mathematical) do not count, nor whether a character is
  composed (NFC, NFD). A character of a script written without spaces is a word.
- Characters are folded as of Unicode 3.2, the frozen version that every Python carries (`unicodedata.ucd_3_2_0`), so
  that signatures do not change with Python's own version; what was assigned later is a letter, unfolded, but for the
  blocks of symbols.
- A text with fewer words than `ngram` is one shingle: it equals only a text of the same words. A text with fewer than
  4 x ngram words is signed with its numbers as they are, for they are a large part of it (otherwise "All links, part
  1/3" and "All links, part 2/3" would be equal).
- A text without words has all hashes EMPTY and is similar to no other.

Cost: per n-gram and 16 hashes one vector multiply, add and minimum (AVX-512; the same results without), and some
cycles a byte for words: benchmarks/minhash.py. The fold table takes 30 ms once a process, and 0.8 MB.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from pipeline.kernels.compiled import item, kept_table, kernel
from pipeline.kernels.hashing import GOLDEN, PRIME, decode, join_utf8, splitmix

U8 = np.ndarray[Any, np.dtype[np.uint8]]
U32 = np.ndarray[Any, np.dtype[np.uint32]]
U64 = np.ndarray[Any, np.dtype[np.uint64]]
I64 = np.ndarray[Any, np.dtype[np.int64]]

EMPTY = np.uint32(0xFFFFFFFF)
VERSION = 5  # of everything that decides a signature; an index of another version cannot be compared
# Entries of the fold table: 0 (separates words), IGNORED, or the folded character with flags; a digit has none.
# SEVERAL: what the character is composed of; the entries of its parts begin at this position of `fold_parts`.
SEVERAL, IGNORED, LETTER, ALONE = np.uint32(1 << 28), np.uint32(1 << 29), np.uint32(1 << 30), np.uint32(1 << 31)
_NUMBER = np.uint64(0xD6E8FEB86659FD93)  # the word that stands for any number
_LANES = 64  # shingles are padded to full vectors (4 of 16 x 32 bits)
_BLOCK = 2048  # shingles whose minima are taken at a time: 8 kB stay in the first cache
_CHUNK = 1 << 20  # bytes of text signed at a time: their shingles stay in the second or third cache


@dataclass(frozen=True)
class Shingles:
    """Hashes of the word n-grams of several texts, in order: text i has bounds[i] : bounds[i + 1].

    alike: uint32, every number the same word (but in a short text), which signatures sample; exact: uint32 of the same
    size, numbers as they are; bounds: int64 (texts + 1,).
    """

    alike: U32
    exact: U32
    bounds: I64

    def sets(self) -> tuple[U32, I64]:
        """Sorted distinct hashes in `exact` of each text, joined, and int64 offsets (texts + 1,).

        Digits count here, so pages of a template that differ only in numbers are not identical. For texts without
        digits the signatures estimate the Jaccard similarity of exactly these sets (but for hash collisions).
        """
        keys = np.repeat(np.arange(len(self.bounds) - 1, dtype=np.uint64) << np.uint64(32), np.diff(self.bounds))
        keys |= self.exact
        keys.sort()
        values, offsets = np.empty(len(keys), np.uint32), np.zeros(len(self.bounds), np.int64)
        _distinct(keys, values, offsets)
        np.cumsum(offsets, out=offsets)
        return values[: offsets[-1]], offsets


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
        """Signatures of texts in `data`, valid UTF-8: text i is data[ends[i] : ends[i + 1]] (as Arrow's offsets)."""
        parts = [self.minima(self.shingles(data, part)) for part in _chunks(ends)]
        return np.concatenate([np.empty((0, self.bands * self.rows), np.uint32), *parts])

    def shingles(self, data: U8, ends: I64) -> Shingles:
        """Shingles of texts given as to `signatures_utf8`. Memory: 4 bytes a byte of text meanwhile, then 8 a word."""
        room = int(ends[-1] - ends[0]) // 2 + len(ends)  # a word takes two bytes at least, its separator included
        alike, exact, bounds = np.empty(room, np.uint32), np.empty(room, np.uint32), np.zeros(len(ends), np.int64)
        _shingle(data, ends, fold_table(), fold_parts(), self.ngram, alike, exact, bounds)
        return Shingles(alike[: bounds[-1]], exact[: bounds[-1]], bounds)

    def minima(self, shingles: Shingles) -> U32:
        """Signatures of texts by their shingles, uint32 (texts, bands * rows)."""
        out = np.full((len(shingles.bounds) - 1, self.bands * self.rows), EMPTY, np.uint32)
        _minimize(shingles.alike, shingles.bounds, self._multipliers, self._offsets, out)
        return out

    def band_keys(self, signatures: U32) -> U64:
        """uint64 (documents, bands): hash of each band's rows; equal keys are candidate duplicates."""
        keys = np.empty((len(signatures), self.bands), np.uint64)
        _band_keys(signatures, keys)
        return keys


def _chunks(ends: I64) -> Iterator[I64]:
    """`ends` of consecutive texts of about _CHUNK bytes together."""
    start = 0
    while start < len(ends) - 1:
        stop = max(int(np.searchsorted(ends, ends[start] + _CHUNK, side="right")) - 1, start + 1)
        yield ends[start : stop + 1]
        start = stop


def _random_words(seed: int, count: int) -> U32:
    """The upper halves of `count` numbers of splitmix64; numpy's own streams may change between versions."""
    x = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 32)) * GOLDEN
    words: U32 = (splitmix.py_func(x) >> np.uint64(32)).astype(np.uint32)
    return words


@kernel()
def _distinct(keys: U64, values: U32, counts: I64) -> None:
    """The lower halves of sorted different keys, and in counts[i + 1] how many have the upper half i."""
    found = 0
    for k in range(keys.size):
        if k == 0 or keys[k] != keys[k - 1]:
            values[found] = np.uint32(keys[k])
            counts[np.int64(keys[k] >> np.uint64(32)) + 1] += 1
            found += 1


@kernel()
def _band_keys(signatures: U32, keys: U64) -> None:
    rows = signatures.shape[1] // keys.shape[1]
    for i in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            key = np.uint64(band + 1)
            for j in range(band * rows, band * rows + rows):
                key = splitmix(key * np.uint64(3) + np.uint64(signatures[i, j]))
            keys[i, band] = key


@kernel()
def _minimize(shingles: U32, bounds: I64, multipliers: U32, offsets: U32, out: U32) -> None:
    """Lower out[i, j] to the least multipliers[j] * shingle + offsets[j] modulo 2^32 of text i."""
    block = np.empty(_BLOCK, np.uint32)
    for i in range(out.shape[0]):
        for start in range(bounds[i], bounds[i + 1], _BLOCK):
            count = min(_BLOCK, bounds[i + 1] - start)
            size = -(-count // _LANES) * _LANES
            for k in range(count):
                block[k] = shingles[start + k]
            for k in range(count, size):
                block[k] = block[0]
            for j in range(out.shape[1]):
                a, b, least = multipliers[j], offsets[j], out[i, j]
                for k in range(size):  # in this form LLVM keeps vectors of minima; with min() it does not
                    value = np.uint32(block[k] * a + b)
                    least = value if value < least else least
                out[i, j] = least


@kernel()
def _shingle(
    data: U8, ends: I64, table: U32, parts: U32, ngram: int, alike: U32, exact: U32, bounds: I64
) -> None:  # fmt: skip
    """Fill the three columns of `Shingles`; bounds[0] is 0."""
    ring = np.zeros((ngram, 2), np.uint64)  # hashes of the last words: numbers alike, and as they are
    leaving = np.uint64(1)
    for _ in range(ngram):
        leaving *= GOLDEN
    count = 0
    for text in range(ends.size - 1):
        first, words, oldest = count, 0, 0
        rolling, rolling_exact, all_words, word = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
        seen = np.uint32(0)  # flags of the characters of the present word; 0 between words
        ring[:] = np.uint64(0)
        i, end, part = ends[text], ends[text + 1], np.int64(0)
        while i <= end:
            if part == 0:
                while i < end and item(data, i) < 0x80 and item(table, item(data, i)) != 0:  # a word of ASCII
                    word = (word ^ np.uint64(item(table, item(data, i)))) * PRIME
                    seen |= item(table, item(data, i))
                    i += 1
            folded = np.uint32(0)
            if part == 0:
                size = 1
                if i < end:
                    point, size = decode(data, i)
                    folded = table[point] if point < table.size else IGNORED
                    if folded & SEVERAL:
                        part = np.int64(folded ^ SEVERAL)
                i += size
            if part > 0:
                while parts[part] < ALONE and parts[part + 1] != 0:
                    word = (word ^ np.uint64(parts[part])) * PRIME
                    seen |= parts[part]
                    part += 1
                folded = parts[part]
                part = part + 1 if parts[part + 1] else np.int64(0)
            if folded != 0 and folded < ALONE:
                if folded != IGNORED:
                    word = (word ^ np.uint64(folded)) * PRIME
                    seen |= folded
                continue
            # A separator, a character that is a word, or the end: the word before it is complete.
            for _ in range(2):
                if seen:
                    value = splitmix(word)
                    value_alike = _NUMBER if seen < LETTER else value
                    all_words = (all_words + value) * GOLDEN
                    rolling = rolling * GOLDEN + value_alike - ring[oldest, 0] * leaving
                    rolling_exact = rolling_exact * GOLDEN + value - ring[oldest, 1] * leaving
                    ring[oldest, 0], ring[oldest, 1] = value_alike, value
                    oldest = oldest + 1 if oldest + 1 < ngram else 0
                    words += 1
                    if words >= ngram:
                        alike[count] = np.uint32(splitmix(rolling) >> np.uint64(32))
                        same = rolling == rolling_exact  # no number among these words
                        exact[count] = alike[count] if same else np.uint32(splitmix(rolling_exact) >> np.uint64(32))
                        count += 1
                    word, seen = np.uint64(0), np.uint32(0)
                if folded == 0:
                    break
                word, seen, folded = np.uint64(folded), folded, np.uint32(0)
        if 0 < words < ngram:
            exact[count] = np.uint32(splitmix(all_words) >> np.uint64(32))
            count += 1
        if words < 4 * ngram:
            alike[first:count] = exact[first:count]
        bounds[text + 1] = count


SIZE = 0x32000  # the planes that hold letters; characters above (tags, private use) are ignored
_UNICODE = unicodedata.ucd_3_2_0
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),
    (0x20000, 0x31FFF),
)
_SYMBOLS = ((0x2000, 0x2BFF), (0x2E00, 0x2E7F), (0x3000, 0x303F), (0xFE10, 0xFE1F), (0x1F000, 0x1FBFF))
# Where Unicode 3.2 knows anything but plain letters; the rest is Han, Hangul, Yi and what came later.
_FOLDED = ((0, 0x33FF), (0xD800, 0xFFFF), (0x10300, 0x1044F), (0x1D000, 0x1D7FF))
_HANGUL = (0xAC00, 0xD7A3)  # syllables
_KEPT_MARKS = (0, 9)  # combining classes of vowel signs and viramas; all others are accents, tones and points


def fold_table() -> U32:
    """uint32 (SIZE,): entry of each code point."""
    return _fold_tables()[:SIZE]


def fold_parts() -> U32:
    """uint32: entries of the parts of composed characters, zeros before the first and between characters."""
    return _fold_tables()[SIZE:]


@kept_table(_UNICODE.unidata_version)
def _fold_tables() -> U32:
    table = np.arange(SIZE, dtype=np.uint32) | LETTER
    for low, high in _SYMBOLS:
        table[low : high + 1] = 0
    for point in chain.from_iterable(range(low, high + 1) for low, high in _FOLDED):
        if _UNICODE.category(chr(point)) != "Cn":
            table[point] = _entry(chr(point))
    table[0xFE00:0xFE10] = IGNORED  # variation selectors
    table[[0xAD, 0x640, 0x7FA]] = IGNORED  # soft hyphen; strokes that stretch Arabic and N'Ko words
    table[ord("_")] |= np.uint32(ord("_")) | LETTER  # joins words, as `\w` has it: names in code stay whole
    plain = table & np.uint32(0x1FFFFF)
    for low, high in _UNSPACED:
        letters = (table & LETTER > 0) & (plain >= low) & (plain <= high)
        table[letters] |= ALONE
    parts = [0]
    for point in chain.from_iterable(range(low, high + 1) for low, high in (*_FOLDED, _HANGUL)):
        entries = [table[ord(part)] for part in _UNICODE.normalize("NFD", chr(point))]
        if sum(entry != IGNORED for entry in entries) > 1:
            table[point] = SEVERAL | np.uint32(len(parts))
            parts += [*(entry for entry in entries if entry != IGNORED), 0]
    return np.concatenate([table, np.array(parts, np.uint32)])


def _entry(character: str) -> int:
    category = _UNICODE.category(character)
    if category[0] == "N":
        base = _UNICODE.normalize("NFKD", character)
        return ord(base if len(base) == 1 else character)
    if category[0] == "L":
        return ord(_base(character)) | int(LETTER)
    if category[0] == "M" and category != "Me" and _UNICODE.combining(character) in _KEPT_MARKS:
        return ord(character) | int(LETTER)
    return int(IGNORED) if category[0] == "M" or category == "Cf" else 0


def _base(letter: str) -> str:
    """The letter without case and accents; itself where it stands for several (a ligature)."""
    folded = _UNICODE.normalize("NFKD", letter.casefold())
    accents = all(_UNICODE.category(mark)[0] == "M" for mark in folded[1:])
    return folded[0] if accents else letter
