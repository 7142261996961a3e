"""The cache of pieces that were merged before: an open-addressing table from their bytes to their ids, of bounded size.

Words repeat. When the table is full it is emptied and fills again. Pieces of up to 15 bytes and 3 tokens lie in one
32-byte slot; others keep their bytes and ids in two arenas. Bytes are compared, never hashes alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.bpe.memory import item, low_bytes, mix, word_at
from pipeline.kernels.compiled import helper

LONGEST = 128  # bytes of the longest piece kept
SPILLED = np.uint64(0xFF) << np.uint64(56)  # from this on, a key's second word says that its bytes lie in the arena
FEW = np.uint64(4) << np.uint64(32)  # from this on, a slot's last word says that the ids lie in the arena
_SLOTS = 1 << 20
_IDS = 1 << 21
_KEYS = 1 << 24
_LOW = np.uint64(0xFFFFFFFF)
_32, _56 = np.uint64(32), np.uint64(56)


class Cache(NamedTuple):
    """About 57 MB. slots: uint64, four a slot; state: number of slots, ids and key bytes in use."""

    slots: Any
    ids: Any
    keys: Any
    state: Any


def new_cache(slots: int = _SLOTS) -> Cache:
    """An empty cache of a power of two of slots, of which six tenths are used at most."""
    share = _SLOTS // slots
    table = np.empty(4 * slots, np.uint64)  # and not `zeros`: numpy asks for huge pages for these alone
    table[:] = 0
    return Cache(table, np.zeros(_IDS // share, np.uint32), np.zeros(_KEYS // share, np.uint8), np.zeros(3, np.int64))


@helper
def key(data: Any, start: int, end: int) -> tuple[np.uint64, np.uint64]:
    """Two words for a piece: up to 15 bytes the bytes themselves and the length, else a hash and the length."""
    size = end - start
    if size <= 15:
        second = low_bytes(word_at(data, start + 8), size - 8) if size > 8 else np.uint64(0)
        return low_bytes(word_at(data, start), size), second | np.uint64(size) << _56
    first = np.uint64(size)
    for k in range(start, end, 8):
        first = mix(first ^ low_bytes(word_at(data, k), end - k))
    return first, SPILLED | np.uint64(size)


@helper
def slot_of(first: np.uint64, second: np.uint64, slots: Any) -> Any:
    """Where the slot that a key belongs into begins."""
    return np.intp(mix(mix(first) ^ second) << np.uint64(2) & np.uint64(slots.size - 1))


@helper
def _same(data: Any, start: int, size: int, keys: Any, key: int) -> bool:
    """Whether a long piece is the one whose bytes lie at keys[key:]."""
    for k in range(0, size, 8):
        if low_bytes(word_at(keys, key + k), size - k) != low_bytes(word_at(data, start + k), size - k):
            return False
    return True


@helper
def find(data: Any, start: int, end: int, first: Any, second: Any, cache: Cache, out: Any, total: int) -> int:
    """Copy a cached piece's ids to out[total:]. Returns their new end, or -1 where the piece is not cached."""
    slots = cache.slots
    place, size = slot_of(first, second, slots), end - start
    while item(slots, place + 1) != 0:
        if item(slots, place) == first and item(slots, place + 1) == second:
            here, there = item(slots, place + 2), item(slots, place + 3)
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
        place = (place + 4) & (slots.size - 1)
    return -1


@helper
def store(data: Any, start: int, end: int, cache: Cache, out: Any, total: int, new: int) -> None:
    """Keep out[total:new] as the ids of a piece that is not cached; a full cache is emptied first."""
    size, count = end - start, new - total
    slots, (used, ids, keys) = cache.slots, (cache.state[0], cache.state[1], cache.state[2])
    if size > LONGEST:
        return
    if used * 40 >= slots.size * 6 or ids + count > cache.ids.size or keys + size + 8 > cache.keys.size:
        slots[:] = 0
        cache.state[:] = 0
        used = ids = keys = 0
    first, second = key(data, start, end)
    place = slot_of(first, second, slots)
    while slots[place + 1] != 0:
        place = (place + 4) & (slots.size - 1)
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
    slots[place], slots[place + 1], slots[place + 2], slots[place + 3] = first, second, here, there
    cache.state[0] = used + 1
