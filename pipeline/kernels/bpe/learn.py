"""Learning a byte-level BPE: count the pieces of texts, then join the most frequent pair of tokens again and again.

The merges are those of `tokenizers.trainers.BpeTrainer`: of equally frequent pairs the one of lower ids comes first,
and a merge that spells a token anew gets its id. A heap holds pairs with the pieces in which they appeared, counts that
have changed since are looked at when their turn comes. Cost: 15 ns a byte of text, then 0.1 to 0.4 s for some 50,000
different pieces; memory: up to 200 bytes for each byte of the different pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.bpe.patterns import FAMILIES, Pattern, character_classes
from pipeline.kernels.bpe.split import split
from pipeline.kernels.compiled import PADDING, Array, inner, item, kernel
from pipeline.kernels.hashing import spread

_GROUP = 1 << 20  # bytes of text counted together
_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


class Strings(NamedTuple):
    """Different byte strings, numbered as they came, with a count each.

    slots: int64, an open-addressing table of number + 1, at most half full; data: uint8, the strings end to end;
    bounds: int64, where each begins and the last ends.
    """

    slots: Array
    data: Array
    bounds: Array
    counts: Array


def _room(strings: int, size: int) -> Strings:
    slots = np.zeros(2 << strings.bit_length(), np.int64)
    return Strings(slots, np.empty(size, np.uint8), np.zeros(strings + 1, np.int64), np.zeros(strings, np.int64))


def count_pieces(texts: Iterable[str], pattern: Pattern) -> Strings:
    """The different pieces of texts, and how often they occur."""
    known, used = _room(0, 0), 0
    group: list[bytes] = []

    def count() -> None:
        nonlocal known, used
        data = np.frombuffer(b"".join([*group, bytes(PADDING)]), np.uint8)
        ends, pieces = np.cumsum([len(text) for text in group], dtype=np.int64), np.empty(len(data), np.int32)
        family = FAMILIES.index(pattern.family)
        total = split(data, ends, character_classes(), family, pattern.digits, pieces, np.empty_like(ends))
        known = _with_room(known, used, total, len(data))
        used = _enter(data, pieces[:total], np.ones(total, np.int64), known, used)
        group.clear()

    size = 0
    for text in texts:
        group.append(text.encode())
        size += len(group[-1])
        if size >= _GROUP:
            count()
            size = 0
    count()
    return _used(known, used)


def add_up(parts: Iterable[Strings]) -> Strings:
    """The pieces of all texts, in the order in which `count_pieces` gives them, from those of some texts at a time."""
    known, used = _room(0, 0), 0
    for part in parts:
        known = _with_room(known, used, len(part.counts), len(part.data))
        used = _enter(part.data, part.bounds[1:], part.counts, known, used)
    return _used(known, used)


def _with_room(known: Strings, used: int, strings: int, size: int) -> Strings:
    """The `used` strings with room for more of them, of `size` bytes."""
    if used + strings <= len(known.counts) and known.bounds[used] + size <= len(known.data):
        return known
    larger = _room(2 * (used + strings), 2 * (int(known.bounds[used]) + size))
    _enter(known.data, known.bounds[1 : used + 1], known.counts, larger, 0)
    return larger


def _used(known: Strings, used: int) -> Strings:
    """The strings without room for others."""
    bounds = known.bounds[: used + 1]
    return Strings(known.slots, known.data[: bounds[-1]], bounds, known.counts[:used])


def learn_merges(pieces: Strings, tokens: list[str], byte_ids: Array, size: int) -> Array:
    """int64 (merges, 3): left, right and joined token, in order, up to a vocabulary of `size`.

    tokens: the vocabulary so far, in order of ids; byte_ids: int64 (256,), ids of the bytes.
    """
    spelt = [token.encode() for token in tokens]
    known = _room(max(size, len(tokens)), 64 * max(size, len(tokens)) + sum(map(len, spelt)))
    ends = np.cumsum([len(token) for token in spelt], dtype=np.int64)
    used = _enter(np.frombuffer(b"".join(spelt), np.uint8), ends, np.ones(len(tokens), np.int64), known, 0)
    symbols = byte_ids[pieces.data[: pieces.bounds[-1]]]
    merges: Array = _learn(symbols, pieces.bounds, pieces.counts, known, used, size)
    return merges


@inner
def _slot(data: Array, start: int, end: int, known: Strings) -> Any:
    """Slot of a string, or the free one where it would be."""
    value = np.uint64(end - start)
    for k in range(start, end):
        value = spread(value ^ np.uint64(item(data, k)))
    slot = np.int64(value & np.uint64(known.slots.size - 1))
    while known.slots[slot] != 0:
        at = known.bounds[known.slots[slot] - 1]
        k = start
        if known.bounds[known.slots[slot]] - at == end - start:
            while k < end and item(data, k) == item(known.data, at + k - start):
                k += 1
        if k == end:
            return slot
        slot = (slot + 1) & (known.slots.size - 1)
    return slot


@kernel()
def _enter(data: Array, ends: Array, counts: Array, known: Strings, used: int) -> int:
    """Count strings that lie end to end; new ones get numbers from `used` on. Returns how many are known now."""
    start = np.int64(0)
    for i in range(ends.size):
        end = np.int64(ends[i])
        slot = _slot(data, start, end, known)
        if known.slots[slot] == 0:
            at = known.bounds[used]
            known.data[at : at + end - start] = data[start:end]
            known.bounds[used + 1] = at + end - start
            used += 1
            known.slots[slot] = used
        known.counts[known.slots[slot] - 1] += counts[i]
        start = end
    return used


@inner
def _first(one: int, other: int, counts: Array, pairs: Array) -> Any:
    """Whether an entry of the heap comes before another: more frequent, or as frequent and of lower ids."""
    return counts[one] > counts[other] or (counts[one] == counts[other] and pairs[one] < pairs[other])


@inner
def _push(heap: Array, size: int, entry: int, counts: Array, pairs: Array) -> int:
    k = size
    while k > 0 and _first(entry, heap[(k - 1) >> 1], counts, pairs):
        heap[k] = heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap[k] = entry
    return size + 1


@inner
def _pop(heap: Array, size: int, counts: Array, pairs: Array) -> int:
    """Remove the first entry, heap[0], of `size`; returns how many are left."""
    size -= 1
    last, k = heap[size], 0
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and _first(heap[child + 1], heap[child], counts, pairs):
            child += 1
        if not _first(heap[child], last, counts, pairs):
            break
        heap[k] = heap[child]
        k = child
    heap[k] = last
    return size


class _Pairs(NamedTuple):
    """Pairs of tokens, numbered as they came. slots: as of `Strings`; keys: uint64, left << 32 | right; counts: int64;
    heads: int64, the newest of the nodes that list the pieces in which a pair has appeared since it was last queued, -1
    where there is none; nodes: int64 (n, 2), piece and next node; waiting: int64, pairs to be queued; used: int64 (3,),
    how many pairs, nodes and waiting ones there are."""

    slots: Array
    keys: Array
    counts: Array
    heads: Array
    nodes: Array
    waiting: Array
    used: Array


@inner
def _change(left: int, right: int, by: int, piece: int, pairs: _Pairs) -> None:
    """Change a pair's count; where it grows, note that it appears in this piece."""
    key = np.uint64(left) << _32 | np.uint64(right)
    slot = np.int64(spread(key) & np.uint64(pairs.slots.size - 1))
    while pairs.slots[slot] != 0 and pairs.keys[pairs.slots[slot] - 1] != key:
        slot = (slot + 1) & (pairs.slots.size - 1)
    if pairs.slots[slot] == 0:
        pairs.keys[pairs.used[0]], pairs.counts[pairs.used[0]], pairs.heads[pairs.used[0]] = key, 0, -1
        pairs.used[0] += 1
        pairs.slots[slot] = pairs.used[0]
    number = pairs.slots[slot] - 1
    pairs.counts[number] += by
    if by > 0 and (pairs.heads[number] < 0 or pairs.nodes[pairs.heads[number], 0] != piece):
        if pairs.heads[number] < 0:
            pairs.waiting[pairs.used[2]] = number
            pairs.used[2] += 1
        pairs.nodes[pairs.used[1], 0], pairs.nodes[pairs.used[1], 1] = piece, pairs.heads[number]
        pairs.heads[number] = pairs.used[1]
        pairs.used[1] += 1


