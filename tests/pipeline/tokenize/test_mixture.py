"""Tokenizer, encoder and packing."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from pipeline.tokenize.pack import pack


@given(
    st.lists(st.integers(1, 40), max_size=40),
    st.integers(1, 16),
    st.sampled_from(["concat", "best_fit"]),
)
def test_every_token_is_packed_once(lengths: list[int], size: int, packing: str) -> None:
    sequences = pack(lengths, size, packing)
    assert all(0 < sum(piece.length for piece in sequence) <= size for sequence in sequences)
    found = sorted(
        (piece.document, token)
        for piece in chain.from_iterable(sequences)
        for token in range(piece.start, piece.start + piece.length)
    )
    assert found == [(document, token) for document, length in enumerate(lengths) for token in range(length)]


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 16))
def test_concat_pads_only_the_last_and_best_fit_cuts_only_long_ones(lengths: list[int], size: int) -> None:
    assert all(sum(piece.length for piece in sequence) == size for sequence in pack(lengths, size)[:-1])
    for piece in chain.from_iterable(pack(lengths, size, "best_fit")):
        assert piece.length == min(size, lengths[piece.document] - piece.start)
