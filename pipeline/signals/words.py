"""The word rule: text to tokens, about as spaCy's English tokenizer cuts it, at hundreds of times its speed.

Text is cut at white space. From each part, punctuation is peeled off at both ends, one sign at a time (a run of dots
at once); what remains is one token if it looks like a URL, and is else cut at dashes between letters, at a full
stop between a small and a capital letter, at commas, colons, slashes between letters. English contractions fall
into two (don't = do + n't), abbreviations keep their full stop. A letter of a script that is written without spaces
is a token of its own, with its combining marks. Punctuation makes tokens too; a *word* is a token that holds more
than signs (`characters.SYMBOL`).

Differs from spaCy in emoticons, a few units and rare URLs. Costs about 8 ns a character.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit

from pipeline.signals import characters as c
from pipeline.signals.english import splits

Array = np.ndarray[Any, Any]

HAS_LETTER = 1
IS_WORD = 2  # holds more than signs
IS_PUNCTUATION = 4  # categories P* only
IS_TERMINAL = 8  # one sign that ends a sentence

_LONGEST_SPECIAL = 9  # characters; contractions and abbreviations are not longer
_SPECIALS = 4096  # slots of their table, twice their number at least
_SEED = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0x100000001B3)
_ALPHA, _LOWER, _UPPER, _DIGIT = c.ALPHA, c.LOWER, c.UPPER, c.DIGIT
_SPACE, _AFFIX, _PREFIX, _SYMBOL, _MARK = c.SPACE, c.AFFIX, c.PREFIX, c.SYMBOL, c.MARK
_PUNCTUATION, _TERMINAL, _UNSPACED, _QUOTE = c.PUNCTUATION, c.TERMINAL, c.UNSPACED, c.QUOTE
_DOT, _PLUS, _MINUS, _CARET, _STAR, _COMMA, _AT, _COLON, _SLASH = (ord(sign) for sign in ".+-^*,@:/")
_UNDERSCORE, _PERCENT, _PIPE, _SQUARED, _APOSTROPHE, _QUOTE_MARK = ord("_"), ord("%"), ord("|"), 0xB2, 0x27, 0x2019
_ELLIPSIS, _EN_DASH, _EM_DASH, _TILDE, _CLOSE = 0x2026, 0x2013, 0x2014, ord("~"), ord(")")


def tokenize(points: Array, ends: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Tokens of concatenated documents.

    points: uint32 code points; ends: int64 (documents,), where each document ends. Returns starts and lengths
    (int32, in code points), kinds (uint8, the bits above), hashes (uint64, of the token's code points) of all
    tokens, and int64 (documents,), where each document's tokens end.
    """
    size = len(points)
    starts, lengths, stack = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    kinds, hashes, token_ends = np.empty(size, np.uint8), np.empty(size, np.uint64), np.empty(len(ends), np.int64)
    keys, cuts = _special_table()
    count = _tokenize(points, ends, c.character_table(), keys, cuts, stack, starts, lengths, kinds, hashes, token_ends)
    return starts[:count], lengths[:count], kinds[:count], hashes[:count], token_ends


def hash_word(word: str) -> np.uint64:
    """The hash that `tokenize` gives a token."""
    value = int(_SEED)
    for character in word:
        value = ((value ^ ord(character)) * int(_PRIME)) % 2**64
    return np.uint64(value)


@cache
def _special_table() -> tuple[Array, Array]:
    """Hash table of contractions and abbreviations: uint64 keys, uint8 length of the first token."""
    keys, cuts = np.zeros(_SPECIALS, np.uint64), np.zeros(_SPECIALS, np.uint8)
    for word, cut in splits().items():
        key = hash_word(word)
        slot = int(key) >> 40 & (_SPECIALS - 1)
        while keys[slot]:
            slot = (slot + 1) & (_SPECIALS - 1)
        keys[slot], cuts[slot] = key, cut
    return keys, cuts


@njit(cache=True, inline="always")
def _bits(point: np.uint32, table: Array) -> int:
    return int(table[point])


