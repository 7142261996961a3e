"""The word rule: text to tokens, about as spaCy's English tokenizer cuts it.

Text is cut at white space. From each part, punctuation is peeled off at both ends, one sign at a time (a run of dots
at once); what remains is one token if it looks like a URL, and is else cut at dashes between letters, at a full
stop between a small and a capital letter, at commas, colons, slashes between letters. English contractions fall
into two (don't = do + n't), abbreviations keep their full stop. A letter of a script that is written without spaces
is a token of its own, with its combining marks. Punctuation makes tokens too; a *word* is a token that holds more
than signs (`characters.SYMBOL`).

Differs from spaCy in emoticons, a few units and rare URLs (docs/quality.md). Linear; the slowest of the kernels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit

from pipeline.signals import characters as c
from pipeline.signals.affixes import bits_of, cut_infix, cut_prefix, cut_suffix, is_url
from pipeline.signals.english import splits

Array = np.ndarray[Any, Any]

BUILT_ON = {"affixes": "90d34bad", "characters": "31663ff6"}  # see numbering

HAS_LETTER = 1
IS_WORD = 2  # holds more than signs
IS_PUNCTUATION = 4  # categories P* only
IS_TERMINAL = 8  # one sign that ends a sentence

_LONGEST_SPECIAL = 9  # characters; contractions and abbreviations are not longer
_SPECIALS = 4096  # slots of their table, twice their number at least
_SEED = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0x100000001B3)
_ALPHA, _LOWER, _DIGIT, _SPACE, _AFFIX, _MARK = c.ALPHA, c.LOWER, c.DIGIT, c.SPACE, c.AFFIX, c.MARK
_SYMBOL, _PUNCTUATION, _TERMINAL, _UNSPACED, _DOT = c.SYMBOL, c.PUNCTUATION, c.TERMINAL, c.UNSPACED, ord(".")
_LETTER = c.ALPHA | c.UNSPACED


def tokenize(points: Array, ends: Array, english: Array | None = None) -> tuple[Array, Array, Array, Array, Array]:
    """Tokens of concatenated documents.

    points: uint32 code points; ends: int64 (documents,), where each document ends; english: bool (documents,), whose
    contractions and abbreviations are English (all by default). Returns starts and lengths
    (int32, in code points), kinds (uint8, the bits above), hashes (uint64, of the token's code points) of all
    tokens, and int64 (documents,), where each document's tokens end.
    """
    size = len(points)
    starts, lengths, stack = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    kinds, hashes, token_ends = np.empty(size, np.uint8), np.empty(size, np.uint64), np.empty(len(ends), np.int64)
    keys, cuts, edges = _special_table()
    longest = np.where(np.ones(len(ends), bool) if english is None else english, _LONGEST_SPECIAL, 0)
    count = _tokenize(
        points, ends, longest, c.character_table(), keys, cuts, edges, stack, starts, lengths, kinds, hashes, token_ends
    )
    return starts[:count], lengths[:count], kinds[:count], hashes[:count], token_ends


def hash_word(word: str) -> np.uint64:
    """The hash that `tokenize` gives a token."""
    value = int(_SEED)
    for character in word:
        value = ((value ^ ord(character)) * int(_PRIME)) % 2**64
    return np.uint64(value)


@cache
def _special_table() -> tuple[Array, Array, Array]:
    """Hash table of contractions and abbreviations: uint64 keys, uint8 length of the first token.

    The third array, uint16 (2, 256), is a sieve: bit `size` is set where one of that size begins or ends with the
    character (its low eight bits).
    """
    keys, cuts, edges = np.zeros(_SPECIALS, np.uint64), np.zeros(_SPECIALS, np.uint8), np.zeros((2, 256), np.uint16)
    for word, cut in splits().items():
        key = hash_word(word)
        slot = int(key) >> 40 & (_SPECIALS - 1)
        while keys[slot]:
            slot = (slot + 1) & (_SPECIALS - 1)
        keys[slot], cuts[slot] = key, cut
        edges[0, ord(word[0]) & 255] |= 1 << len(word)
        edges[1, ord(word[-1]) & 255] |= 1 << len(word)
    return keys, cuts, edges


@njit(cache=True)
def _known(value: np.uint64, size: int, longest: int, keys: Array, cuts: Array) -> int:
    """Length of the first token of a contraction (all of an abbreviation), 0 for other hashes."""
    if size > longest:
        return 0
    slot = np.int64(value >> np.uint64(40)) & (_SPECIALS - 1)
    while cuts[slot] != 0:  # the smaller of the two arrays
        if keys[slot] == value:
            return int(cuts[slot])
        slot = (slot + 1) & (_SPECIALS - 1)
    return 0


@njit(cache=True, inline="always")
def _special(points: Array, low: int, high: int, longest: int, keys: Array, cuts: Array, edges: Array) -> int:
    """`_known` of a stretch of characters."""
    found, size = 0, high - low
    if 0 < size <= longest and (edges[0, points[low] & 255] & edges[1, points[high - 1] & 255]) >> size & 1:
        value = _SEED
        for i in range(low, high):
            value = (value ^ np.uint64(points[i])) * _PRIME
        found = _known(value, size, longest, keys, cuts)
    return found


@njit(cache=True, inline="always")
def _kind(every: int, some: int, size: int) -> int:
    """A token's kind by the properties that all and some of its characters have."""
    kind = HAS_LETTER if some & _ALPHA else 0
    kind |= 0 if every & _SYMBOL else IS_WORD
    kind |= IS_PUNCTUATION if every & _PUNCTUATION else 0
    return kind | (IS_TERMINAL if every & _TERMINAL and size == 1 else 0)


@njit(cache=True)
def _cut(
    points: Array, low: int, high: int, some: int, longest: int, table: Array, keys: Array, cuts: Array,
    edges: Array, stack: Array, starts: Array, n: int,
) -> int:  # fmt: skip
    """Write where the tokens of a part without white space begin. Returns the number of tokens then."""
    depth, cut, digits = 0, 0, some & _DIGIT > 0
    while low < high:
        cut = _special(points, low, high, longest, keys, cuts, edges)
        if cut:
            break
        prefix = cut_prefix(points, low, high, table)
        suffix = cut_suffix(points, low + prefix, high, table, digits)
        if prefix == 0 and suffix == 0:
            break
        if prefix:
            cut = _special(points, low + prefix, high, longest, keys, cuts, edges)
        if cut:
            suffix = 0
        elif suffix:
            cut = _special(points, low, high - suffix, longest, keys, cuts, edges)
            prefix = 0 if cut else prefix
        if prefix:
            starts[n] = low
            n, low = n + 1, low + prefix
        if suffix:
            stack[depth] = suffix
            depth, high = depth + 1, high - suffix
        if cut:
            break
    if cut:
        starts[n] = low
        n, low = n + 1, low + cut
    elif not (some & _TERMINAL and is_url(points, low, high, table)):
        at = low + 1
        while at < high:
            letter = bits_of(points[at], table) & (_ALPHA | _DIGIT)
            infix = 0 if letter else cut_infix(points, at, low, high, table)
            if infix:
                if at > low:
                    starts[n] = low
                    n += 1
                starts[n] = at
                n, at = n + 1, at + infix
                low = at
            else:
                at += 1
    if low < high:
        starts[n] = low
        n += 1
    for k in range(depth - 1, -1, -1):
        starts[n] = high
        n, high = n + 1, high + stack[k]
    return n


@njit(cache=True)
def _split(points: Array, high: int, table: Array, stack: Array, starts: Array, first: int, n: int) -> int:
    """Cut a part's tokens before and after each letter of an unspaced script. Returns the number of tokens then."""
    tokens = n - first
    stack[:tokens] = starts[first:n]
    n = first
    for k in range(tokens):
        begin = stack[k]
        end = stack[k + 1] if k + 1 < tokens else high
        alone = False
        for i in range(begin, end):
            bits = bits_of(points[i], table)
            if i == begin or ((bits & _UNSPACED or alone) and not bits & _MARK):
                starts[n] = i
                n += 1
                alone = bits & _UNSPACED > 0
    return n


@njit(cache=True)
def _describe(
    points: Array, high: int, table: Array, starts: Array, lengths: Array, kinds: Array, hashes: Array, first: int,
    n: int,
) -> None:  # fmt: skip
    """Write length, kind and hash of tokens that follow each other without a gap up to `high`."""
    for k in range(first, n):
        end = starts[k + 1] if k + 1 < n else high
        every, some, value = 0xFFFF, 0, _SEED
        for i in range(starts[k], end):
            bits = bits_of(points[i], table)
            every &= bits
            some |= bits
            value = (value ^ np.uint64(points[i])) * _PRIME
        lengths[k], kinds[k], hashes[k] = end - starts[k], _kind(every, some, end - starts[k]), value


@njit(cache=True)
def _tokenize(
    points: Array, ends: Array, specials: Array, table: Array, keys: Array, cuts: Array, edges: Array, stack: Array,
    starts: Array, lengths: Array, kinds: Array, hashes: Array, token_ends: Array,
) -> int:  # fmt: skip
    n, i = 0, 0
    for document in range(ends.size):
        end, longest = ends[document], specials[document]
        while i < end:
            bits = bits_of(points[i], table)
            if bits & _SPACE:
                i += 1
                continue
            # Most parts are a word, or a word and a sign: these need no second look.
            low, before, value = i, 0, _SEED
            while bits & _LETTER == _ALPHA:
                value = (value ^ np.uint64(points[i])) * _PRIME
                i += 1
                if i == end:
                    break
                before, bits = bits, bits_of(points[i], table)
            word = i
            if word > low and (word == end or bits & _SPACE):
                if not _known(value, word - low, longest, keys, cuts):
                    starts[n], lengths[n], kinds[n], hashes[n] = low, word - low, HAS_LETTER | IS_WORD, value
                    n += 1
                    continue
            elif word > low and not bits & _UNSPACED and (word + 1 == end or bits_of(points[word + 1], table) & _SPACE):
                sign = np.uint64(points[word])
                if (
                    (bits & _AFFIX or (sign == _DOT and before & _LOWER))
                    and not _known((value ^ sign) * _PRIME, word + 1 - low, longest, keys, cuts)
                    and not _known(value, word - low, longest, keys, cuts)
                ):
                    starts[n], lengths[n], kinds[n], hashes[n] = low, word - low, HAS_LETTER | IS_WORD, value
                    starts[n + 1], lengths[n + 1], kinds[n + 1] = word, 1, _kind(bits, bits, 1)
                    hashes[n + 1] = (_SEED ^ sign) * _PRIME
                    n, i = n + 2, word + 1
                    continue
            some, i = 0, low
            while i < end:
                bits = bits_of(points[i], table)
                if bits & _SPACE:
                    break
                some |= bits
                i += 1
            first = n
            n = _cut(points, low, i, some, longest, table, keys, cuts, edges, stack, starts, n)
            if some & _UNSPACED:
                n = _split(points, i, table, stack, starts, first, n)
            _describe(points, i, table, starts, lengths, kinds, hashes, first, n)
        token_ends[document] = n
    return n
