"""Byte-pair encoding of pieces: a cache of merged pieces in front of the merge loop, both compiled.

Words repeat. The cache is an open-addressing table from a piece's bytes to its ids, of bounded size: when it is full
it is emptied and fills again. Pieces of up to 15 bytes and 3 tokens lie in one 32-byte slot; others keep their bytes
and ids in two arenas. Bytes are compared, never hashes alone. The slots of 32 pieces are prefetched before the first
of them is looked at. A miss is merged: short pieces by a scan for the lowest rank, long ones with a heap (n log n).

Cost a piece: 10 to 20 ns from the cache, some 500 ns merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compiled import PADDING, Array, inner, item, kernel, njit, prefetch, word_at
from pipeline.kernels.hashing import spread

LONGEST = 128  # bytes of the longest piece kept
SPILLED = np.uint64(0xFF) << np.uint64(56)  # from this on, a key's second word says that its bytes lie in the arena
FEW = np.uint64(4) << np.uint64(32)  # from this on, a slot's last word says that the ids lie in the arena
_SLOTS = 1 << 20
_IDS = 1 << 21
_KEYS = 1 << 24
_SCANNED = 64  # symbols of the longest piece merged by scanning
_RANKS, _JOINED, _BEFORE, _AFTER = (_SCANNED * k for k in range(1, 5))  # in `work`
_BLOCK = 32  # pieces whose slots are prefetched together
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
_UNRANKED = np.uint32(0xFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_1, _32, _56 = np.uint64(1), np.uint64(32), np.uint64(56)


class Cache(NamedTuple):
    """About 57 MB. slots: uint64, four a slot; state: number of slots, ids and key bytes in use."""

    slots: Array
    ids: Array
    keys: Array
    state: Array


class Rules(NamedTuple):
    """What never changes. byte_ids: int32 (256,); byte_pairs: uint64 (65536,), rank << 32 | token for two bytes, first
    << 8 | second, all ones where they do not merge; known: uint64 bit set of pairs that may merge, small enough to stay
    near; merges: uint64, an open-addressing table at most half full in which pair (left << 32 | right) and result lie
    side by side; whole: the words that are one token although no merges lead there.
    """

    byte_ids: Array
    byte_pairs: Array
    known: Array
    merges: Array
    whole: Cache


def new_cache(slots: int = _SLOTS) -> Cache:
    """An empty cache of a power of two of slots, of which six tenths are used at most."""
    share = _SLOTS // slots
    table = np.empty(4 * slots, np.uint64)  # and not `zeros`: numpy asks for huge pages for these alone
    table[:] = 0
    return Cache(table, np.zeros(_IDS // share, np.uint32), np.zeros(_KEYS // share, np.uint8), np.zeros(3, np.int64))


def rules(byte_ids: np.ndarray[Any, np.dtype[np.int32]], merges: dict[tuple[int, int], tuple[int, int]]) -> Rules:
    """Tables of the merges, (left, right) to (rank, token). Raises ValueError for more than 2**25 of them."""
    if len(merges) > 1 << 25:
        raise ValueError(f"{len(merges)} merges: the tables hold {1 << 25}")
    size = 1 << max(2 * len(merges), 4).bit_length()
    tables = Rules(
        byte_ids,
        np.empty(1 << 16, np.uint64),
        np.zeros(max(size // 16, 1), np.uint64),
        np.full(2 * size, _NONE, np.uint64),
        new_cache(1 << 10),
    )
    pairs = np.array([left << 32 | right for left, right in merges], np.uint64)
    results = np.array([rank << 32 | token for rank, token in merges.values()], np.uint64)
    _fill_merges(tables.merges, tables.known, pairs, results)
    _fill_byte_pairs(tables)
    return tables


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


@inner
def _low_bytes(word: np.uint64, count: int) -> np.uint64:
    """The first `count` bytes of a word, the rest zero."""
    if count >= 8:
        return word
    return word & ((_1 << np.uint64(8 * count)) - _1)


@inner
def _key(data: Array, start: int, end: int) -> tuple[np.uint64, np.uint64]:
    """Two words for a piece: up to 15 bytes the bytes themselves and the length, else a hash and the length."""
    size = end - start
    if size <= 15:
        second = _low_bytes(word_at(data, start + 8), size - 8) if size > 8 else np.uint64(0)
        return _low_bytes(word_at(data, start), size), second | np.uint64(size) << _56
    first = np.uint64(size)
    for k in range(start, end, 8):
        first = spread(first ^ _low_bytes(word_at(data, k), end - k))
    return first, SPILLED | np.uint64(size)


@inner
def _slot_of(first: np.uint64, second: np.uint64, slots: Array) -> Any:
    """Index of the first word of the slot that a key belongs into."""
    return np.intp(spread(spread(first) ^ second) << np.uint64(2) & np.uint64(slots.size - 1))


@inner
def _same(data: Array, start: int, size: int, keys: Array, at: int) -> bool:
    """Whether a long piece is the one whose bytes are keys[at:]."""
    for k in range(0, size, 8):
        if _low_bytes(word_at(keys, at + k), size - k) != _low_bytes(word_at(data, start + k), size - k):
            return False
    return True


@inner
def _find(data: Array, start: int, end: int, first: Array, second: Array, cache: Cache, out: Array, total: int) -> int:
    """Copy a cached piece's ids to out[total:]. Returns their new end, or -1 where the piece is not cached."""
    slots = cache.slots
    slot, size = _slot_of(first, second, slots), end - start
    while item(slots, slot + 1) != 0:
        if item(slots, slot) == first and item(slots, slot + 1) == second:
            here, there = item(slots, slot + 2), item(slots, slot + 3)
            count = int(there >> _32)
            if size <= 15 and count <= 3:
                out[total] = here & _LOW
                out[total + 1] = here >> _32  # beyond the end where there are fewer: overwritten by what follows
                out[total + 2] = there & _LOW
                return total + count
            if size <= 15 or _same(data, start, size, cache.keys, int(there & _LOW)):
                at = int(here & _LOW)
                for k in range(count):
                    out[total + k] = item(cache.ids, at + k)
                return total + count
        slot = (slot + 4) & (slots.size - 1)
    return -1


