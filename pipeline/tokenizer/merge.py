"""Byte-pair encoding of pieces: a bounded cache in front of the merge loop, both compiled.

Words repeat, so a piece is first looked up in an open-addressing table from its bytes to its ids; when the table
is full it is emptied and fills again. Pieces of up to 15 bytes and 3 tokens lie in one 32-byte slot; others keep
their bytes and ids in two arenas. Bytes are compared, never hashes alone.

A miss is merged: short pieces by a scan for the lowest rank, long ones with a heap (n log n). Runs of Chinese or
Japanese letters are one long piece that no cache knows; they are first cut where no token of the vocabulary has
the two neighbouring characters side by side (`boundaries`). No merge can cross such a cut, so the ids are the same,
and the parts repeat as words do.

All compiled functions stand in this one file: numba's cache does not notice changes in another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

PADDING = 16  # bytes that must be readable after the last text
_SLOTS = 1 << 20
_IDS = 1 << 21
_KEYS = 1 << 24
_LONGEST = 128  # bytes of the longest cached piece
_SCANNED = 64  # symbols of the longest piece merged by scanning
_SPLIT_FROM = 24  # bytes from which any piece is cut at boundaries
_AHEAD = 8  # pieces whose slots are asked for before their turn
_SPILLED = np.uint64(0xFF) << np.uint64(56)
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


class Rules(NamedTuple):
    """What never changes. byte_ids: int32 (256,); byte_pairs: uint64 (65536,), the merge of two bytes; merges: uint64
    (2**k, 2), see `merge_table`; boundaries: uint64 bit set, see `boundary_set`, empty for none; whole: the words
    that are one token although no merges lead there.
    """

    byte_ids: Any
    byte_pairs: Any
    merges: Any
    boundaries: Any
    whole: Any


class Cache(NamedTuple):
    """About 57 MB. state: number of slots, ids and key bytes in use."""

    slots: Any
    ids: Any
    keys: Any
    state: Any


def new_cache(slots: int = _SLOTS) -> Cache:
    """An empty cache of a power of two of slots, of which six tenths are used at most."""
    share = _SLOTS // slots
    return Cache(
        np.zeros((slots, 4), np.uint64),
        np.zeros(_IDS // share, np.uint32),
        np.zeros(_KEYS // share, np.uint8),
        np.zeros(3, np.int64),
    )


def merge_table(pairs: np.ndarray[Any, np.dtype[np.uint64]], results: np.ndarray[Any, np.dtype[np.uint64]]) -> Any:
    """Open-addressing table from pairs (left << 32 | right) to results (rank << 32 | token), at most half full."""
    table = np.full((1 << max(2 * len(pairs), 4).bit_length(), 2), _NONE, np.uint64)
    _fill_merges(table, pairs, results)
    return table


def byte_pair_table(byte_ids: np.ndarray[Any, np.dtype[np.int32]], merges: Any) -> Any:
    """uint64 (65536,): rank << 32 | token for the bytes first << 8 | second, all ones where they do not merge."""
    table = np.empty(1 << 16, np.uint64)
    _fill_byte_pairs(table, byte_ids, merges)
    return table


@intrinsic
def _load(typing_context: Any, array: Any, index: Any) -> Any:
    """Eight bytes of a uint8 array as one word, wherever they begin."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(data, [arguments[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.intp), generate


@intrinsic
def _prefetch(typing_context: Any, array: Any, row: Any) -> Any:
    """Ask for a row of a two-dimensional contiguous array ahead of its use."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table = context.make_array(signature.args[0])(context, builder, arguments[0])
        step = builder.extract_value(table.strides, 0)
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.gep(builder.bitcast(table.data, byte), [builder.mul(arguments[1], step)])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit
def _mix(x: np.uint64) -> np.uint64:
    """A multiply and a fold, enough to spread table indices."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    return x ^ (x >> _32)


@njit
def _low_bytes(word: np.uint64, count: int) -> np.uint64:
    """The first `count` bytes of a word, the rest zero."""
    if count >= 8:
        return word
    return word & ((np.uint64(1) << np.uint64(8 * count)) - np.uint64(1))


@njit(cache=True)
def _fill_merges(table: Any, pairs: Any, results: Any) -> None:
    mask = np.uint64(table.shape[0] - 1)
    for i in range(pairs.size):
        place = _mix(pairs[i]) & mask
        while table[place, 0] != _NONE and table[place, 0] != pairs[i]:
            place = (place + np.uint64(1)) & mask
        table[place, 0], table[place, 1] = pairs[i], results[i]