@njit(cache=True)
def _known(value: np.uint64, size: int, keys: Array, cuts: Array) -> int:
    """Length of the first token of a contraction (all of an abbreviation), 0 for other hashes."""
    if size > _LONGEST_SPECIAL:
        return 0
    slot = np.int64(value >> np.uint64(40)) & (_SPECIALS - 1)
    while keys[slot] != 0:
        if keys[slot] == value:
            return int(cuts[slot])
        slot = (slot + 1) & (_SPECIALS - 1)
    return 0


@njit(cache=True)
def _special(points: Array, low: int, high: int, keys: Array, cuts: Array) -> int:
    """`_known` of a stretch of characters."""
    if high - low > _LONGEST_SPECIAL or high <= low:
        return 0
    value = _SEED
    for i in range(low, high):
        value = (value ^ np.uint64(points[i])) * _PRIME
    return _known(value, high - low, keys, cuts)


@njit(cache=True)
def _prefix(points: Array, low: int, high: int, table: Array) -> int:
    """Length of the sign to cut off at the beginning."""
    first = points[low]
    if first == _DOT:
        end = low + 1
        while end < high and points[end] == _DOT:
            end += 1
        return end - low if end - low > 1 else 0
    bits = _bits(first, table)
    if first == _PLUS and low + 1 < high and _bits(points[low + 1], table) & _DIGIT:
        return 0
    return 1 if bits & (_AFFIX | _PREFIX) else 0


@njit(cache=True)
def _suffix(points: Array, low: int, high: int, table: Array, digits: bool) -> int:
    """Length of the sign, possessive or unit to cut off at the end."""
    if high <= low:
        return 0
    last = points[high - 1]
    bits = _bits(last, table)
    before = points[high - 2] if high - low > 1 else np.uint32(0)
    before_bits = _bits(before, table)
    if last == _DOT:
        start = high - 1
        while start > low and points[start - 1] == _DOT:
            start -= 1
        if high - start > 1:
            return high - start
        if high - low < 2:
            return 0
        if before_bits & (_DIGIT | _LOWER | _AFFIX) or before in (_PERCENT, _SQUARED, _MINUS, _PLUS, _PIPE):
            return 1
        both = before_bits & _UPPER and high - low > 2 and _bits(points[high - 3], table) & _UPPER
        return 1 if both else 0
    if (last == _COLON and before == _CLOSE) or (last == _CLOSE and before == _COLON):  # a smiley
        return 2
    if bits & _AFFIX:
        return 1
    if last in (115, 83) and before in (_APOSTROPHE, _QUOTE_MARK):  # 's
        return 2
    if digits:
        return _unit(points, low, high, table)
    return 0


@njit(cache=True)
def _unit(points: Array, low: int, high: int, table: Array) -> int:
    """Length of a unit, currency sign or plus sign after a digit (10km, 5%, 20€)."""
    start = high
    while start > low and high - start < 4 and not _bits(points[start - 1], table) & _DIGIT:
        start -= 1
    size = high - start
    if size == 0 or start == low or not _bits(points[start - 1], table) & _DIGIT:
        return 0
    first, second = points[start], points[high - 1]
    if size == 1:
        if _bits(first, table) & _PREFIX and first != 61:  # all but `=`
            return 1
        for unit in (109, 103, 116, 84, 71, 77, 75):  # m g t T G M K
            if first == unit:
                return 1
    if size == 2:
        if second == 109:  # km dm cm mm nm
            return 2 if first in (107, 100, 99, 109, 110) else 0
        if second in (66, 98):  # mb MB kb KB gb GB tb TB
            return 2 if first in (109, 77, 107, 75, 103, 71, 116, 84) else 0
        for left, right in ((107, 103), (109, 103), (102, 116), (105, 110), (121, 100), (108, 98), (111, 122)):
            if first == left and second == right:  # kg mg ft in yd lb oz
                return 2
    return 0


@njit(cache=True)
def _host_character(point: np.uint32) -> bool:
    letter = 97 <= point <= 122 or 65 <= point <= 90
    return letter or 48 <= point <= 57 or 0xA1 <= point <= 0xFFFF or point in (_MINUS, _UNDERSCORE)


