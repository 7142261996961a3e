"""Pre-tokenization by a state machine: the published regular expressions, byte for byte, without an engine.

The patterns never backtrack further than one character, so each piece's end follows from the classes of its
characters read once from left to right. Text is valid UTF-8. Two thirds of real text are a blank and ASCII letters;
those are found eight bytes at a time. Cost: 5 ns a byte on mixed text, half of it mispredicted branches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.bpe.memory import item, trailing_zeros, word_at
from pipeline.kernels.bpe.patterns import LETTER, NEWLINE, NUMBER, OTHER, SPACE
from pipeline.kernels.compiled import UNCOUNTED, helper, kernel

GPT2, CL100K = 0, 1
_QUOTE, _BLANK = ord("'"), ord(" ")
_HIGH_BITS = np.uint64(0x8080808080808080)
_SMALL = np.uint64(0x2020202020202020)  # the bit that makes an ASCII letter a small one
_SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_TO_A = np.uint64(0x1F1F1F1F1F1F1F1F)  # 0x80 - "a": carries into the high bit from "a" on
_PAST_Z = np.uint64(0x0505050505050505)  # 0x80 - "z" - 1


@helper
def _ascii_letters(data: Any, i: int) -> int:
    """End of the run of ASCII letters at byte i. It may read on into what follows the text, up to PADDING."""
    while True:
        word = word_at(data, i)
        small = (word | _SMALL) & _SEVEN_BITS
        letters = (small + _TO_A) & ~(small + _PAST_Z) & ~word & _HIGH_BITS
        count = trailing_zeros(letters ^ _HIGH_BITS) >> 3
        i += count
        if count < 8:
            return i


@helper
def _character(data: Any, i: int) -> tuple[int, int]:
    """(code point, bytes) of the character that begins at byte i."""
    first = int(item(data, i))
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | int(item(data, i + 1)) & 0x3F, 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | (int(item(data, i + 1)) & 0x3F) << 6 | int(item(data, i + 2)) & 0x3F, 3
    high = (first & 0x07) << 18 | (int(item(data, i + 1)) & 0x3F) << 12
    return high | (int(item(data, i + 2)) & 0x3F) << 6 | int(item(data, i + 3)) & 0x3F, 4


@helper
def _run(data: Any, i: int, end: int, classes: Any, wanted: int) -> int:
    """End of the run of characters of one class that begins at i."""
    while i < end:
        point, size = _character(data, i)
        if item(classes, point) != wanted:
            break
        i += size
    return i


@helper
def _letters(data: Any, i: int, end: int, classes: Any) -> int:
    """End of the run of letters that begins at i."""
    i = min(_ascii_letters(data, i), end)
    return _run(data, i, end, classes, LETTER) if i < end and item(data, i) >= 0x80 else i


@helper
def _contraction(data: Any, i: int, end: int, family: int) -> int:
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


@helper
def _numbers(data: Any, i: int, end: int, classes: Any, digits: int) -> int:
    count = 0
    while i < end and (digits == 0 or count < digits):
        point, size = _character(data, i)
        if item(classes, point) != NUMBER:
            break
        i += size
        count += 1
    return i


@helper
def _white(data: Any, i: int, end: int, classes: Any, family: int) -> int:
    r"""End of the piece of white space at i: `\s*[\r\n]+` (cl100k), then `\s+(?!\S)`, then `\s+`."""
    j, last, newline = i, i, i
    while j < end:
        point, size = _character(data, j)
        found = item(classes, point)
        if found != SPACE and found != NEWLINE:
            break
        last = j
        j += size
        if found == NEWLINE:
            newline = j
    if family == CL100K and newline > i:
        return newline
    return j if j == end or last == i else last


@helper
def _piece_end(data: Any, i: int, end: int, classes: Any, family: int, digits: int) -> Any:
    """End of the piece that begins at byte i; i < end, the text's end."""
    if item(data, i) == _QUOTE:
        j = _contraction(data, i, end, family)
        if j > i:
            return j
    point, size = _character(data, i)
    first = item(classes, point)
    if first == LETTER:
        return _letters(data, i + size, end, classes)
    if first == NUMBER:
        return _numbers(data, i, end, classes, digits)
    after = i + size
    following = OTHER
    if after < end:
        point, size = _character(data, after)
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
def split(data: Any, ends: Any, classes: Any, family: int, digits: int, pieces: Any, piece_ends: Any) -> int:
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
