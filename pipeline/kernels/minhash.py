"""MinHash signatures of UTF-8 texts in one fused pass; kernels only, no I/O.

UTF-8 bytes -> code points -> fold table -> word hashes -> rolling hashes of word n-grams -> minima
of bands x rows permutations. A permutation is a 32-bit multiply-add with an odd multiplier (Dietzfelbinger et al.
1997, "A reliable randomized algorithm for the closest-pair problem"); multipliers come from splitmix64. All arithmetic
is on integers of fixed width, so signatures do not depend on platform, numba, vector width, threads or Python's
hash seed; tests/pipeline/kernels/test_minhash.py holds golden values.

- A word is a run of letters, digits and underscores; in signatures a number counts as the word "number", whatever its
  digits. A character of a script written without spaces is a word.
- A text with fewer words than `ngram` is one shingle: it is like another only if it has the same words. A text with
  fewer than 4 x ngram words is signed with its numbers as they are: they are too much of it to be ignored (otherwise
  "All links, part 1/3" and "All links, part 2/3" would be equal).
- A text without words has all hashes EMPTY and is like no other.

Cost: per n-gram and 16 hashes one vector multiply, add and minimum (AVX-512; the same results without), beside some
cycles a byte for words: benchmarks/minhash.py. The first call in a fresh checkout compiles for some seconds; numba
keeps the result in __pycache__ for the next process.

What each character is to MinHash: part of a word (folded), a word of its own, nothing, or a separator.

Case, accents and compatibility forms (full-width, mathematical) fall together. The table is built from Unicode 3.2,
the frozen version that every Python carries (`unicodedata.ucd_3_2_0`), so that signatures do not change with
Python's own version; what was assigned later is a letter, unfolded, but for the blocks of symbols. Characters of
scripts written without spaces stand alone. Cost: 30 ms once a process, 0.8 MB.
"""

from __future__ import annotations

import importlib
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from pipeline.kernels.compiled import kernel

U8 = np.ndarray[Any, np.dtype[np.uint8]]
U32 = np.ndarray[Any, np.dtype[np.uint32]]
U64 = np.ndarray[Any, np.dtype[np.uint64]]
I64 = np.ndarray[Any, np.dtype[np.int64]]

EMPTY = np.uint32(0xFFFFFFFF)
VERSION = 4  # of everything that decides a signature; an index of another version cannot be compared
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd; base of the rolling polynomial modulo 2^64
_FNV = np.uint64(0x100000001B3)
_NUMBER = np.uint64(0xD6E8FEB86659FD93)  # the word that stands for any number
_LANES = 64  # shingles are padded to whole vectors (4 of 16 x 32 bits)
_BLOCK = 2048  # shingles whose minima are taken at a time: 8 kB stay in the first cache
_CHUNK = 1 << 20  # bytes of text signed at a time: their shingles stay in the second or third cache


@dataclass(frozen=True)
class Shingles:
    """Hashes of the word n-grams of several texts, in order; those of text i stand at bounds[i] : bounds[i + 1].

    alike: uint32, every number the same word (but in a short text), which signatures sample; exact: uint32 of the same
    size, numbers as they are; bounds: int64 (texts + 1,).
    """

    alike: U32
    exact: U32
    bounds: I64

    def sets(self) -> tuple[U32, I64]:
        """Sorted distinct hashes of each text, joined, and int64 offsets (texts + 1,), of `exact`.

        Two pages of a template that differ in their numbers are thus as unlike as these make them; of texts without
        numbers, signatures estimate exactly the Jaccard similarity of these sets (but for collisions of 32-bit hashes).
        """
        owner = np.repeat(np.arange(len(self.bounds) - 1, dtype=np.uint64), np.diff(self.bounds))
        keys = np.sort(owner << np.uint64(32) | self.exact)
        keys = keys[np.concatenate([keys[:1] == keys[:1], keys[1:] != keys[:-1]])]
        counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(self.bounds) - 1)
        return keys.astype(np.uint32), np.concatenate([[0], np.cumsum(counts)])


def _load_numba_without_scipy() -> None:
    """Spare a process 0.3 s: numba's first kernel imports scipy.linalg, only to see whether np.dot is to be had.

    A kernel with np.dot asks for it again when it is compiled.
    """
    if not {"scipy.linalg", "numba.np.arraymath"} & sys.modules.keys():
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # importing it now fails
        try:
            arraymath = importlib.import_module("numba.np.arraymath")
        finally:
            del sys.modules["scipy.linalg"]
        arraymath._HAVE_BLAS = True  # type: ignore[attr-defined]


_load_numba_without_scipy()


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
        parts = [self.minima(self.shingles(data, part)) for part in _chunks(ends)]
        return np.concatenate([np.empty((0, self.bands * self.rows), np.uint32), *parts])

    def shingles(self, data: U8, ends: I64) -> Shingles:
        """Shingles of texts as `signatures_utf8` takes them: 4 bytes a byte of text while it runs, then 8 a word."""
        room = int(ends[-1] - ends[0]) // 2 + len(ends)  # a word takes two bytes at least, its separator included
        alike, exact, bounds = np.empty(room, np.uint32), np.empty(room, np.uint32), np.zeros(len(ends), np.int64)
        _shingle(data, ends, fold_table(), self.ngram, alike, exact, bounds)
        return Shingles(alike[: bounds[-1]], exact[: bounds[-1]], bounds)

    def minima(self, shingles: Shingles) -> U32:
        """Signatures of texts whose shingles are at hand."""
        out = np.full((len(shingles.bounds) - 1, self.bands * self.rows), EMPTY, np.uint32)
        _minimize(shingles.alike, shingles.bounds, self._multipliers, self._offsets, out)
        return out

    def band_keys(self, signatures: U32) -> U64:
        """uint64 (documents, bands): hash of each band's rows; equal keys are candidate duplicates."""
        rows = signatures.reshape(-1, self.bands, self.rows).astype(np.uint64)
        keys = np.broadcast_to(np.arange(1, self.bands + 1, dtype=np.uint64), rows.shape[:2])
        for j in range(self.rows):
            keys = _mix.py_func(keys * np.uint64(3) + rows[:, :, j])
        return keys


