"""The word rule: text to tokens, about as spaCy's English tokenizer cuts it.

Text is cut at white space. From each part, punctuation is cut off at both ends, one sign at a time (a run of dots at
once); what remains is one token if it looks like a URL, and is else cut at dashes between letters, at a full stop
between a small and a capital letter, at commas, colons, slashes between letters. English contractions become two
tokens (don't = do + n't), abbreviations keep their full stop. A letter of a script that is written without spaces is a
token of its own, with its combining marks. Punctuation makes tokens too; a *word* is a token with a character that is
no sign (`lexicon.SYMBOL`).

The rules are spaCy's for English, brought to classes of characters (docs/quality.md names the differences: emoticons,
a few units, rare URLs). Linear. In the kernels `table` is `lexicon.character_table()`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import PRIME, SEED, find_slot, number, slots_for
from pipeline.kernels.signals.chunks import FOREIGN, OTHER, Parts, scan
from pipeline.kernels.signals.lexicon import (
    AFFIX,
    ALPHA,
    DIGIT,
    LONGEST_FORM,
    LOWER,
    MARK,
    PREFIX,
    PUNCTUATION,
    QUOTE,
    SYMBOL,
    TERMINAL,
    UNSPACED,
    UPPER,
    character_table,
    form_table,
)

HAS_LETTER = 1
IS_WORD = 2  # has a character that is no sign
IS_PUNCTUATION = 4  # categories P* only
IS_TERMINAL = 8  # one sign that ends a sentence
# What a part adds to the count of sentences: whether it begins one if it follows an end, whether it ends in one,
# whether it is signs only; from bit SENTENCES_SHIFT on, how many begin inside.
BEGINS, ENDS, IS_SIGNS, SENTENCES_SHIFT = 1, 2, 4, 3

_DOT, _PLUS, _MINUS, _CARET, _STAR, _COMMA, _AT, _COLON, _SLASH = (ord(sign) for sign in ".+-^*,@:/")
_UNDERSCORE, _PERCENT, _PIPE, _SQUARED, _APOSTROPHE, _QUOTE_MARK = ord("_"), ord("%"), ord("|"), 0xB2, 0x27, 0x2019
_ELLIPSIS, _EN_DASH, _EM_DASH, _TILDE, _CLOSE = 0x2026, 0x2013, 0x2014, ord("~"), ord(")")


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
    count = _cut_all(points, parts, character_table(), *form_table(), tokens)
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


@inner
def _bits(point: np.uint32, table: Array) -> int:
    """Properties of a code point."""
    return int(table[point])


@inner
def _prefix(points: Array, low: int, high: int, table: Array) -> int:
    """Length of the sign to cut off at the beginning."""
    first = points[low]
    if first == _DOT:
        end = low + 1
        while end < high and points[end] == _DOT:
            end += 1
        return end - low if end - low > 1 else 0
    bits = _bits(first, table)
    if first == _PLUS and low + 1 < high and _bits(points[low + 1], table) & DIGIT:
        return 0
    return 1 if bits & (AFFIX | PREFIX) else 0


@inner
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
            return int(high - start)
        if high - low < 2:
            return 0
        if before_bits & (DIGIT | LOWER | AFFIX) or before in (_PERCENT, _SQUARED, _MINUS, _PLUS, _PIPE):
            return 1
        both = before_bits & UPPER and high - low > 2 and _bits(points[high - 3], table) & UPPER
        return 1 if both else 0
    if (last == _COLON and before == _CLOSE) or (last == _CLOSE and before == _COLON):  # a smiley
        return 2
    if bits & AFFIX:
        return 1
    if last in (115, 83) and before in (_APOSTROPHE, _QUOTE_MARK):  # 's
        return 2
    if digits:
        return int(_unit(points, low, high, table))
    return 0


@inner
def _unit(points: Array, low: int, high: int, table: Array) -> int:
    """Length of a unit, currency sign or plus sign after a digit (10km, 5%, 20€)."""
    start = high
    while start > low and high - start < 4 and not _bits(points[start - 1], table) & DIGIT:
        start -= 1
    size = high - start
    if size == 0 or start == low or not _bits(points[start - 1], table) & DIGIT:
        return 0
    first, second = points[start], points[high - 1]
    if size == 1:
        if _bits(first, table) & PREFIX and first != 61:  # all but `=`
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


@inner
def _host_character(point: np.uint32) -> bool:
    letter = 97 <= point <= 122 or 65 <= point <= 90
    return bool(letter or 48 <= point <= 57 or 0xA1 <= point <= 0xFFFF or point in (_MINUS, _UNDERSCORE))


@inner
def _is_url(points: Array, low: int, high: int, table: Array) -> bool:
    """Whether [scheme://][user@]host.domain[:port][/path] makes up the whole."""
    at = low
    for i in range(low, high - 2):
        if points[i] == _COLON:
            if i > low + 1 and points[i + 1] == _SLASH and points[i + 2] == _SLASH:
                at = i + 3
            break
        scheme = _bits(points[i], table) & (ALPHA | DIGIT) or points[i] in (_UNDERSCORE, _PLUS, _MINUS, _DOT)
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
        if not _bits(points[k], table) & (LOWER if dots < 3 else LOWER | DIGIT):
            return False
    if i < high and points[i] == _COLON:
        i += 1
        while i < high and 48 <= points[i] <= 57:
            i += 1
    return i == high or points[i] in (_SLASH, 63, 35)


@inner
def _infix(points: Array, i: int, low: int, high: int, table: Array) -> int:
    """Length of the sign at `i` at which a part is cut within, or 0."""
    point = points[i]
    bits = _bits(point, table)
    if bits & ALPHA:
        return 0
    if point == _ELLIPSIS or (bits & AFFIX and not bits & PUNCTUATION and point > 127):
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
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if point in (_PLUS, _MINUS, _STAR, _CARET) and before & DIGIT and (after & DIGIT or points[i + 1] == _MINUS):
        return 1
    if point == _COMMA:
        return 1 if before & after & ALPHA else 0
    if point in (_MINUS, _EN_DASH, _EM_DASH, _TILDE) and before & (ALPHA | DIGIT):
        if after & ALPHA:
            return 1
        end = i + 1
        while end < high and points[end] == point and end - i < 3:
            end += 1
        dashes = (point == _MINUS and end - i > 1) or (point == _EM_DASH and end - i == 2)
        return end - i if dashes and end < high and _bits(points[end], table) & ALPHA else 0
    if point in (_COLON, 60, 62, 61, _SLASH) and before & (ALPHA | DIGIT) and after & ALPHA:
        return 1
    return 0


@inner
def _known(value: np.uint64, size: int, longest: int, keys: Array, cuts: Array) -> int:
    """Length of the first token of a contraction (all of an abbreviation), 0 for other hashes."""
    if size > longest:
        return 0
    slot = find_slot(keys, value)
    return int(cuts[slot]) if slot >= 0 else 0


@inner
def _special(points: Array, low: int, high: int, longest: int, keys: Array, cuts: Array, edges: Array) -> int:
    """`_known` of a stretch of characters."""
    size = high - low
    if 0 < size <= longest and (edges[0, points[low] & 255] & edges[1, points[high - 1] & 255]) >> size & 1:
        value = SEED
        for point in points[low:high]:
            value = (value ^ np.uint64(point)) * PRIME
        return int(_known(value, size, longest, keys, cuts))
    return 0


@inner
def _cut_part(
    points: Array, low: int, high: int, some: int, longest: int, table: Array, keys: Array, cuts: Array,
    edges: Array, stack: Array, starts: Array, n: int,
) -> int:  # fmt: skip
    """Write where the tokens of a part without white space begin. Returns the number of tokens then."""
    depth, cut, digits = 0, 0, some & DIGIT > 0
    while low < high:
        cut = _special(points, low, high, longest, keys, cuts, edges)
        if cut:
            break
        prefix = _prefix(points, low, high, table)
        suffix = _suffix(points, low + prefix, high, table, digits)
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
    elif not (some & TERMINAL and _is_url(points, low, high, table)):
        at = low + 1
        while at < high:
            letter = _bits(points[at], table) & (ALPHA | DIGIT)
            infix = 0 if letter else _infix(points, at, low, high, table)
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
            bits = _bits(points[i], table)
            if i == begin or ((bits & UNSPACED or alone) and not bits & MARK):
                starts[n] = i
                n += 1
                alone = bits & UNSPACED > 0
    return n


@inner
def _kind(every: int, some: int, size: int) -> int:
    """A token's kind by the properties that all and some of its characters have."""
    kind = HAS_LETTER if some & ALPHA else 0
    kind |= 0 if every & SYMBOL else IS_WORD
    kind |= IS_PUNCTUATION if every & PUNCTUATION else 0
    return kind | (IS_TERMINAL if every & TERMINAL and size == 1 else 0)


@inner
def _describe(points: Array, high: int, table: Array, tokens: Tokens, first: int, n: int) -> None:
    """Write length, kind and hash of tokens that follow each other without a gap up to `high`."""
    for k in range(first, n):
        end = tokens.starts[k + 1] if k + 1 < n else high
        every, some, value = 0xFFFF, 0, SEED
        for point in points[tokens.starts[k] : end]:
            bits = _bits(point, table)
            every &= bits
            some |= bits
            value = (value ^ np.uint64(point)) * PRIME
        size = end - tokens.starts[k]
        tokens.lengths[k], tokens.kinds[k], tokens.hashes[k] = size, _kind(every, some, size), value


@inner
def _sentences(kinds: Array) -> int:
    """What a part adds to the count of sentences: one begins with the first token after a terminal one that is no
    sign."""
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
    """Write both tokens of a part of letters with a sign at its end, the commonest after single words; nothing if it is
    no such part. Returns the number of tokens then."""
    sign, end = points[high - 1], high - 1
    bits, before, value = _bits(sign, table), 0, SEED
    if end == low or not bits & (AFFIX | TERMINAL):
        return n
    for point in points[low:end]:
        before = _bits(point, table)
        if before & (ALPHA | UNSPACED) != ALPHA:
            return n
        value = (value ^ np.uint64(point)) * PRIME
    whole = (value ^ np.uint64(sign)) * PRIME
    if not (bits & AFFIX or (sign == _DOT and before & LOWER)) or _known(whole, high - low, longest, keys, cuts):
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
        longest = 0 if some & OTHER else LONGEST_FORM
        value = parts.keys[k] ^ FOREIGN if some & OTHER else parts.keys[k]
        letters = parts.every[k] & ALPHA and not some & UNSPACED
        if letters and not _known(value, size, longest, keys, cuts):
            tokens.starts[n], tokens.lengths[n], tokens.hashes[n] = low, size, value
            tokens.kinds[n] = HAS_LETTER | IS_WORD
            n += 1
            tokens.firsts[k], tokens.sentences[k] = first, BEGINS
            continue
        n = _word_and_sign(points, low, high, table, longest, keys, cuts, tokens, n)
        if n == first:
            n = _cut_part(points, low, high, some, longest, table, keys, cuts, edges, stack, tokens.starts, n)
            if some & UNSPACED:
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
