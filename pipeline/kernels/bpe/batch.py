"""Byte-level BPE with a known pattern through the compiled kernels: split, cut, look up or merge.

Cost: benchmarks/tokenizer.py; about 65 MB a process for cache and tables, and a second to build the tables of a
vocabulary of 100,000. The first process on a machine compiles the kernels, some ten seconds.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from pipeline.kernels.bpe import merge
from pipeline.kernels.bpe.patterns import FAMILIES, Pattern, byte_letters, character_classes
from pipeline.kernels.bpe.split import Boundaries, boundaries, cut, split
from pipeline.kernels.compiled import PADDING, Array

_GROUP = 1 << 17  # bytes of text encoded together: their arrays stay in the processor's cache
_LONGEST = 1 << 30


class Kernels:
    """The tables of one vocabulary, and the cache of its pieces."""

    def __init__(self, pattern: Pattern, rules: merge.Rules, known: Boundaries | None, words: list[bytes]) -> None:
        """known: where pieces may be cut, None for nowhere; words: pieces to begin with."""
        self._splitter = FAMILIES.index(pattern.family), pattern.digits
        self._rules, self._known = rules, known
        self._cache = merge.new_cache()
        merge.encode_words(words, rules, self._cache)
        self._buffers = _buffers(2 * _GROUP)

    @classmethod
    def build(cls, model: dict[str, Any], pattern: Pattern) -> Self | None:
        """From a BPE model of tokenizer.json; None where the tables cannot hold it."""
        letters, vocabulary = byte_letters(), model["vocab"]
        byte_ids = np.zeros(256, np.int32)
        for letter, byte in letters.items():
            byte_ids[byte] = vocabulary[letter]
        # A pair listed twice has the rank of its last occurrence, as in `tokenizers`.
        merges = {
            (vocabulary[left], vocabulary[right]): (rank, vocabulary[left + right])
            for rank, (left, right) in enumerate(model["merges"])
        }
        rules = merge.rules(byte_ids, merges)
        words = {
            bytes(map(letters.__getitem__, token)): number
            for token, number in vocabulary.items()
            if token and set(token) <= letters.keys()
        }
        if model.get("ignore_merges"):
            whole = merge.whole_words(rules, words)
            if whole is None:
                return None
            rules = rules._replace(whole=whole)
        # Where some token is no result of merges, a part of a piece might spell it and must still be merged.
        known = None if rules.whole.state[0] else boundaries(list(words))
        return cls(pattern, rules, known, list(words))

    def encode(self, texts: list[str], dtype: np.dtype[Any]) -> list[Array]:
        """One array of ids per text. Raises ValueError for a text of more than a GB or with lone surrogates."""
        encoded: list[Array] = []
        group: list[bytes] = []
        size = 0
        for text in texts:
            group.append(text.encode())
            if len(group[-1]) > _LONGEST:
                raise ValueError(f"a text of {len(group[-1])} bytes: at most {_LONGEST} are encoded as one document")
            size += len(group[-1])
            if size >= _GROUP:
                encoded += self._encode(group, size, dtype)
                group, size = [], 0
        return encoded + self._encode(group, size, dtype) if group else encoded

    def _encode(self, group: list[bytes], size: int, dtype: np.dtype[Any]) -> list[Array]:
        pieces, parts, out = self._buffers if size <= 2 * _GROUP else _buffers(size)
        ends = np.cumsum([len(text) for text in group], dtype=np.int64)
        data = np.frombuffer(b"".join([*group, bytes(PADDING)]), np.uint8)
        counts, part_counts = np.empty_like(ends), np.empty_like(ends)
        split(data, ends, character_classes(), *self._splitter, pieces, counts)
        if self._known:
            cut(data, pieces, counts, self._known, parts, part_counts)
            pieces, counts = parts, part_counts
        total = merge.encode(data, pieces, counts, self._rules, self._cache, out, ends)
        ids = out[:total].astype(dtype)
        return [ids[start:end] for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]


def _buffers(size: int) -> tuple[Any, Any, Any]:
    """Room for pieces, their parts and ids of `size` bytes of text."""
    return np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size + 2, np.uint32)
