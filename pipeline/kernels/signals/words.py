"""The word rule: text to tokens, about as spaCy's English tokenizer cuts it.

Text is cut at white space. From each part, punctuation is peeled off at both ends, one sign at a time (a run of dots
at once); what remains is one token if it looks like a URL, and is else cut at dashes between letters, at a full
stop between a small and a capital letter, at commas, colons, slashes between letters. English contractions fall
into two (don't = do + n't), abbreviations keep their full stop. A letter of a script that is written without spaces
is a token of its own, with its combining marks. Punctuation makes tokens too; a *word* is a token that holds more
than signs (`characters.SYMBOL`).

Differs from spaCy in emoticons, a few units and rare URLs (docs/quality.md). Linear.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, inner, kernel
from pipeline.kernels.signals import characters
from pipeline.kernels.signals.affixes import bits_of, cut_infix, cut_prefix, cut_suffix, is_url, splits
from pipeline.kernels.signals.chunks import FOREIGN, OTHER, Parts, scan
from pipeline.kernels.signals.numbering import PRIME, SEED, number, slots_for

Array = np.ndarray[Any, Any]


HAS_LETTER = 1
IS_WORD = 2  # holds more than signs
IS_PUNCTUATION = 4  # categories P* only
IS_TERMINAL = 8  # one sign that ends a sentence
# How a part goes on counting sentences: whether it begins one if it follows an end, whether it ends in one, whether
# it is signs only; from bit SENTENCES_SHIFT on, how many begin within.
BEGINS, ENDS, IS_SIGNS, SENTENCES_SHIFT = 1, 2, 4, 3

_LONGEST_SPECIAL = 9  # characters; contractions and abbreviations are not longer
_SPECIALS = 4096  # slots of their table, twice their number at least
_ALPHA, _LOWER, _DIGIT, _MARK, _AFFIX, _DOT = (
    characters.ALPHA,
    characters.LOWER,
    characters.DIGIT,
    characters.MARK,
    characters.AFFIX,
    ord("."),
)
_SYMBOL, _PUNCTUATION, _TERMINAL, _UNSPACED = (
    characters.SYMBOL,
    characters.PUNCTUATION,
    characters.TERMINAL,
    characters.UNSPACED,
)


class Tokens(NamedTuple):
    """Tokens of the different parts of a batch, and the different ones among these.

    starts: int32, in code points; lengths: int32; kinds: uint8, the bits above; hashes: uint64; numbers: uint32, which
    of the different tokens each is; firsts: int32 (different parts + 1,), where each part's tokens begin; sentences:
    int32 (different parts,), see BEGINS; samples: int32 (different tokens,), a token of each.
    """

    starts: Array
    lengths: Array
    kinds: Array
    hashes: Array
    numbers: Array
    firsts: Array
    sentences: Array
    samples: Array


def cut(points: Array, parts: Parts) -> Tokens:
    """Tokens of different parts: English contractions and abbreviations hold where `parts.keys` are English."""
    most, different = int(parts.sizes.sum()), len(parts.sizes)
    starts, lengths, scratch, numbers = *np.empty((3, most), np.int32), np.empty(most, np.uint32)
    kinds, hashes = np.empty(most, np.uint8), np.empty(most, np.uint64)
    firsts, sentences = np.empty(different + 1, np.int32), np.empty(different, np.int32)
    tokens = Tokens(starts, lengths, kinds, hashes, numbers, firsts, sentences, scratch)
    count = _cut_all(points, parts, characters.character_table(), *_special_table(), tokens)
    samples = scratch[: _different(hashes[:count], numbers, scratch, slots_for(count))]
    return Tokens._make([*(array[:count] for array in tokens[:5]), firsts, sentences, samples])


def tokenize(points: Array, ends: Array, english: Array | None = None) -> tuple[Array, Array, Array, Array, Array]:
    """Tokens of concatenated documents.

    points: uint32 code points; ends: int64 (documents,), where each document ends; english: bool (documents,), whose
    contractions and abbreviations are English (all by default). Returns starts and lengths
    (int32, in code points), kinds (uint8, the bits above), hashes (uint64, of the token's code points) of all
    tokens, and int64 (documents,), where each document's tokens end.
    """
    parts, _ = scan(points, ends, np.ones(len(ends), bool) if english is None else english)
    tokens = cut(points, parts)
    counts = np.diff(tokens.firsts)[parts.ids]
    last = np.cumsum(counts)
    within = np.arange(last[-1] if len(last) else 0) - np.repeat(last - counts, counts)
    taken = np.repeat(tokens.firsts[parts.ids], counts) + within
    moved = np.repeat(parts.starts - parts.firsts[parts.ids], counts)
    starts = tokens.starts[taken] + moved
    token_ends = np.concatenate([[0], last])[parts.ends]
    return starts, tokens.lengths[taken], tokens.kinds[taken], tokens.hashes[taken], token_ends


def hash_word(word: str) -> np.uint64:
    """The hash that a token has."""
    value = int(SEED)
    for character in word:
        value = ((value ^ ord(character)) * int(PRIME)) % 2**64
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


@inner
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


@inner
def _special(points: Array, low: int, high: int, longest: int, keys: Array, cuts: Array, edges: Array) -> int:
    """`_known` of a stretch of characters."""
    found, size = 0, high - low
    if 0 < size <= longest and (edges[0, points[low] & 255] & edges[1, points[high - 1] & 255]) >> size & 1:
        value = SEED
        for point in points[low:high]:
            value = (value ^ np.uint64(point)) * PRIME
        found = _known(value, size, longest, keys, cuts)
    return found


@inner
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


@inner
def _split(points: Array, high: int, table: Array, stack: Array, starts: Array, first: int, n: int) -> int:
    """Cut a part's tokens before and after each letter of an unspaced script. Returns the number of tokens then."""
    tokens = n - first
    for k in range(tokens):
        stack[k] = starts[first + k]
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


@inner
def _kind(every: int, some: int, size: int) -> int:
    """A token's kind by the properties that all and some of its characters have."""
    kind = HAS_LETTER if some & _ALPHA else 0
    kind |= 0 if every & _SYMBOL else IS_WORD
    kind |= IS_PUNCTUATION if every & _PUNCTUATION else 0
    return kind | (IS_TERMINAL if every & _TERMINAL and size == 1 else 0)


@inner
def _describe(points: Array, high: int, table: Array, tokens: Tokens, first: int, n: int) -> None:
    """Write length, kind and hash of tokens that follow each other without a gap up to `high`."""
    for k in range(first, n):
        end = tokens.starts[k + 1] if k + 1 < n else high
        every, some, value = 0xFFFF, 0, SEED
        for point in points[tokens.starts[k] : end]:
            bits = bits_of(point, table)
            every &= bits
            some |= bits
            value = (value ^ np.uint64(point)) * PRIME
        size = end - tokens.starts[k]
        tokens.lengths[k], tokens.kinds[k], tokens.hashes[k] = size, _kind(every, some, size), value


@inner
def _sentences(kinds: Array) -> int:
    """How a part goes on counting sentences: one begins with the first token that is no sign after a terminal one."""
    begun, begins, ended, signs = 0, 0, 0, IS_SIGNS
    for kind in kinds:
        if kind & IS_TERMINAL:
            ended = ENDS
        elif not kind & IS_PUNCTUATION:
            if ended:
                begun += 1
            elif signs:
                begins = BEGINS
            ended, signs = 0, 0
    return begins | ended | signs | begun << SENTENCES_SHIFT


@inner
def _word_and_sign(
    points: Array, low: int, high: int, table: Array, longest: int, keys: Array, cuts: Array, tokens: Tokens, n: int
) -> int:
    """Write both tokens of a part made of letters and a sign at its end, the commonest beside single words; nothing if
    it is none. Returns the number of tokens then."""
    sign, end = points[high - 1], high - 1
    bits, before, value = bits_of(sign, table), 0, SEED
    if end == low or not bits & (_AFFIX | _TERMINAL):
        return n
    for point in points[low:end]:
        before = bits_of(point, table)
        if before & (_ALPHA | _UNSPACED) != _ALPHA:
            return n
        value = (value ^ np.uint64(point)) * PRIME
    whole = (value ^ np.uint64(sign)) * PRIME
    if not (bits & _AFFIX or (sign == _DOT and before & _LOWER)) or _known(whole, high - low, longest, keys, cuts):
        return n
    if _known(value, end - low, longest, keys, cuts):
        return n
    tokens.starts[n], tokens.lengths[n], tokens.kinds[n], tokens.hashes[n] = low, end - low, HAS_LETTER | IS_WORD, value
    tokens.starts[n + 1], tokens.lengths[n + 1], tokens.kinds[n + 1] = end, 1, _kind(bits, bits, 1)
    tokens.hashes[n + 1] = (SEED ^ np.uint64(sign)) * PRIME
    return n + 2


@kernel(**UNCOUNTED, error_model="numpy")
def _cut_all(points: Array, parts: Parts, table: Array, keys: Array, cuts: Array, edges: Array, tokens: Tokens) -> int:
    n, stack = 0, tokens.samples
    for k in range(parts.sizes.size):
        first, low, size, some = n, parts.firsts[k], parts.sizes[k], int(parts.some[k])
        high = low + size
        longest = 0 if some & OTHER else _LONGEST_SPECIAL
        value = parts.keys[k] ^ FOREIGN if some & OTHER else parts.keys[k]
        letters = parts.every[k] & _ALPHA and not some & _UNSPACED
        if letters and not _known(value, size, longest, keys, cuts):
            tokens.starts[n], tokens.lengths[n], tokens.hashes[n] = low, size, value
            tokens.kinds[n] = HAS_LETTER | IS_WORD
            n += 1
            tokens.firsts[k], tokens.sentences[k] = first, BEGINS
            continue
        n = _word_and_sign(points, low, high, table, longest, keys, cuts, tokens, n)
        if n == first:
            n = _cut(points, low, high, some, longest, table, keys, cuts, edges, stack, tokens.starts, n)
            if some & _UNSPACED:
                n = _split(points, high, table, stack, tokens.starts, first, n)
            _describe(points, high, table, tokens, first, n)
        tokens.firsts[k] = first
        tokens.sentences[k] = _sentences(tokens.kinds[first:n])
    tokens.firsts[parts.sizes.size] = n
    return n


@kernel(**UNCOUNTED, error_model="numpy")
def _different(hashes: Array, numbers: Array, samples: Array, slots: Array) -> int:
    """Number tokens, and write one of each number."""
    different, seen = int(number(hashes, numbers, samples, slots)), 0
    for i in range(hashes.size):
        if numbers[i] == seen:
            samples[seen] = i
            seen += 1
    return different