@inner
def _store(data: Array, start: int, end: int, cache: Cache, out: Array, total: int, new: int) -> None:
    """Keep out[total:new] as the ids of a piece that is not cached; a full cache is emptied first."""
    size, count = end - start, new - total
    slots, (used, ids, keys) = cache.slots, (cache.state[0], cache.state[1], cache.state[2])
    if size > LONGEST:
        return
    if used * 40 >= slots.size * 6 or ids + count > cache.ids.size or keys + size + 8 > cache.keys.size:
        slots[:] = 0
        cache.state[:] = 0
        used = ids = keys = 0
    first, second = _key(data, start, end)
    slot = _slot_of(first, second, slots)
    while slots[slot + 1] != 0:
        slot = (slot + 4) & (slots.size - 1)
    here, there = np.uint64(out[total]), np.uint64(count) << _32
    if size > 15 or count > 3:
        for k in range(count):
            cache.ids[ids + k] = out[total + k]
        here = np.uint64(ids)
        cache.state[1] = ids + count
    else:
        if count > 1:
            here |= np.uint64(out[total + 1]) << _32
        if count > 2:
            there |= np.uint64(out[total + 2])
    if size > 15:
        there |= np.uint64(keys)
        for k in range(size):
            cache.keys[keys + k] = data[start + k]
        cache.state[2] = keys + size
    slots[slot], slots[slot + 1], slots[slot + 2], slots[slot + 3] = first, second, here, there
    cache.state[0] = used + 1