@inner
def _join(symbols: Array, start: int, size: int, left: int, right: int, joined: int, count: int, piece: int,
          pairs: _Pairs) -> int:  # fmt: skip
    """Join a pair wherever it is in a piece, from the left. Returns the piece's new size."""
    out = k = 0
    while k < size:
        if symbols[start + k] == left and k + 1 < size and symbols[start + k + 1] == right:
            if out > 0:
                _change(symbols[start + out - 1], left, -count, piece, pairs)
                _change(symbols[start + out - 1], joined, count, piece, pairs)
            if k + 2 < size:
                _change(right, symbols[start + k + 2], -count, piece, pairs)
                _change(joined, symbols[start + k + 2], count, piece, pairs)
            symbols[start + out] = joined
            k += 2
        else:
            symbols[start + out] = symbols[start + k]
            k += 1
        out += 1
    return out


@kernel()
def _learn(symbols: Array, bounds: Array, counts: Array, known: Strings, used: int, size: int) -> Array:
    """The merges, as `learn_merges` gives them; joined tokens are entered among the `used` strings of `known`."""
    room = 3 * symbols.size + 1  # a merge takes one symbol away and makes two pairs at most
    width = 4
    while width < 2 * room:
        width *= 2
    pairs = _Pairs(
        np.zeros(width, np.int64),
        np.empty(room, np.uint64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty((room, 2), np.int64),
        np.empty(room, np.int64),
        np.zeros(3, np.int64),
    )
    heap, queued = np.empty(room, np.int64), 0
    entries, entry_pairs, entry_counts = 0, np.empty(room, np.uint64), np.empty(room, np.int64)
    entry_numbers, entry_heads = np.empty(room, np.int64), np.empty(room, np.int64)
    merges, done = np.empty((room, 3), np.int64), 0
    sizes = bounds[1:] - bounds[:-1]
    for piece in range(counts.size):
        for k in range(bounds[piece] + 1, bounds[piece + 1]):
            _change(symbols[k - 1], symbols[k], counts[piece], piece, pairs)
    while True:
        for k in range(pairs.used[2]):
            number = pairs.waiting[k]
            if pairs.counts[number] > 0:
                entry_pairs[entries], entry_counts[entries] = pairs.keys[number], pairs.counts[number]
                entry_numbers[entries], entry_heads[entries] = number, pairs.heads[number]
                queued = _push(heap, queued, entries, entry_counts, entry_pairs)
                entries += 1
            pairs.heads[number] = -1
        pairs.used[2] = 0
        while queued and entry_counts[heap[0]] != pairs.counts[entry_numbers[heap[0]]]:
            entry = heap[0]
            queued = _pop(heap, queued, entry_counts, entry_pairs)
            entry_counts[entry] = pairs.counts[entry_numbers[entry]]
            queued = _push(heap, queued, entry, entry_counts, entry_pairs)
        if queued == 0 or entry_counts[heap[0]] < 1 or used >= size:
            return merges[:done]
        entry = heap[0]
        queued = _pop(heap, queued, entry_counts, entry_pairs)
        left, right = np.int64(entry_pairs[entry] >> _32), np.int64(entry_pairs[entry] & _LOW)
        start = known.bounds[used]
        middle = start + known.bounds[left + 1] - known.bounds[left]
        end = middle + known.bounds[right + 1] - known.bounds[right]
        if end > known.data.size:
            more = np.empty(end, np.uint8)
            known = Strings(known.slots, np.concatenate((known.data, more)), known.bounds, known.counts)
        known.data[start:middle] = known.data[known.bounds[left] : known.bounds[left + 1]]
        known.data[middle:end] = known.data[known.bounds[right] : known.bounds[right + 1]]
        slot = _slot(known.data, start, end, known)
        if known.slots[slot] == 0:
            used += 1
            known.bounds[used], known.slots[slot] = end, used
        joined = known.slots[slot] - 1
        merges[done, 0], merges[done, 1], merges[done, 2] = left, right, joined
        done += 1
        node = entry_heads[entry]
        while node >= 0:
            piece = pairs.nodes[node, 0]
            sizes[piece] = _join(symbols, bounds[piece], sizes[piece], left, right, joined, counts[piece], piece, pairs)
            node = pairs.nodes[node, 1]