@njit
def _merged(left: np.uint64, right: np.uint64, table: Any) -> Any:
    """rank << 32 | token of a pair, _NONE where the two do not merge."""
    mask = np.uint64(table.shape[0] - 1)
    pair = left << _32 | right
    place = _mix(pair) & mask
    while table[place, 0] != pair:
        if table[place, 0] == _NONE:
            return _NONE
        place = (place + np.uint64(1)) & mask
    return table[place, 1]


@njit(cache=True)
def _fill_byte_pairs(table: Any, byte_ids: Any, merges: Any) -> None:
    for pair in range(table.size):
        table[pair] = _merged(np.uint64(byte_ids[pair >> 8]), np.uint64(byte_ids[pair & 255]), merges)


@njit
def _merge_short(data: Any, start: int, end: int, rules: Rules, symbols: Any, ranks: Any, out: Any, total: int) -> Any:
    """Merge by scanning for the lowest rank, leftmost first. Returns the new length of `out`."""
    count = end - start
    for k in range(count):
        symbols[k] = np.uint64(rules.byte_ids[data[start + k]])
    for k in range(count - 1):
        ranks[k] = rules.byte_pairs[int(data[start + k]) << 8 | int(data[start + k + 1])]
    while count > 1:
        best, at = _NONE, 0
        for k in range(count - 1):
            if ranks[k] < best:
                best, at = ranks[k], k
        if best == _NONE:
            break
        symbols[at] = best & _LOW
        for k in range(at + 1, count - 1):
            symbols[k] = symbols[k + 1]
            ranks[k] = ranks[k + 1]
        count -= 1
        if at > 0:
            ranks[at - 1] = _merged(symbols[at - 1], symbols[at], rules.merges)
        if at < count - 1:
            ranks[at] = _merged(symbols[at], symbols[at + 1], rules.merges)
    for k in range(count):
        out[total + k] = symbols[k]
    return total + count


@njit
def _push(heap: Any, size: int, rank: np.uint64, at: int) -> int:
    """Add a candidate; ordered by rank, then by place."""
    value = (rank & ~_LOW) | np.uint64(at)
    k = size
    while k > 0 and heap[(k - 1) >> 1] > value:
        heap[k] = heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap[k] = value
    return size + 1


@njit
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
            ranks[at] = _merged(symbols[at], symbols[after[at]], rules.merges)
            if ranks[at] != _NONE:
                size = _push(heap, size, ranks[at], at)
        left = before[at]
        if left >= 0:
            ranks[left] = _merged(symbols[left], symbols[at], rules.merges)
            if ranks[left] != _NONE:
                size = _push(heap, size, ranks[left], left)
    k = 0
    while k < count:
        out[total] = symbols[k]
        total += 1
        k = after[k]
    return total


@njit
def _key(data: Any, start: int, end: int) -> tuple[np.uint64, np.uint64]:
    """Two words for a piece: up to 15 bytes the bytes themselves and the length, else a hash and the length."""
    length = end - start
    if length <= 15:
        second = _low_bytes(_load(data, start + 8), length - 8) if length > 8 else np.uint64(0)
        return _low_bytes(_load(data, start), length), second | np.uint64(length) << np.uint64(56)
    first = np.uint64(length)
    for k in range(start, end, 8):
        first = _mix(first ^ _low_bytes(_load(data, k), end - k))
    return first, _SPILLED | np.uint64(length)


@njit
def _find(data: Any, start: int, end: int, slots: Any, ids: Any, keys: Any, out: Any, total: int) -> int:
    """Copy a cached piece's ids to out[total:]. Returns their new end, or -1 where the piece is not cached."""
    first, second = _key(data, start, end)
    length = end - start
    mask = np.uint64(slots.shape[0] - 1)
    place = _mix(_mix(first) ^ second) & mask
    while slots[place, 1] != 0:
        if slots[place, 0] == first and slots[place, 1] == second:
            here, there = slots[place, 2], slots[place, 3]
            count = int(there >> _32)
            if length <= 15 and count <= 3:
                out[total] = here & _LOW
                out[total + 1] = here >> _32  # beyond the end where there are fewer: overwritten by what follows
                out[total + 2] = there & _LOW
                return total + count
            same = True
            if length > 15:
                key = int(there & _LOW)
                for k in range(0, length, 8):
                    rest = length - k
                    if _low_bytes(_load(keys, key + k), rest) != _low_bytes(_load(data, start + k), rest):
                        same = False
                        break
            if same:
                at = int(here & _LOW)
                for k in range(count):
                    out[total + k] = ids[at + k]
                return total + count
        place = (place + np.uint64(1)) & mask
    return -1


