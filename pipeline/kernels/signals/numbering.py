"""Numbers for equal keys: the one hash table behind repeated tokens, n-grams and lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compiled import inner

Array = np.ndarray[Any, Any]

SEED = np.uint64(0x9E3779B97F4A7C15)  # of FNV-like hashes: value = (value ^ item) * PRIME
PRIME = np.uint64(0x100000001B3)
_ONE = np.uint64(1)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def slots_for(keys: int) -> Array:
    """Scratch for `number`: uint32, room for that many keys."""
    return np.empty(16 if keys <= 8 else 1 << (2 * keys - 1).bit_length(), np.uint32)


@inner
def place(key: np.uint64, shift: np.uint64) -> np.uint64:
    """Where to look for a key in a table of 2 ** (64 - shift) slots."""
    return ((key ^ (key >> np.uint64(29))) * _MULTIPLIER) >> shift


@inner
def number(keys: Array, ids: Array, counts: Array, slots: Array) -> int:
    """Give each uint64 key the number of its first occurrence's rank among the different ones.

    Writes uint32 `ids[i]` for each key and int32 `counts[id]`. Returns how many different keys there are. Open
    addressing in at least twice as many of `slots`; keys are compared in full. Indices are unsigned: numba asks
    of all others whether they count from the end.
    """
    shift = np.uint64(60)
    while np.uint64(1) << (np.uint64(64) - shift) < np.uint64(2 * keys.size):
        shift -= np.uint64(1)
    mask = (np.uint64(1) << (np.uint64(64) - shift)) - np.uint64(1)
    slots[: np.int64(mask) + 1] = 0
    different = 0
    for i in range(keys.size):
        key = keys[i]
        slot = place(key, shift)
        while slots[slot] != 0 and keys[slots[slot] - _ONE] != key:
            slot = (slot + _ONE) & mask
        if slots[slot] == 0:
            slots[slot] = i + 1
            ids[i] = different
            counts[different] = 1
            different += 1
        else:
            same = ids[slots[slot] - _ONE]
            ids[i] = same
            counts[same] += 1
    return different