@inner
def _merge_slot(hashed: np.uint64, pair: np.uint64, table: Array) -> Any:
    """Index of a pair in a merge table, or of the free slot where it would be."""
    mask = np.uint64(table.size // 2 - 1)
    slot = hashed & mask
    while item(table, np.intp(slot << _1)) != pair and item(table, np.intp(slot << _1)) != _NONE:
        slot = (slot + _1) & mask
    return np.intp(slot << _1)


@inner
def _bit(hashed: np.uint64, known: Array) -> Any:
    """Word and bit of a pair in the bit set."""
    bit = hashed >> _32 & np.uint64(known.size * 64 - 1)
    return np.intp(bit >> np.uint64(6)), _1 << (bit & np.uint64(63))


@kernel()
def _fill_merges(table: Array, known: Array, pairs: Array, results: Array) -> None:
    for i in range(pairs.size):
        hashed = spread(pairs[i])
        slot = _merge_slot(hashed, pairs[i], table)
        table[slot], table[slot + 1] = pairs[i], results[i]
        word, bit = _bit(hashed, known)
        known[word] |= bit


@inner
def _merged(left: np.uint64, right: np.uint64, rules: Rules) -> Any:
    """rank << 32 | token of a pair, _NONE where the two do not merge (a free slot holds it, too)."""
    pair = left << _32 | right
    hashed = spread(pair)
    word, bit = _bit(hashed, rules.known)
    if item(rules.known, word) & bit == 0:
        return _NONE
    return item(rules.merges, _merge_slot(hashed, pair, rules.merges) + 1)


@kernel()
def _fill_byte_pairs(rules: Rules) -> None:
    for pair in range(rules.byte_pairs.size):
        left, right = rules.byte_ids[pair >> 8], rules.byte_ids[pair & 255]
        rules.byte_pairs[pair] = _merged(np.uint64(left), np.uint64(right), rules)


@inner
def _merge_short(data: Array, start: int, end: int, rules: Rules, work: Array, out: Array, total: int) -> Any:
    """Merge by scanning for the lowest rank, leftmost first. Returns the new length of `out`.

    work: uint32 (5 * _SCANNED,): for each position its symbol, rank << 6 | position of the pair that begins there (all
    ones for none), the token that the pair becomes, and the positions of the symbols before and after.
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


@inner
def _ranked(pair: np.uint64, at: int) -> np.uint32:
    return _UNRANKED if pair == _NONE else np.uint32(pair >> _32 << np.uint64(6) | np.uint64(at))


@inner
def _push(heap: Array, size: int, rank: np.uint64, at: int) -> int:
    """Add a candidate; ordered by rank, then by position."""
    value = (rank & ~_LOW) | np.uint64(at)
    k = size
    while k > 0 and heap[(k - 1) >> 1] > value:
        heap[k] = heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap[k] = value
    return size + 1


@inner
def _pop(heap: Array, size: int) -> Any:
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
def _merge_long(data: Array, start: int, end: int, rules: Rules, out: Array, total: int) -> Any:
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
def _miss(data: Array, start: int, end: int, rules: Rules, cache: Cache, work: Array, out: Array, total: int) -> Any:
    """Merge a piece that is not cached, and keep it. Returns the new end of its ids in `out`."""
    new = -1
    if rules.whole.state[0] > 0:
        first, second = _key(data, start, end)
        new = _find(data, start, end, first, second, rules.whole, out, total)
    if new < 0:
        if end - start <= _SCANNED:
            new = _merge_short(data, start, end, rules, work, out, total)
        else:
            new = _merge_long(data, start, end, rules, out, total)
    _store(data, start, end, cache, out, total, new)
    return new


@kernel(nogil=True)
def encode(
    data: Array, pieces: Array, piece_ends: Array, rules: Rules, cache: Cache, out: Array, out_ends: Array
) -> Any:
    """Encode pieces that lie end to end in `data` (uint8, PADDING readable bytes after the last).

    pieces: where each ends; piece_ends: int64, number of pieces up to each text's end. Fills out (uint32, two more
    than there are bytes suffice) with ids and out_ends (int64, one a text) with their ends. Returns their number.
    """
    work = np.empty(5 * _SCANNED, np.uint32)
    firsts, seconds, indices = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.intp)
    slots = cache.slots
    total = start = number = 0
    for text in range(piece_ends.size):
        while number < piece_ends[text]:
            block = min(_BLOCK, piece_ends[text] - number)
            at = start
            for k in range(block):
                end = int(item(pieces, number + k))
                firsts[k], seconds[k] = _key(data, at, end)
                indices[k] = _slot_of(firsts[k], seconds[k], slots)
                prefetch(slots, indices[k])
                at = end
            for k in range(block):
                end, first, second, index = int(item(pieces, number + k)), firsts[k], seconds[k], indices[k]
                here, there = item(slots, index + 2), item(slots, index + 3)
                # Fast path for almost every piece, inlined: calling `_find` would double the cost.
                if item(slots, index) == first and item(slots, index + 1) == second < SPILLED and there < FEW:
                    out[total] = here & _LOW
                    out[total + 1] = here >> _32
                    out[total + 2] = there & _LOW
                    total += int(there >> _32)
                else:
                    new = _find(data, start, end, first, second, cache, out, total)
                    total = _miss(data, start, end, rules, cache, work, out, total) if new < 0 else new
                start = end
            number += block
        out_ends[text] = total
    return total


@kernel()
def _enter(table: Cache, word: Array, size: int, token: int) -> None:
    """Enter one word with its token."""
    _store(word, 0, size, table, np.full(1, token, np.uint32), 0, 1)
