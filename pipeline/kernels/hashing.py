"""What the kernels share: hash functions, hash tables, and texts as arrays.

All hashes are integers of fixed width, the same on every platform and in every process. The functions marked @inner
are called by kernels only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.kernels.compiled import Array, inner, item

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: spreads by multiplication
# FNV-1a (Fowler, Noll, Vo). SEED is this project's own start for words of code points; the others are the published.
SEED = GOLDEN
FNV64, PRIME = np.uint64(14695981039346656037), np.uint64(0x100000001B3)
FNV32, PRIME32 = np.uint32(2166136261), np.uint32(16777619)
_ONE, _29, _30, _31, _27, _32 = (np.uint64(n) for n in (1, 29, 30, 31, 27, 32))
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def fnv(items: Iterable[int], seed: np.unsignedinteger[Any], prime: np.unsignedinteger[Any]) -> int:
    """FNV-1a of bytes or code points, as wide as its prime; in Python, for tables of words."""
    value, mask = int(seed), int(np.iinfo(prime.dtype).max)
    for element in items:
        value = (value ^ element) * int(prime) & mask
    return value


@inner
def fnv32(value: np.uint32, byte: int) -> np.uint32:
    """A step of FNV-1a."""
    return np.uint32((value ^ np.uint32(byte)) * PRIME32)


@inner
def splitmix(x: np.uint64) -> np.uint64:
    """Finalizer of splitmix64 (Steele et al. 2014), a permutation. In Python `splitmix.py_func` takes arrays."""
    x = (x ^ (x >> _30)) * _FIRST
    x = (x ^ (x >> _27)) * _SECOND
    return x ^ (x >> _31)


@inner
def spread(x: np.uint64) -> np.uint64:
    """A multiplication and a fold: enough for indices of tables."""
    x = x * GOLDEN
    return x ^ (x >> _32)


# --- tables of known keys: open addressing, 0 marks a free slot, a power of two of slots ---


@inner
def find_slot(keys: Array, key: Any) -> int:
    """Slot of a hash, or -1."""
    slot = np.int64(key) & (len(keys) - 1)
    while keys[slot] != 0:
        if keys[slot] == key:
            return int(slot)
        slot = (slot + 1) & (len(keys) - 1)
    return -1


def claim_slot(keys: Array, key: int) -> int:
    """Slot that holds a hash, or the free one that was given to it."""
    slot = key & (len(keys) - 1)
    while keys[slot] not in (0, key):
        slot = (slot + 1) & (len(keys) - 1)
    keys[slot] = key
    return slot


# --- numbering: equal keys get equal numbers ---


def slots_for(keys: int) -> Array:
    """Scratch for `number`: uint32, room for that many keys."""
    return np.empty(16 if keys <= 8 else 1 << (2 * keys - 1).bit_length(), np.uint32)


@inner
def first_slot(key: np.uint64, shift: np.uint64) -> np.uint64:
    """Slot at which to begin looking for a key in a table of 2 ** (64 - shift) slots."""
    return ((key ^ (key >> _29)) * GOLDEN) >> shift


@inner
def number(keys: Array, ids: Array, counts: Array, slots: Array) -> int:
    """Number the different uint64 keys in order of their first occurrence.

    Writes uint32 `ids[i]` for each key and int32 `counts[id]`. Returns how many different keys there are. Open
    addressing in at least twice as many of `slots`; keys are compared in full. Unsigned indices spare numba's check
    for negative ones.
    """
    shift = np.uint64(60)
    while _ONE << (np.uint64(64) - shift) < np.uint64(2 * keys.size):
        shift -= _ONE
    mask = (_ONE << (np.uint64(64) - shift)) - _ONE
    slots[: np.int64(mask) + 1] = 0
    different = 0
    for i in range(keys.size):
        key = keys[i]
        slot = first_slot(key, shift)
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


# --- texts as arrays ---


def join_utf8(texts: Iterable[str]) -> tuple[Array, Array]:
    """The texts' UTF-8 bytes, uint8, and their boundaries, int64 (texts + 1,). Lone surrogates become `?`."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    ends = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=ends[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def code_points(texts: list[str]) -> tuple[Array, Array]:
    """uint32 code points of all texts in a row, and int64 (texts,) where each ends."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return points, np.cumsum([len(text) for text in texts], dtype=np.int64)


@inner
def decode(data: Array, i: int) -> tuple[int, int]:
    """(code point, bytes) of the character that begins at byte i of valid UTF-8."""
    lead = int(item(data, i))
    if lead < 0x80:
        return lead, 1
    second = int(item(data, i + 1)) & 0x3F
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | second, 2
    third = int(item(data, i + 2)) & 0x3F
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | second << 6 | third, 3
    return (lead & 0x07) << 18 | second << 12 | third << 6 | int(item(data, i + 3)) & 0x3F, 4


@inner
def lower(byte: int) -> int:
    """An ASCII capital as a small letter; other bytes as they are."""
    return byte + 32 if 65 <= byte <= 90 else byte


@inner
def is_space(byte: int) -> bool:
    """ASCII white space."""
    return byte == 32 or 9 <= byte <= 13
