"""Text to pieces: pre-tokenization by a state machine, and cuts in long pieces.

`split` stands in for the published regular expressions, byte for byte. They never backtrack further than one
character, so each piece's end follows from the classes of its characters read once from left to right. Two thirds of
real text are a blank and ASCII letters; those are found eight bytes at a time. Cost: 5 ns a byte on mixed text, half
of it mispredicted branches.

`cut` cuts long pieces where no merge can cross, so that their parts repeat as words do: a run of Chinese or Japanese
letters is one long piece that no cache knows. Where no token of the vocabulary has the two neighbouring characters (or
parts of them) side by side, no merge can join them: the piece is cut there, and the ids stay the same. Cost: 1 ns a
byte; 4 ns on unspaced text, where a table remembers the answers for two characters.

Text is valid UTF-8, with PADDING readable bytes behind it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.bpe.patterns import LETTER, NEWLINE, NUMBER, OTHER, SPACE
from pipeline.kernels.compiled import PADDING, UNCOUNTED, Array, inner, item, kernel, trailing_zeros, word_at
from pipeline.kernels.hashing import decode, spread

GPT2, CL100K = 0, 1
_QUOTE, _BLANK = ord("'"), ord(" ")
_HIGH_BITS = np.uint64(0x8080808080808080)
_SMALL = np.uint64(0x2020202020202020)  # makes an ASCII letter a small one
_SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_TO_A = np.uint64(0x1F1F1F1F1F1F1F1F)  # 0x80 - "a": carries into the high bit from "a" on
_PAST_Z = np.uint64(0x0505050505050505)  # 0x80 - "z" - 1
_CUT_FROM = 24  # bytes of a piece beyond ASCII
_ANSWERS = 1 << 15
_ONE, _32 = np.uint64(1), np.uint64(32)


class Boundaries(NamedTuple):
    """Which neighbours tokens join. joined: uint64 bit set; answers: uint64, what was found for two characters."""

    joined: Array
    answers: Array


def boundaries(tokens: list[bytes]) -> Boundaries:
    """The neighbours inside all tokens; 64 bits or more a token keep chance hits rare."""
    data = np.frombuffer(b"".join(tokens) + bytes(PADDING), np.uint8)
    joined = np.zeros(1 << max(len(tokens), 1).bit_length(), np.uint64)
    _fill(joined, data, np.cumsum([len(token) for token in tokens]))
    return Boundaries(joined, np.full(_ANSWERS, 2**64 - 1, np.uint64))


@inner
def _ascii_letters(data: Array, i: int) -> int:
    """End of the run of ASCII letters at byte i; may read up to PADDING bytes behind the text."""
    while True:
        word = word_at(data, i)
        small = (word | _SMALL) & _SEVEN_BITS
        letters = (small + _TO_A) & ~(small + _PAST_Z) & ~word & _HIGH_BITS
        count = trailing_zeros(letters ^ _HIGH_BITS) >> 3
        i += count
        if count < 8:
            return i


@inner
def _run(data: Array, i: int, end: int, classes: Array, wanted: int) -> int:
    """End of the run of characters of one class that begins at i."""
    while i < end:
        point, size = decode(data, i)
        if item(classes, point) != wanted:
            break
        i += size
    return i


@inner
def _letters(data: Array, i: int, end: int, classes: Array) -> int:
    """End of the run of letters that begins at i."""
    i = min(_ascii_letters(data, i), end)
    return _run(data, i, end, classes, LETTER) if i < end and item(data, i) >= 0x80 else i


@inner
def _contraction(data: Array, i: int, end: int, family: int) -> int:
    """End of `'s`, `'ll` and the like at the quote at i, or i. cl100k takes capitals, and the long s for an s."""
    if i + 1 >= end:
        return i
    fold = 0x20 if family == CL100K else 0
    one = int(item(data, i + 1))
    if 0x41 <= one <= 0x5A:
        one |= fold
    if one == 0x73 or one == 0x64 or one == 0x6D or one == 0x74:  # s d m t
        return i + 2
    if i + 2 >= end:
        return i
    two = int(item(data, i + 2))
    if family == CL100K and one == 0xC5 and two == 0xBF:
        return i + 3
    if 0x41 <= two <= 0x5A:
        two |= fold
    if (one == 0x6C and two == 0x6C) or ((one == 0x76 or one == 0x72) and two == 0x65):  # ll ve re
        return i + 3
    return i


@inner
def _numbers(data: Array, i: int, end: int, classes: Array, digits: int) -> int:
    count = 0
    while i < end and (digits == 0 or count < digits):
        point, size = decode(data, i)
        if item(classes, point) != NUMBER:
            break
        i += size
        count += 1
    return i


@inner
def _white(data: Array, i: int, end: int, classes: Array, family: int) -> int:
    r"""End of the piece of white space at i: `\s*[\r\n]+` (cl100k), then `\s+(?!\S)`, then `\s+`."""
    j, last, newline = i, i, i
    while j < end:
        point, size = decode(data, j)
        kind = item(classes, point)
        if kind != SPACE and kind != NEWLINE:
            break
        last = j
        j += size
        if kind == NEWLINE:
            newline = j
    if family == CL100K and newline > i:
        return newline
    return j if j == end or last == i else last


@inner
def _piece_end(data: Array, i: int, end: int, classes: Array, family: int, digits: int) -> Any:
    """End of the piece that begins at byte i; i < end, the text's end."""
    if item(data, i) == _QUOTE:
        j = _contraction(data, i, end, family)
        if j > i:
            return j
    point, size = decode(data, i)
    first = item(classes, point)
    if first == LETTER:
        return _letters(data, i + size, end, classes)
    if first == NUMBER:
        return _numbers(data, i, end, classes, digits)
    after = i + size
    following = OTHER
    if after < end:
        point, size = decode(data, after)
        following = item(classes, point)
        if following == LETTER and (item(data, i) == _BLANK or (family == CL100K and first != NEWLINE)):
            return _letters(data, after + size, end, classes)
    blank = item(data, i) == _BLANK and after < end
    if blank and family == GPT2 and digits == 0 and following == NUMBER:
        return _numbers(data, after, end, classes, digits)
    if first == OTHER or (blank and following == OTHER):
        j = _run(data, after, end, classes, OTHER)
        return _run(data, j, end, classes, NEWLINE) if family == CL100K else j
    return _white(data, i, end, classes, family)


