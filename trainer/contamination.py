"""Whether evaluation texts stand in the training samples: n-grams of tokens that occur in both.

A run of 13 tokens that a text shares with a training sample counts as seen (GPT-3 took 13 words, arXiv:2005.14165,
C; Llama 2 more than 10 tokens, arXiv:2307.09288, A.6). The texts' n-grams are hashed to 64 bits and looked up for
every position of the corpus; a run that packing cut in two is missed where it lies across the cut.
Costs: one pass over the training samples, memory of the evaluation texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.mds import Array
from trainer.shards import Shards, Stream, sample_tokens

NGRAM = 13
BATCH = 256  # samples looked up at once
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every token moves every later bit


@dataclass(frozen=True)
class Overlap:
    """What a text shares with the corpus.

    seen: tokens of it that lie in a shared n-gram; tokens: of the text; sample: (stream, number) of the first
    training sample that shares one, None where nothing is shared.
    """

    name: str
    seen: int
    tokens: int
    sample: tuple[str, int] | None


def find_overlaps(shards: Shards, texts: Iterable[tuple[str, Array]], ngram: int = NGRAM) -> list[Overlap]:
    """The overlap of each text, (name, token ids), with the training samples, in their order."""
    named = list(texts)
    hashes = [ngram_hashes(tokens, ngram) for _, tokens in named]
    known = np.unique(np.concatenate([*hashes, np.zeros(0, np.uint64)]))
    first = np.full((len(known), 2), -1, np.int64)  # stream and sample in which each n-gram was met first
    for number, stream in enumerate(shards.train):
        for start in range(0, len(stream.data), BATCH):
            _look_up(stream, number, start, ngram, known, first)
    found = []
    for (name, tokens), grams in zip(named, hashes, strict=True):
        places = np.searchsorted(known, grams)
        hits = np.flatnonzero(first[places, 0] >= 0)
        covered = np.zeros(len(tokens), bool)
        for offset in range(ngram):
            covered[hits + offset] = True
        sample = None
        if len(hits):
            stream_number, index = first[places[hits[0]]].tolist()
            sample = shards.train[stream_number].name, index
        found.append(Overlap(name, int(covered.sum()), len(tokens), sample))
    return found


def ngram_hashes(tokens: Array, ngram: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A 64-bit hash of each run of `ngram` tokens: (max(0, len(tokens) - ngram + 1),) uint64."""
    count = max(0, len(tokens) - ngram + 1)
    words = tokens.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(ngram):
            hashes = (hashes ^ words[offset : offset + count]) * _BASE
            hashes ^= hashes >> np.uint64(32)
    return hashes


def _look_up(stream: Stream, number: int, start: int, ngram: int, known: Array, first: Array) -> None:
    """Note which known n-grams occur in BATCH samples from `start` on."""
    rows = range(start, min(start + BATCH, len(stream.data)))
    grams = [ngram_hashes(sample_tokens(stream.data.sample(row)), ngram) for row in rows]
    owners = np.repeat(np.array(rows), [len(each) for each in grams])
    joined = np.concatenate(grams)
    places = np.searchsorted(known, joined)
    places[places == len(known)] = 0
    hits = np.flatnonzero(known[places] == joined) if len(known) else np.zeros(0, np.int64)
    for hit in hits[first[places[hits], 0] < 0].tolist():
        if first[places[hit], 0] < 0:
            first[places[hit]] = number, owners[hit]