def join_utf8(texts: list[str]) -> tuple[U8, I64]:
    """The texts' UTF-8 bytes, uint8, and their boundaries, int64 (len(texts) + 1,)."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=ends[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def _chunks(ends: I64) -> Iterator[I64]:
    """`ends` of consecutive texts of about _CHUNK bytes together."""
    start = 0
    while start < len(ends) - 1:
        stop = max(int(np.searchsorted(ends, ends[start] + _CHUNK, side="right")) - 1, start + 1)
        yield ends[start : stop + 1]
        start = stop


def _random_words(seed: int, count: int) -> U32:
    """The upper halves of `count` numbers of splitmix64; numpy's own streams may change between versions."""
    x = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 32)) * _BASE
    words: U32 = (_mix.py_func(x) >> np.uint64(32)).astype(np.uint32)
    return words


@kernel()
def _mix(x: Any) -> Any:
    """Finalizer of splitmix64 (Steele et al. 2014): uint64 to uint64, a permutation."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


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
def _decode(data: U8, i: int) -> tuple[Any, int]:
    """(code point, bytes) of the two- to four-byte sequence at data[i]."""
    lead, second = np.int64(data[i]), np.int64(data[i + 1]) & 0x3F
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | second, 2
    third = np.int64(data[i + 2]) & 0x3F
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | second << 6 | third, 3
    return (lead & 0x07) << 18 | second << 12 | third << 6 | (np.int64(data[i + 3]) & 0x3F), 4


@kernel()
def _shingle(data: U8, ends: I64, table: U32, ngram: int, alike: U32, exact: U32, bounds: I64) -> None:
    """Fill the three columns of `Shingles`; bounds[0] is 0."""
    ring = np.zeros((ngram, 2), np.uint64)  # hashes of the last words: numbers alike, and as they are
    leaving = np.uint64(1)
    for _ in range(ngram):
        leaving *= _BASE
    count = 0
    for text in range(ends.size - 1):
        first, words, place = count, 0, 0
        rolling, rolling_exact, whole, word = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
        seen = np.uint32(0)  # flags of the characters of the present word; 0 between words
        for k in range(ngram):
            ring[k, 0], ring[k, 1] = np.uint64(0), np.uint64(0)
        i, end = ends[text], ends[text + 1]
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
                    value_alike = _NUMBER if seen < LETTER else value
                    whole = (whole + value) * _BASE
                    rolling = rolling * _BASE + value_alike - ring[place, 0] * leaving
                    rolling_exact = rolling_exact * _BASE + value - ring[place, 1] * leaving
                    ring[place, 0], ring[place, 1] = value_alike, value
                    place = place + 1 if place + 1 < ngram else 0
                    words += 1
                    if words >= ngram:
                        alike[count] = np.uint32(_mix(rolling) >> np.uint64(32))
                        exact[count] = np.uint32(_mix(rolling_exact) >> np.uint64(32))
                        count += 1
                    word, seen = np.uint64(0), np.uint32(0)
                if folded == 0:
                    break
                word, seen, folded = np.uint64(folded), folded, np.uint32(0)
        if 0 < words < ngram:
            exact[count] = np.uint32(_mix(whole) >> np.uint64(32))
            count += 1
        if words < 4 * ngram:
            for k in range(first, count):
                alike[k] = exact[k]
        bounds[text + 1] = count


# An entry is 0 (separates words), IGNORED, or the folded character with flags; a digit has none.
LETTER = np.uint32(1 << 30)
ALONE = np.uint32(1 << 31)
IGNORED = np.uint32(1 << 29)

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
_KEPT_MARKS = (0, 9)  # combining classes of vowel signs and viramas; all others are accents, tones and points


@cache
def fold_table() -> U32:
    """uint32 (SIZE,): entry of each code point."""
    table = np.arange(SIZE, dtype=np.uint32) | LETTER
    for low, high in _SYMBOLS:
        table[low : high + 1] = 0
    for point in chain.from_iterable(range(low, high + 1) for low, high in _FOLDED):
        if _UNICODE.category(chr(point)) != "Cn":
            table[point] = _entry(chr(point))
    table[0xFE00:0xFE10] = IGNORED  # variation selectors
    table[0xAD] = IGNORED  # soft hyphen
    table[ord("_")] |= np.uint32(ord("_")) | LETTER  # joins words, as `\w` has it: names in code stay whole
    plain = table & np.uint32(0x1FFFFF)
    for low, high in _UNSPACED:
        letters = (table & LETTER > 0) & (plain >= low) & (plain <= high)
        table[letters] |= ALONE
    return table


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
