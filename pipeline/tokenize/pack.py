"""Pack documents into sequences of one length.

`concat` lays documents end to end and cuts wherever a sequence is full: no padding but in the last one.
`best_fit` (Ding et al. 2024) cuts only documents longer than a sequence and puts each piece where it fits
best, longest first: fewer cut documents, some padding. Both are functions of the documents in their order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple


class Piece(NamedTuple):
    """Tokens `start` to `start + length` of document number `document`."""

    document: int
    start: int
    length: int


def pack(lengths: list[int], size: int, packing: str = "concat") -> list[list[Piece]]:
    """Sequences as lists of pieces whose lengths sum to at most `size`; every token is in exactly one.

    >>> pack([3, 4], 5)
    [[Piece(document=0, start=0, length=3), Piece(document=1, start=0, length=2)],
     [Piece(document=1, start=2, length=2)]]
    """
    return _best_fit(lengths, size) if packing == "best_fit" else _concat(lengths, size)


def _concat(lengths: list[int], size: int) -> list[list[Piece]]:
    sequences: list[list[Piece]] = []
    room = 0
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            if room == 0:
                sequences.append([])
                room = size
            taken = min(room, length - start)
            sequences[-1].append(Piece(document, start, taken))
            start += taken
            room -= taken
    return sequences


def _best_fit(lengths: list[int], size: int) -> list[list[Piece]]:
    pieces = [
        Piece(document, start, min(size, length - start))
        for document, length in enumerate(lengths)
        for start in range(0, length, size)
    ]
    sequences: list[list[Piece]] = []
    rooms: list[tuple[int, int]] = []  # (room left, sequence), sorted
    for piece in sorted(pieces, key=lambda piece: (-piece.length, piece)):
        found = bisect_left(rooms, (piece.length, -1))
        if found < len(rooms):
            room, sequence = rooms.pop(found)
        else:
            room, sequence = size, len(sequences)
            sequences.append([])
        sequences[sequence].append(piece)
        if room > piece.length:
            insort(rooms, (room - piece.length, sequence))
    # Filled longest first; by first document the order is again that of the shuffle.
    return sorted(sequences, key=min)
