"""Overlap of texts with training samples, against a plain search."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.trainer.corpus import PROSE, byte_tokenizer
from trainer.score import find_overlaps, ngram_hashes
from trainer.shards import open_shards, sample_tokens


def test_overlaps_are_those_of_a_plain_search(shards: Path, tmp_path: Path) -> None:
    opened = open_shards(shards, tmp_path / "cache")
    samples = [
        (stream.name, row, sample_tokens(stream.data.sample(row)).tolist())
        for stream in opened.train
        for row in range(len(stream.data))
    ]
    codec = byte_tokenizer()
    texts = [
        "0123456789 zyxwvutsr qponmlkj 9876543210",
        PROSE[700:760] + " and then ~~~~~~~~~~~~~~",
        "short",
    ]
    encoded = [codec.encode(text).ids for text in texts]
    found = find_overlaps(opened, [(str(n), np.array(ids)) for n, ids in enumerate(encoded)], ngram=8)
    for ids, overlap in zip(encoded, found, strict=True):
        covered = set()
        for place in range(len(ids) - 7):
            gram = ids[place : place + 8]
            if any(gram == row[at : at + 8] for _, _, row in samples for at in range(len(row) - 7)):
                covered |= set(range(place, place + 8))
        assert (overlap.seen, overlap.tokens) == (len(covered), len(ids))
        assert (overlap.sample is None) == (not covered)
    assert found[1].seen > 20
    assert [each.sample for each in found[::2]] == [None, None]


def test_hashes_tell_order_and_length_apart() -> None:
    tokens = np.arange(50)
    assert len(np.unique(ngram_hashes(tokens, 5))) == 46
    assert ngram_hashes(tokens[:5], 5) != ngram_hashes(tokens[:5][::-1], 5)
    assert len(ngram_hashes(tokens[:4], 5)) == 0
