"""Cut long pieces where no merge can cross, so that their parts repeat as words do.

A run of Chinese or Japanese letters is one long piece that no cache knows. Where no token of the vocabulary has the two
neighbouring characters (or parts of them) side by side, no merge can join them: the piece is cut there, and the ids
stay the same. Cost: 1 ns a byte; 4 ns on unspaced text, where a table remembers what was found for two characters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.bpe.memory import PADDING, item, mix
from pipeline.kernels.compiled import UNCOUNTED, helper, kernel

_CUT_FROM = 24  # bytes of a piece beyond ASCII
_ANSWERS = 1 << 15
_ONE, _32 = np.uint64(1), np.uint64(32)


class Boundaries(NamedTuple):
    """Which neighbours tokens join. joined: uint64 bit set; answers: uint64, what was found for two characters."""

    joined: Any
    answers: Any


def boundaries(tokens: list[bytes]) -> Boundaries:
    """The neighbours inside all tokens; 64 bits or more a token keep chance hits rare."""
    data = np.frombuffer(b"".join(tokens) + bytes(PADDING), np.uint8)
    joined = np.zeros(1 << max(len(tokens), 1).bit_length(), np.uint64)
    _fill(joined, data, np.cumsum([len(token) for token in tokens]))
    return Boundaries(joined, np.full(_ANSWERS, 2**64 - 1, np.uint64))


@helper
def _width(first: int) -> int:
    """Bytes of the character whose first byte this is."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


@helper
def _packed(data: Any, start: int, end: int) -> np.uint64:
    value = np.uint64(0)
    for k in range(start, end):
        value = value << np.uint64(8) | np.uint64(item(data, k))
    return value


@helper
def _bit(left: np.uint64, right: np.uint64, joined: Any) -> tuple[np.uint64, np.uint64]:
    """Word and bit of two neighbours (one character or part of one each) in the bit set."""
    place = mix(mix(left) ^ right) & np.uint64(joined.size * 64 - 1)
    return place >> np.uint64(6), _ONE << (place & np.uint64(63))


@kernel()
def _fill(joined: Any, data: Any, ends: Any) -> None:
    """Enter the neighbours at each place inside each token where a character begins."""
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


@helper
def _any_part_joined(left: np.uint64, left_bytes: int, right: np.uint64, right_bytes: int, joined: Any) -> bool:
    """Whether some token may have an end of character `left` beside a beginning of character `right`."""
    for i in range(1, left_bytes + 1):
        tail = left & ((_ONE << np.uint64(8 * i)) - _ONE)
        for j in range(1, right_bytes + 1):
            word, bit = _bit(tail, right >> np.uint64(8 * (right_bytes - j)), joined)
            if joined[word] & bit:
                return True
    return False


@helper
def _joined(left: np.uint64, left_bytes: int, right: np.uint64, right_bytes: int, known: Boundaries) -> bool:
    """The same for two whole characters, from the answers so far where theirs is still there."""
    pair = (left << _32 | right) << _ONE  # a character's highest bit tells nothing that the others do not
    place = np.intp(mix(pair) & np.uint64(known.answers.size - 1))
    entry = item(known.answers, place)
    if entry | _ONE != pair | _ONE:
        entry = pair | np.uint64(_any_part_joined(left, left_bytes, right, right_bytes, known.joined))
        known.answers[place] = entry
    return bool(entry & _ONE != 0)


@kernel(nogil=True, **UNCOUNTED)
def cut(data: Any, pieces: Any, piece_ends: Any, known: Boundaries, parts: Any, part_ends: Any) -> int:
    """Cut the pieces that `split` found.

    data, pieces, piece_ends: see there. Fills parts and part_ends as those are, one part for each byte at most.
    Returns the number of parts.
    """
    start = count = number = 0
    for text in range(piece_ends.size):
        while number < piece_ends[text]:
            end = int(item(pieces, number))
            number += 1
            size = end - start
            # U+3000 to U+9FFF: kana and Han, which stand unspaced
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
