"""Byte-pair encoding of pieces: a cache (pieces) in front of the merge loop, both compiled.

The slots of 32 pieces are asked for before the first of them is looked at. A miss is merged: short pieces by a scan for
the lowest rank, long ones with a heap (n log n).

Cost a piece: 10 to 20 ns from the cache, some 500 ns merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.bpe.memory import PADDING, item, mix, prefetch
from pipeline.kernels.bpe.pieces import FEW, LONGEST, SPILLED, Cache, find, key, new_cache, slot_of, store
from pipeline.kernels.compiled import helper, kernel, njit

_SCANNED = 64  # symbols of the longest piece merged by scanning
_RANKS, _JOINED, _BEFORE, _AFTER = (_SCANNED * k for k in range(1, 5))  # in `work`
_BLOCK = 32  # pieces whose slots are asked for together
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
_UNRANKED = np.uint32(0xFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_1, _32 = np.uint64(1), np.uint64(32)


class Rules(NamedTuple):
    """What never changes. byte_ids: int32 (256,); byte_pairs: uint64 (65536,), rank << 32 | token for two bytes, first
    << 8 | second, all ones where they do not merge; known: uint64 bit set of pairs that may merge, small enough to stay
    near; merges: uint64, an open-addressing table at most half full in which pair (left << 32 | right) and result lie
    side by side; whole: the words that are one token although no merges lead there.
    """

    byte_ids: Any
    byte_pairs: Any
    known: Any
    merges: Any
    whole: Any


def rules(byte_ids: np.ndarray[Any, np.dtype[np.int32]], merges: dict[tuple[int, int], tuple[int, int]]) -> Rules:
    """Tables of the merges, (left, right) to (rank, token). Raises ValueError for more than 2**25 of them."""
    if len(merges) > 1 << 25:
        raise ValueError(f"{len(merges)} merges: the tables hold {1 << 25}")
    size = 1 << max(2 * len(merges), 4).bit_length()
    found = Rules(
        byte_ids,
        np.empty(1 << 16, np.uint64),
        np.zeros(max(size // 16, 1), np.uint64),
        np.full(2 * size, _NONE, np.uint64),
        new_cache(1 << 10),
    )
    pairs = np.array([left << 32 | right for left, right in merges], np.uint64)
    results = np.array([rank << 32 | token for rank, token in merges.values()], np.uint64)
    _fill_merges(found.merges, found.known, pairs, results)
    _fill_byte_pairs(found)
    return found


@helper
def _merge_place(hashed: np.uint64, pair: np.uint64, table: Any) -> Any:
    """Where a pair lies in a merge table, or would."""
    mask = np.uint64(table.size // 2 - 1)
    place = hashed & mask
    while item(table, np.intp(place << _1)) != pair and item(table, np.intp(place << _1)) != _NONE:
        place = (place + _1) & mask
    return np.intp(place << _1)


@helper
def _bit(hashed: np.uint64, known: Any) -> Any:
    """Word and bit of a pair in the bit set."""
    place = hashed >> _32 & np.uint64(known.size * 64 - 1)
    return np.intp(place >> np.uint64(6)), _1 << (place & np.uint64(63))


@kernel()
def _fill_merges(table: Any, known: Any, pairs: Any, results: Any) -> None:
    for i in range(pairs.size):
        hashed = mix(pairs[i])
        place = _merge_place(hashed, pairs[i], table)
        table[place], table[place + 1] = pairs[i], results[i]
        word, bit = _bit(hashed, known)
        known[word] |= bit


@helper
def _merged(left: np.uint64, right: np.uint64, rules: Any) -> Any:
    """rank << 32 | token of a pair, _NONE where the two do not merge (an empty place holds it, too)."""
    pair = left << _32 | right
    hashed = mix(pair)
    word, bit = _bit(hashed, rules.known)
    if item(rules.known, word) & bit == 0:
        return _NONE
    return item(rules.merges, _merge_place(hashed, pair, rules.merges) + 1)


@kernel()
def _fill_byte_pairs(rules: Rules) -> None:
    for pair in range(rules.byte_pairs.size):
        left, right = rules.byte_ids[pair >> 8], rules.byte_ids[pair & 255]
        rules.byte_pairs[pair] = _merged(np.uint64(left), np.uint64(right), rules)


@helper
def _merge_short(data: Any, start: int, end: int, rules: Rules, work: Any, out: Any, total: int) -> Any:
    """Merge by scanning for the lowest rank, leftmost first. Returns the new length of `out`.

    work: uint32 (5 * _SCANNED,): for each place its symbol, rank << 6 | place of the pair that begins there (all ones
    for none), what the pair becomes, and the places before and after.
    """
    byte_ids, byte_pairs = rules.byte_ids, rules.byte_pairs
    count = end - start
    for k in range(count):
        work[k] = item(byte_ids, item(data, start + k))
        work[_BEFORE + k], work[_AFTER + k] = k - 1, k + 1
    for k in range(count - 1):
        pair = item(byte_pairs, int(item(data, start + k)) << 8 | int(item(data, start + k + 1)))
        work[_RANKS + k], work[_JOINED + k] = _ranked(pair, k), pair & _LOW
    work[_RANKS + count - 1] = _UNRANKED
    while True:
        best = _UNRANKED
        for k in range(count):
            best = min(best, item(work, _RANKS + k))
        if best == _UNRANKED:
            break
        at = int(best) & (_SCANNED - 1)
        gone = int(item(work, _AFTER + at))
        following = int(item(work, _AFTER + gone))
        work[at], work[_AFTER + at] = item(work, _JOINED + at), following
        work[_RANKS + gone] = work[_RANKS + at] = _UNRANKED
        if following < count:
            work[_BEFORE + following] = at
            pair = _merged(np.uint64(item(work, at)), np.uint64(item(work, following)), rules)
            work[_RANKS + at], work[_JOINED + at] = _ranked(pair, at), pair & _LOW
        if at > 0:
            left = int(item(work, _BEFORE + at))
            pair = _merged(np.uint64(item(work, left)), np.uint64(item(work, at)), rules)
            work[_RANKS + left], work[_JOINED + left] = _ranked(pair, left), pair & _LOW
    k = 0
    while k < count:
        out[total] = item(work, k)
        total += 1
        k = int(item(work, _AFTER + k))
    return total


@helper
def _ranked(pair: np.uint64, place: int) -> np.uint32:
    return _UNRANKED if pair == _NONE else np.uint32(pair >> _32 << np.uint64(6) | np.uint64(place))


@helper
def _push(heap: Any, size: int, rank: np.uint64, at: int) -> int:
    """Add a candidate; ordered by rank, then by place."""
    value = (rank & ~_LOW) | np.uint64(at)
    k = size
    while k > 0 and heap[(k - 1) >> 1] > value:
        heap[k] = heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap[k] = value
    return size + 1


@helper
def _pop(heap: Any, size: int) -> Any:
    """Take the least of `size` candidates."""
    top, last = heap[0], heap[size - 1]
    size -= 1
    k = 0
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= last:
            break
        heap[k] = heap[child]
        k = child
    heap[k] = last
    return top


@njit
def _merge_long(data: Any, start: int, end: int, rules: Rules, out: Any, total: int) -> Any:
    """Merge with a heap of candidates over a linked list; the same result as _merge_short."""
    count = end - start
    symbols, ranks = np.empty(count, np.uint64), np.full(count, _NONE, np.uint64)
    before, after = np.empty(count, np.int32), np.empty(count, np.int32)
    heap, size = np.empty(3 * count, np.uint64), 0
    for k in range(count):
        symbols[k] = np.uint64(rules.byte_ids[data[start + k]])
        before[k], after[k] = k - 1, k + 1
    for k in range(count - 1):
        ranks[k] = rules.byte_pairs[int(data[start + k]) << 8 | int(data[start + k + 1])]
        if ranks[k] != _NONE:
            size = _push(heap, size, ranks[k], k)
    while size > 0:
        top = _pop(heap, size)
        size -= 1
        at = int(top & _LOW)
        if ranks[at] == _NONE or (ranks[at] & ~_LOW) != (top & ~_LOW):
            continue  # merged away, or part of another pair since
        gone = after[at]
        symbols[at] = ranks[at] & _LOW
        after[at] = after[gone]
        ranks[gone] = _NONE
        ranks[at] = _NONE
        if after[at] < count:
            before[after[at]] = at
            ranks[at] = _merged(symbols[at], symbols[after[at]], rules)
            if ranks[at] != _NONE:
                size = _push(heap, size, ranks[at], at)
        left = before[at]
        if left >= 0:
            ranks[left] = _merged(symbols[left], symbols[at], rules)
            if ranks[left] != _NONE:
                size = _push(heap, size, ranks[left], left)
    k = 0
    while k < count:
        out[total] = symbols[k]
        total += 1
        k = after[k]
    return total


@njit
def _miss(data: Any, start: int, end: int, rules: Rules, cache: Cache, work: Any, out: Any, total: int) -> Any:
    """Merge a piece that is not cached, and keep it. Returns the new end of its ids in `out`."""
    new = -1
    if rules.whole.state[0] > 0:
        first, second = key(data, start, end)
        new = find(data, start, end, first, second, rules.whole, out, total)
    if new < 0:
        if end - start <= _SCANNED:
            new = _merge_short(data, start, end, rules, work, out, total)
        else:
            new = _merge_long(data, start, end, rules, out, total)
    store(data, start, end, cache, out, total, new)
    return new


@kernel(nogil=True)
def encode(data: Any, pieces: Any, piece_ends: Any, rules: Rules, cache: Cache, out: Any, out_ends: Any) -> Any:
    """Encode pieces that lie end to end in `data` (uint8, PADDING readable bytes after the last).

    pieces: where each ends; piece_ends: int64, number of pieces up to each text's end. Fills out (uint32, two more
    than there are bytes suffice) with ids and out_ends (int64, one a text) with their ends. Returns their number.
    """
    work = np.empty(5 * _SCANNED, np.uint32)
    firsts, seconds, places = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.intp)
    slots = cache.slots
    total = start = number = 0
    for text in range(piece_ends.size):
        while number < piece_ends[text]:
            block = min(_BLOCK, piece_ends[text] - number)
            at = start
            for k in range(block):
                end = int(item(pieces, number + k))
                firsts[k], seconds[k] = key(data, at, end)
                places[k] = slot_of(firsts[k], seconds[k], slots)
                prefetch(slots, places[k])
                at = end
            for k in range(block):
                end, first, second, place = int(item(pieces, number + k)), firsts[k], seconds[k], places[k]
                here, there = item(slots, place + 2), item(slots, place + 3)
                # What nearly every piece is, said here once more: a call of _find costs as much as all the rest.
                if item(slots, place) == first and item(slots, place + 1) == second < SPILLED and there < FEW:
                    out[total] = here & _LOW
                    out[total + 1] = here >> _32
                    out[total + 2] = there & _LOW
                    total += int(there >> _32)
                else:
                    new = find(data, start, end, first, second, cache, out, total)
                    total = _miss(data, start, end, rules, cache, work, out, total) if new < 0 else new
                start = end
            number += block
        out_ends[text] = total
    return total


def encode_words(words: list[bytes], rules: Rules, cache: Cache) -> Iterator[list[int]]:
    """Ids of single pieces, which stay in the cache."""
    data = np.frombuffer(b"".join([*words, bytes(PADDING)]), np.uint8)
    ends, numbers = np.cumsum([len(word) for word in words], dtype=np.int64), np.arange(1, len(words) + 1)
    out, out_ends = np.empty(len(data), np.uint32), np.empty(len(words), np.int64)
    encode(data, ends, numbers, rules, cache, out, out_ends)
    ids, stops = out.tolist(), out_ends.tolist()
    return (ids[start:stop] for start, stop in zip([0, *stops], stops, strict=False))


def whole_words(rules: Rules, words: dict[bytes, int]) -> Cache | None:
    """The table `whole` for a model that takes a piece which is a token as that token, merges or not
    (`ignore_merges`): the words that merging would not give. None where one is too long for the table.
    """
    merged = encode_words(list(words), rules, new_cache())
    odd = [(word, token) for (word, token), ids in zip(words.items(), merged, strict=True) if ids != [token]]
    if any(len(word) > LONGEST for word, _ in odd):
        return None
    table = new_cache(1 << max(10, (16 * len(odd)).bit_length()))  # room for the bytes of the longest words
    for word, token in odd:
        _enter(table, np.frombuffer(word + bytes(PADDING), np.uint8), len(word), token)
    return table


@kernel()
def _enter(table: Cache, word: Any, size: int, token: int) -> None:
    """Enter one word with its token."""
    store(word, 0, size, table, np.full(1, token, np.uint32), 0, 1)