@njit
def _store(data: Any, start: int, end: int, cache: Cache, out: Any, total: int, new: int) -> None:
    """Keep out[total:new] as the ids of a piece that is not cached; a full cache is emptied first."""
    length, count = end - start, new - total
    slots, (used, ids, keys) = cache.slots, (cache.state[0], cache.state[1], cache.state[2])
    if length > _LONGEST:
        return
    if used * 10 >= slots.shape[0] * 6 or ids + count > cache.ids.size or keys + length + 8 > cache.keys.size:
        slots[:] = 0
        cache.state[:] = 0
        used = ids = keys = 0
    first, second = _key(data, start, end)
    mask = np.uint64(slots.shape[0] - 1)
    place = _mix(_mix(first) ^ second) & mask
    while slots[place, 1] != 0:
        place = (place + np.uint64(1)) & mask
    here, there = np.uint64(out[total]), np.uint64(count) << _32
    if length > 15 or count > 3:
        for k in range(count):
            cache.ids[ids + k] = out[total + k]
        here = np.uint64(ids)
        cache.state[1] = ids + count
    else:
        if count > 1:
            here |= np.uint64(out[total + 1]) << _32
        if count > 2:
            there |= np.uint64(out[total + 2])
    if length > 15:
        there |= np.uint64(keys)
        for k in range(length):
            cache.keys[keys + k] = data[start + k]
        cache.state[2] = keys + length
    slots[place, 0], slots[place, 1], slots[place, 2], slots[place, 3] = first, second, here, there
    cache.state[0] = used + 1


@njit
def _miss(
    data: Any, start: int, end: int, rules: Rules, cache: Cache, symbols: Any, ranks: Any, out: Any, total: int
) -> Any:
    """Merge a piece that is not cached, and keep it. Returns the new end of its ids in `out`."""
    new, whole = -1, rules.whole
    if whole.state[0] > 0:
        new = _find(data, start, end, whole.slots, whole.ids, whole.keys, out, total)
    if new < 0:
        if end - start <= _SCANNED:
            new = _merge_short(data, start, end, rules, symbols, ranks, out, total)
        else:
            new = _merge_long(data, start, end, rules, out, total)
    _store(data, start, end, cache, out, total, new)
    return new


