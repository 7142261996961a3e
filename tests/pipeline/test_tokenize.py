"""Tokenizer, encoder and packing."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.tokenize import pack
from pipeline.tokenizer import EOS, Encoder, train
from tests.conftest import PROSE


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train(PROSE.values(), 400, "cl100k"))


def test_round_trip_and_dtype(encoder: Encoder) -> None:
    texts = [*PROSE.values(), "", "naïve 川 🦊\r\n\t x"]
    for text, ids in zip(texts, encoder.encode_batch(texts), strict=True):
        assert ids.dtype == np.uint16
        assert encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text


def test_token_bytes_add_up_to_the_texts_bytes(encoder: Encoder) -> None:
    for text in (*PROSE.values(), "川は 🦊 é"):
        (ids,) = encoder.encode_batch([text])
        assert int(encoder.token_bytes()[ids].sum()) == len(text.encode())
    assert encoder.token_bytes()[encoder.eos_id] == 0


def test_training_is_deterministic() -> None:
    one, other = (train(PROSE.values(), 350, "gpt2").to_str() for _ in range(2))
    assert one == other


def test_special_token_in_text_is_text(encoder: Encoder) -> None:
    (ids,) = encoder.encode_batch([f"before {EOS} after"])
    assert encoder.eos_id not in ids


def test_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PipelineError, match=r"not a tokenizer\.json"):
        Encoder(tmp_path / "tokenizer.json")
    with pytest.raises(PipelineError, match="no file"):
        Encoder(tmp_path / "absent.json")


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
