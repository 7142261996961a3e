"""The shared hashes, tables and decoding against plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.compiled import njit
from pipeline.kernels.hashing import (
    FNV32,
    FNV64,
    PRIME,
    PRIME32,
    claim_slot,
    code_points,
    decode,
    find_slot,
    fnv,
    join_utf8,
    number,
    slots_for,
    splitmix,
)


@njit
def decode_all(data, points):
    i = count = 0
    while i < data.size:
        points[count], size = decode(data, i)
        i, count = i + size, count + 1
    return count


@njit
def number_all(keys, ids, counts, slots):
    return number(keys, ids, counts, slots)


@njit
def find_all(keys, wanted, slots):
    for i in range(wanted.size):
        slots[i] = find_slot(keys, wanted[i])


def test_published_values() -> None:
    assert fnv(b"", FNV32, PRIME32) == 0x811C9DC5
    assert fnv(b"foobar", FNV32, PRIME32) == 0xBF9CF968
    assert fnv(b"foobar", FNV64, PRIME) == 0x85944171F73967E8
    golden = np.array([0x9E3779B97F4A7C15], np.uint64)
    assert splitmix.py_func(golden).tolist() == [0xE220A8397B1DCDAF]  # the first number of splitmix64 from seed 0


def test_every_character_is_decoded() -> None:
    expected, _ = code_points(["".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)])
    data = np.frombuffer(expected.tobytes().decode("utf-32-le").encode(), np.uint8)
    points = np.empty(len(expected), np.uint32)
    assert decode_all(data, points) == len(expected)
    assert (points == expected).all()


def test_texts_as_arrays() -> None:
    data, ends = join_utf8(["aé", "", "\ud800"])
    assert (data.tobytes(), ends.tolist()) == ("aé?".encode(), [0, 3, 3, 4])
    points, ends = code_points(["a😀", ""])
    assert (points.tolist(), ends.tolist()) == ([97, 0x1F600], [2, 2])


@given(st.lists(st.integers(1, 30) | st.integers(0, 2**64 - 1), max_size=60))
@settings(deadline=None)
def test_numbers_follow_the_first_occurrence(keys: list[int]) -> None:
    ids, counts = np.empty(len(keys), np.uint32), np.empty(len(keys), np.int32)
    different = list(dict.fromkeys(keys))
    assert number_all(np.array(keys, np.uint64), ids, counts, slots_for(len(keys))) == len(different)
    assert ids.tolist() == [different.index(key) for key in keys]
    assert counts[: len(different)].tolist() == [keys.count(key) for key in different]


@given(st.sets(st.integers(1, 2**32 - 1), max_size=8), st.sets(st.integers(1, 2**32 - 1), max_size=8))
@settings(deadline=None)
def test_tables_hold_what_was_entered(known: set[int], others: set[int]) -> None:
    table = np.zeros(16, np.uint32)
    slots = {key: claim_slot(table, key) for key in known}
    assert {key: claim_slot(table, key) for key in known} == slots
    wanted = [*known, *(others - known)]
    looked_up = np.empty(len(wanted), np.int64)
    find_all(table, np.array(wanted, np.uint32), looked_up)
    assert looked_up.tolist() == [slots.get(key, -1) for key in wanted]