@njit
def _width(first: int) -> int:
    """Bytes of the character whose first byte this is."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


@njit
def _packed(data: Any, start: int, end: int) -> np.uint64:
    value = np.uint64(0)
    for k in range(start, end):
        value = value << np.uint64(8) | np.uint64(data[k])
    return value


@njit
def _bit(left: np.uint64, right: np.uint64, boundaries: Any) -> tuple[np.uint64, np.uint64]:
    """Word and bit of two neighbours (one character or part of one each) in the bit set."""
    place = _mix(_mix(left) ^ right) & np.uint64(boundaries.size * 64 - 1)
    return place >> np.uint64(6), np.uint64(1) << (place & np.uint64(63))


@njit
def _joined(left: np.uint64, left_bytes: int, right: np.uint64, right_bytes: int, boundaries: Any) -> bool:
    """Whether some token may have the end of character `left` beside the beginning of character `right`."""
    for i in range(1, left_bytes + 1):
        tail = left & ((np.uint64(1) << np.uint64(8 * i)) - np.uint64(1))
        for j in range(1, right_bytes + 1):
            word, bit = _bit(tail, right >> np.uint64(8 * (right_bytes - j)), boundaries)
            if boundaries[word] & bit:
                return True
    return False


@njit(cache=True)
def _fill_boundaries(boundaries: Any, data: Any, ends: Any) -> None:
    """Enter the neighbours at each place inside each token where a character begins."""
    start = 0
    for token in range(ends.size):
        end = ends[token]
        before = start
        for at in range(start + 1, end):
            if data[at] & 0xC0 == 0x80:
                continue
            stop = min(at + _width(data[at]), end)
            word, bit = _bit(_packed(data, max(before, at - 4), at), _packed(data, at, stop), boundaries)
            boundaries[word] |= bit
            before = at
        start = end


def boundary_set(tokens: list[bytes]) -> Any:
    """Bit set (uint64 words) of all neighbours inside tokens; 64 bits or more a token keep chance hits rare."""
    data = np.frombuffer(b"".join(tokens) + bytes(PADDING), np.uint8)
    boundaries = np.zeros(1 << max(len(tokens), 1).bit_length(), np.uint64)
    _fill_boundaries(boundaries, data, np.cumsum([len(token) for token in tokens]))
    return boundaries


@njit
def _part_end(data: Any, start: int, end: int, boundaries: Any) -> Any:
    """End of the part of a piece that begins at `start`: the first place where no token can join two characters."""
    at, width = start, _width(data[start])
    value = _packed(data, at, at + width)
    while at + width < end:
        at += width
        next_width = _width(data[at])
        next_value = _packed(data, at, at + next_width)
        if not _joined(value, width, next_value, next_width, boundaries):
            return at
        width, value = next_width, next_value
    return end


@njit(cache=True, nogil=True)
def encode(data: Any, pieces: Any, piece_ends: Any, rules: Rules, cache: Cache, out: Any, out_ends: Any) -> Any:
    """Encode pieces that lie end to end in `data` (uint8, PADDING readable bytes after the last).

    pieces: int64, where each ends; piece_ends: int64, number of pieces up to each text's end. Fills out (uint32,
    two more than there are bytes suffice) with ids and out_ends (int64, one a text) with their ends. Returns their
    number.
    """
    symbols, ranks = np.empty(_SCANNED, np.uint64), np.empty(_SCANNED, np.uint64)
    slots, ids, keys, boundaries = cache.slots, cache.ids, cache.keys, rules.boundaries
    total = start = number = 0
    mask, count = np.uint64(slots.shape[0] - 1), piece_ends[-1] if piece_ends.size else 0
    for text in range(piece_ends.size):
        while number < piece_ends[text]:
            end = pieces[number]
            number += 1
            ahead = number + _AHEAD
            if ahead < count and pieces[ahead] - pieces[ahead - 1] <= 15:
                first, second = _key(data, pieces[ahead - 1], pieces[ahead])
                _prefetch(slots, np.intp(_mix(_mix(first) ^ second) & mask))
            # U+3000 to U+9FFF: kana and Han, which stand unspaced
            unspaced = end - start > 3 and 0xE3 <= data[end - 3] <= 0xE9
            cut = boundaries.size > 0 and (unspaced or (end - start > _SPLIT_FROM and data[end - 1] >= 0x80))
            while start < end:
                stop = _part_end(data, start, end, boundaries) if cut else end
                new = _find(data, start, stop, slots, ids, keys, out, total)
                total = _miss(data, start, stop, rules, cache, symbols, ranks, out, total) if new < 0 else new
                start = stop
        out_ends[text] = total
    return total


def with_whole_words(rules: Rules, whole: dict[bytes, int]) -> Rules | None:
    """Rules for a model that takes a piece which is a token as that token, merges or not (`ignore_merges`).

    Only tokens that merging would not give matter. If there are some, pieces are no longer cut at boundaries: a
    part of a piece that spells such a token must still be merged. None where one is too long for the table.
    """
    words = list(whole)
    data = np.frombuffer(b"".join(words) + bytes(PADDING), np.uint8)
    ends = np.cumsum([len(word) for word in words])
    out, out_ends = np.empty(len(data), np.uint32), np.empty(len(words), np.int64)
    encode(data, ends, np.arange(1, len(words) + 1), rules, new_cache(), out, out_ends)
    starts = np.concatenate(([0], out_ends[:-1]))
    odd = [
        (word, whole[word])
        for word, start, end in zip(words, starts.tolist(), out_ends.tolist(), strict=True)
        if end - start != 1 or out[start] != whole[word]
    ]
    if not odd:
        return rules
    if any(len(word) > _LONGEST for word, _ in odd):
        return None
    table = new_cache(1 << max(10, (16 * len(odd)).bit_length()))  # room for the bytes of the longest words
    for word, token in odd:
        _enter(table, np.frombuffer(word + bytes(PADDING), np.uint8), len(word), token)
    return rules._replace(whole=table, boundaries=np.zeros(0, np.uint64))


@njit(cache=True)
def _enter(table: Cache, word: Any, length: int, token: int) -> None:
    """Enter one word with its token."""
    _store(word, 0, length, table, np.full(1, token, np.uint32), 0, 1)