@kernel(nogil=True, **UNCOUNTED)
def split(data: Array, ends: Array, classes: Array, family: int, digits: int, pieces: Array, piece_ends: Array) -> int:
    """Split texts that lie end to end.

    data: uint8, the texts' UTF-8 and PADDING bytes; ends: int64, where each text ends; classes:
    `patterns.character_classes()`. Fills pieces (int32, one for each byte of data suffices) with the ends of the pieces
    and piece_ends (int64, one a text) with the number of pieces up to each text's end. Returns the number of pieces.
    """
    count = 0
    i = 0
    for text in range(ends.size):
        end = ends[text]
        while i < end:
            start = i + 1 if item(data, i) == _BLANK else i
            stop = _ascii_letters(data, start)
            if stop > start and (stop >= end or item(data, stop) < 0x80):
                i = min(stop, end)
            else:
                i = _piece_end(data, i, end, classes, family, digits)
            pieces[count] = i
            count += 1
        piece_ends[text] = count
    return count


@inner
def _width(first: int) -> int:
    """Bytes of the character whose first byte this is."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


@inner
def _packed(data: Array, start: int, end: int) -> np.uint64:
    value = np.uint64(0)
    for k in range(start, end):
        value = value << np.uint64(8) | np.uint64(item(data, k))
    return value


@inner
def _bit(left: np.uint64, right: np.uint64, joined: Array) -> tuple[np.uint64, np.uint64]:
    """Word and bit of two neighbours (one character or part of one each) in the bit set."""
    bit = spread(spread(left) ^ right) & np.uint64(joined.size * 64 - 1)
    return bit >> np.uint64(6), _ONE << (bit & np.uint64(63))


@kernel()
def _fill(joined: Array, data: Array, ends: Array) -> None:
    """Enter the neighbours around the beginning of each character inside each token."""
    start = 0
    for token in range(ends.size):
        end = ends[token]
        before = start
        for at in range(start + 1, end):
            if data[at] & 0xC0 == 0x80:
                continue
            stop = min(at + _width(data[at]), end)
            word, bit = _bit(_packed(data, max(before, at - 4), at), _packed(data, at, stop), joined)
            joined[word] |= bit
            before = at
        start = end


@inner
def _any_part_joined(left: np.uint64, left_bytes: int, right: np.uint64, right_bytes: int, joined: Array) -> bool:
    """Whether some token may have an end of character `left` beside a beginning of character `right`."""
    for i in range(1, left_bytes + 1):
        tail = left & ((_ONE << np.uint64(8 * i)) - _ONE)
        for j in range(1, right_bytes + 1):
            word, bit = _bit(tail, right >> np.uint64(8 * (right_bytes - j)), joined)
            if joined[word] & bit:
                return True
    return False


@inner
def _joined(left: np.uint64, left_bytes: int, right: np.uint64, right_bytes: int, known: Boundaries) -> bool:
    """The same for two complete characters, remembered in `answers`."""
    pair = (left << _32 | right) << _ONE  # a character's highest bit follows from the others
    slot = np.intp(spread(pair) & np.uint64(known.answers.size - 1))
    entry = item(known.answers, slot)
    if entry | _ONE != pair | _ONE:
        entry = pair | np.uint64(_any_part_joined(left, left_bytes, right, right_bytes, known.joined))
        known.answers[slot] = entry
    return bool(entry & _ONE != 0)


@kernel(nogil=True, **UNCOUNTED)
def cut(data: Array, pieces: Array, piece_ends: Array, known: Boundaries, parts: Array, part_ends: Array) -> int:
    """Cut the pieces of `split` into parts.

    data, pieces, piece_ends: see there. Fills parts and part_ends likewise. Returns the number of parts, at most one
    for each byte.
    """
    start = count = number = 0
    for text in range(piece_ends.size):
        while number < piece_ends[text]:
            end = int(item(pieces, number))
            number += 1
            size = end - start
            # U+3000 to U+9FFF: kana and Han
            unspaced = size > 3 and 0xE3 <= item(data, end - 3) <= 0xE9
            if unspaced or (size > _CUT_FROM and item(data, end - 1) >= 0x80):
                at, width = start, _width(int(item(data, start)))
                value = _packed(data, at, at + width)
                while at + width < end:
                    at += width
                    next_width = _width(int(item(data, at)))
                    next_value = _packed(data, at, at + next_width)
                    if not _joined(value, width, next_value, next_width, known):
                        parts[count] = at
                        count += 1
                    width, value = next_width, next_value
            parts[count] = end
            count += 1
            start = end
        part_ends[text] = count
    return count