@njit(cache=True)
def _url(points: Array, low: int, high: int, table: Array) -> bool:
    """Whether [scheme://][user@]host.domain[:port][/path] makes up the whole."""
    at = low
    for i in range(low, high - 2):
        if points[i] == _COLON:
            if i > low + 1 and points[i + 1] == _SLASH and points[i + 2] == _SLASH:
                at = i + 3
            break
        scheme = _bits(points[i], table) & (_ALPHA | _DIGIT) or points[i] in (_UNDERSCORE, _PLUS, _MINUS, _DOT)
        if not scheme:
            break
    for i in range(at, high):  # a user name may hold anything
        if points[i] == _AT:
            at = i + 1
        elif points[i] == _SLASH:
            break
    label, dots, i = at, 0, at
    while i < high and (_host_character(points[i]) or points[i] == _DOT):
        if points[i] == _DOT:
            if i == label or points[i - 1] == _MINUS or points[i - 1] == _UNDERSCORE:
                return False
            dots += 1
            label = i + 1
        i += 1
    if dots == 0 or i - label < 2:
        return False
    for k in range(label, i):
        if not _bits(points[k], table) & (_LOWER if dots < 3 else _LOWER | _DIGIT):
            return False
    if i < high and points[i] == _COLON:
        i += 1
        while i < high and 48 <= points[i] <= 57:
            i += 1
    return i == high or points[i] in (_SLASH, 63, 35)


@njit(cache=True)
def _infix(points: Array, i: int, low: int, high: int, table: Array) -> int:
    """Length of the sign at `i` at which a part is cut within, or 0."""
    point = points[i]
    bits = _bits(point, table)
    if bits & _ALPHA:
        return 0
    if point == _ELLIPSIS or (bits & _AFFIX and not bits & _PUNCTUATION and point > 127):
        return 1
    if i + 1 >= high or i == low:
        return 0
    before, after = _bits(points[i - 1], table), _bits(points[i + 1], table)
    if point == _DOT:
        if points[i + 1] == _DOT:
            end = i + 2
            while end < high and points[end] == _DOT:
                end += 1
            return end - i
        return 1 if before & (_LOWER | _QUOTE) and after & (_UPPER | _QUOTE) else 0
    if point in (_PLUS, _MINUS, _STAR, _CARET) and before & _DIGIT and (after & _DIGIT or points[i + 1] == _MINUS):
        return 1
    if point == _COMMA:
        return 1 if before & after & _ALPHA else 0
    if point in (_MINUS, _EN_DASH, _EM_DASH, _TILDE) and before & (_ALPHA | _DIGIT):
        if after & _ALPHA:
            return 1
        end = i + 1
        while end < high and points[end] == point and end - i < 3:
            end += 1
        dashes = (point == _MINUS and end - i > 1) or (point == _EM_DASH and end - i == 2)
        return end - i if dashes and end < high and _bits(points[end], table) & _ALPHA else 0
    if point in (_COLON, 60, 62, 61, _SLASH) and before & (_ALPHA | _DIGIT) and after & _ALPHA:
        return 1
    return 0


@njit(cache=True)
def _emit(
    points: Array, low: int, high: int, table: Array, starts: Any, lengths: Any, kinds: Any, hashes: Any, n: int
) -> int:
    """Write one token, or one for each letter of an unspaced script in it. Returns the number of tokens then."""
    i = low
    while i < high:
        begin = i
        every, some = 0xFFFF, 0
        signs = True
        value = _SEED
        while i < high:
            bits = _bits(points[i], table)
            if i > begin and (bits | some) & _UNSPACED and not bits & _MARK:
                break
            every &= bits
            some |= bits
            signs &= bits & _SYMBOL > 0
            value = (value ^ np.uint64(points[i])) * _PRIME
            i += 1
        kind = HAS_LETTER if some & _ALPHA else 0
        kind |= 0 if every & _SYMBOL else IS_WORD
        kind |= IS_PUNCTUATION if every & _PUNCTUATION else 0
        kind |= IS_TERMINAL if every & _TERMINAL and i - begin == 1 else 0
        starts[n], lengths[n], kinds[n], hashes[n] = begin, i - begin, kind, value
        n += 1
    return n


