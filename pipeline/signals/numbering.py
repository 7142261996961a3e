"""Numbers for equal keys, the one hash table behind repeated words, n-grams and lines.

numba keeps a compiled kernel until the file that defines it changes, whatever it calls: so callers state a hash of this
file (`BUILT_ON`), which a test compares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True)
def number(keys: Any, ids: Any, counts: Any) -> int:
    """Give each uint64 key the number of its first occurrence's rank among the different ones.

    Writes int32 `ids[i]` for each key and int32 `counts[id]`. Returns how many different keys there are. Open
    addressing in a table of at least twice as many slots; keys are compared in full.
    """
    size, shift = 16, np.uint64(60)
    while size < 2 * keys.size:
        size, shift = size * 2, shift - np.uint64(1)
    slots = np.zeros(size, np.int32)
    different = np.empty(keys.size, np.uint64)
    n = 0
    for i in range(keys.size):
        key = keys[i]
        slot = np.int64(((key ^ (key >> np.uint64(29))) * _MULTIPLIER) >> shift)
        while slots[slot] != 0 and different[slots[slot] - 1] != key:
            slot = (slot + 1) & (size - 1)
        if slots[slot] == 0:
            different[n] = key
            counts[n] = 0
            n += 1
            slots[slot] = n
        ids[i] = slots[slot] - 1
        counts[ids[i]] += 1
    return n
