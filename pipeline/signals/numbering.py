"""Numbers for equal keys: the one hash table behind repeated tokens, n-grams and lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.signals.kernel import kernel

Array = np.ndarray[Any, Any]

BUILT_ON = {"kernel": ""}

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def slots_for(keys: int) -> Array:
    """Scratch for `number`: int32, room for that many keys."""
    return np.empty(16 if keys <= 8 else 1 << (2 * keys - 1).bit_length(), np.int32)


@kernel
def place(key: np.uint64, shift: np.uint64) -> int:
    """Where to look for a key in a table of 2 ** (64 - shift) slots."""
    return np.int64(((key ^ (key >> np.uint64(29))) * _MULTIPLIER) >> shift)


@kernel
def number(keys: Array, ids: Array, counts: Array, slots: Array) -> int:
    """Give each uint64 key the number of its first occurrence's rank among the different ones.

    Writes int32 `ids[i]` for each key and int32 `counts[id]`. Returns how many different keys there are. Open
    addressing in at least twice as many of `slots`; keys are compared in full.
    """
    size, shift = 16, np.uint64(60)
    while size < 2 * keys.size:
        size, shift = size * 2, shift - np.uint64(1)
    slots[:size] = 0
    different = 0
    for i in range(keys.size):
        key = keys[i]
        slot = place(key, shift)
        # An empty slot (0) reads the last key and number, to no harm: but for the loop, which seldom turns, there is
        # no branch on whether a key is new, which no processor can foresee.
        while (slots[slot] != 0) & (keys[slots[slot] - 1] != key):
            slot = (slot + 1) & (size - 1)
        found = slots[slot]
        new, same = found == 0, ids[found - 1]
        counts[different] = 0
        ids[i] = different if new else same
        slots[slot] = i + 1 if new else found
        counts[ids[i]] += 1
        different += new
    return different
