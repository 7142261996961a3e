"""Orders and first documents within a key equal those of a plain sort, also where words agree in their upper halves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.joins import first_alike, ordered

WORD = st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
ROWS = st.lists(st.tuples(st.integers(0, 3), WORD, WORD)).map(lambda rows: sorted(rows, key=lambda row: row[0]))


@given(ROWS)
def test_order_is_by_key_then_words(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.uint64).reshape(-1, 3)
    assert table[ordered(table[:, 0], table[:, 1:])].tolist() == [list(row) for row in sorted(rows)]


@given(ROWS)
def test_first_of_equal_texts_and_keys(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.uint64).reshape(-1, 3)
    assert first_alike(table[:, 1:], table[:, 0]).tolist() == [rows.index(row) for row in rows]