@njit(cache=True)
def _cut(
    points: Array, low: int, high: int, some: int, table: Array, keys: Array, cuts: Array, stack: Array,
    starts: Array, lengths: Array, kinds: Array, hashes: Array, n: int,
) -> int:  # fmt: skip
    """Write the tokens of a part without white space. Returns the number of tokens then."""
    depth, cut, digits = 0, 0, some & _DIGIT > 0
    while low < high:
        cut = _special(points, low, high, keys, cuts)
        if cut:
            break
        prefix = _prefix(points, low, high, table)
        suffix = _suffix(points, low + prefix, high, table, digits)
        if prefix == 0 and suffix == 0:
            break
        if prefix:
            cut = _special(points, low + prefix, high, keys, cuts)
        if cut:
            suffix = 0
        elif suffix:
            cut = _special(points, low, high - suffix, keys, cuts)
            prefix = 0 if cut else prefix
        if prefix:
            n = _emit(points, low, low + prefix, table, starts, lengths, kinds, hashes, n)
            low += prefix
        if suffix:
            stack[depth] = suffix
            depth += 1
            high -= suffix
        if cut:
            break
    if cut:
        n = _emit(points, low, low + cut, table, starts, lengths, kinds, hashes, n)
        low += cut
    elif not _url(points, low, high, table):
        at = low + 1
        while at < high:
            infix = _infix(points, at, low, high, table)
            if infix:
                n = _emit(points, low, at, table, starts, lengths, kinds, hashes, n)
                n = _emit(points, at, at + infix, table, starts, lengths, kinds, hashes, n)
                at += infix
                low = at
            else:
                at += 1
    n = _emit(points, low, high, table, starts, lengths, kinds, hashes, n)
    for k in range(depth - 1, -1, -1):
        n = _emit(points, high, high + stack[k], table, starts, lengths, kinds, hashes, n)
        high += stack[k]
    return n


@njit(cache=True)
def _tokenize(
    points: Array, ends: Array, table: Array, keys: Array, cuts: Array, stack: Array,
    starts: Array, lengths: Array, kinds: Array, hashes: Array, token_ends: Array,
) -> int:  # fmt: skip
    n, i = 0, 0
    for document in range(ends.size):
        end = ends[document]
        while i < end:
            bits = _bits(points[i], table)
            if bits & _SPACE:
                i += 1
                continue
            low, some, every, body, value, root = i, 0, 0xFFFF, 0xFFFF, _SEED, _SEED
            while True:  # `body` and `root`: of all but the last character
                some |= bits
                body, root = every, value
                every &= bits
                value = (value ^ np.uint64(points[i])) * _PRIME
                i += 1
                if i == end:
                    break
                following = _bits(points[i], table)
                if following & _SPACE:
                    break
                bits = following
            # Most parts are a word, or a word and a sign: these need no second look.
            plain = not some & _UNSPACED and body & _ALPHA and not _known(value, i - low, keys, cuts)
            if plain and every & _ALPHA:
                starts[n], lengths[n], kinds[n], hashes[n] = low, i - low, HAS_LETTER | IS_WORD, value
                n += 1
            elif (
                plain
                and i - low > 1
                and (bits & _AFFIX or (points[i - 1] == _DOT and _bits(points[i - 2], table) & _LOWER))
                and not _known(root, i - 1 - low, keys, cuts)
            ):
                starts[n], lengths[n], kinds[n], hashes[n] = low, i - 1 - low, HAS_LETTER | IS_WORD, root
                n = _emit(points, i - 1, i, table, starts, lengths, kinds, hashes, n + 1)
            else:
                n = _cut(points, low, i, some, table, keys, cuts, stack, starts, lengths, kinds, hashes, n)
        token_ends[document] = n
    return n
