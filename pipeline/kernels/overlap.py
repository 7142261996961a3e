"""Overlap of texts with other texts: shared word n-grams, and the longest shared stretch.

n-grams: words are folded as for MinHash (case, accents and punctuation do not count) and hashed; as many as weigh n
words make a 64-bit hash. A letter of a script without spaces weighs the part of a word that it is on average: English
words for letters in the parallel texts of UD PUD and of the Universal Declaration of Human Rights. One pass over a
text.

The longest stretch, exactly: a suffix automaton of the query (Blumer et al. 1985) reads each text once. It has at most
two states a byte of the query and 1 KB a state; reading costs O(1) a byte of text.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compiled import Array, kernel
from pipeline.kernels.hashing import PRIME, SEED, code_points
from pipeline.kernels.minhash import ALONE, IGNORED, SEVERAL, fold_parts, fold_table

WORD = 120  # weight of a word between spaces
# Letters a word in scripts without spaces, by the high byte of the code point: Han, kana, Thai and Lao, Burmese, ...
LETTERS_A_WORD = dict.fromkeys(range(256), 2) | {
    0x30: 3, 0x31: 3, 0x0E: 5, 0x10: 8, 0x17: 6, 0x19: 5, 0x1A: 5, 0x1B: 5, 0xA9: 5, 0xAA: 8,
}  # fmt: skip
LIMIT = 100_000  # bytes of a query: 200 MB of automaton


def word_ngrams(text: str, ngram: int) -> tuple[Array, Array]:
    """uint64 (n-grams,) hashes, and int64 (n-grams, 2): where each begins and ends in the text."""
    points, _ = code_points([text])
    room = 3 * len(points)  # a character has three parts at most
    hashes, spans, ends = np.empty(room, np.uint64), np.empty((room, 2), np.int64), np.empty(room + 1, np.int64)
    letter_weights = np.array([WORD // LETTERS_A_WORD[byte] for byte in range(256)])
    words = _words(points, fold_table(), fold_parts(), letter_weights, hashes, spans, ends)
    ngrams, lasts = np.empty(words, np.uint64), np.empty(words, np.int64)
    count = _join(hashes[:words], ends, ngram * WORD, ngrams, lasts)
    return ngrams[:count], np.stack([spans[:count, 0], spans[lasts[:count], 1]], axis=1)


class Overlap:
    """What texts share with one query."""

    def __init__(self, query: str) -> None:
        """Raises ValueError for an empty query or one of more than LIMIT bytes of UTF-8."""
        data = np.frombuffer(query.encode(), np.uint8)
        if not 0 < len(data) <= LIMIT:
            raise ValueError(f"the text has {len(data):,} bytes; expected 1 to {LIMIT:,}")
        self._edges, self._links, self._lengths = _build(data)

    def longest(self, text: str) -> str:
        """The longest substring of `text` that occurs in the query, the first of several, complete characters only."""
        data = text.encode()
        size, end = _match(self._edges, self._links, self._lengths, np.frombuffer(data, np.uint8))
        return data[end - size : end].decode(errors="ignore")


@kernel()
def _words(
    points: Array, table: Array, parts: Array, letter_weights: Array, hashes: Array, spans: Array, ends: Array
) -> int:  # fmt: skip
    """Write each word's hash and span, and the sum of weights up to and with it. Returns the number of words."""
    n, word, i, part = 0, np.uint64(0), 0, np.int64(0)
    ends[0] = 0
    while i <= points.size:
        folded = np.uint32(0)
        if part > 0:
            part += 1
        elif i < points.size:
            folded = table[points[i]] if points[i] < table.size else IGNORED
            if folded & SEVERAL:
                part = np.int64(folded ^ SEVERAL)
        if part > 0:
            folded = parts[part]
            part = part if parts[part + 1] else np.int64(0)
        if not folded & IGNORED:
            if word != 0 and (folded == 0 or folded & ALONE):
                hashes[n] = word
                spans[n, 1] = i
                n += 1
                word = np.uint64(0)
            if folded != 0:
                if word == 0:
                    spans[n, 0] = i
                    word = SEED
                    alone = folded & ALONE
                    ends[n + 1] = ends[n] + (
                        letter_weights[(folded ^ ALONE) >> np.uint32(8) & np.uint32(255)] if alone else WORD
                    )
                word = (word ^ np.uint64(folded)) * PRIME | np.uint64(1)
        i += part == 0
    return n


@kernel()
def _join(hashes: Array, ends: Array, weight: int, ngrams: Array, lasts: Array) -> int:
    """Write hash and last word of the n-gram of that weight at each word. Returns the number of n-grams."""
    last = 0
    for i in range(hashes.size):
        while last < hashes.size and ends[last + 1] - ends[i] < weight:
            last += 1
        if last == hashes.size:
            return i
        value = SEED
        for k in range(i, last + 1):
            value = (value ^ hashes[k]) * PRIME
            value ^= value >> np.uint64(29)
        ngrams[i], lasts[i] = value, last
    return int(hashes.size)


@kernel()
def _build(query: Array) -> tuple[Array, Array, Array]:
    """(edges, suffix links, lengths) by state; -1 for none."""
    edges = np.full((2 * len(query), 256), -1, np.int32)
    links = np.full(2 * len(query), -1, np.int32)
    lengths = np.zeros(2 * len(query), np.int32)
    states, last = 1, 0
    for byte in query:
        state = states
        states += 1
        lengths[state] = lengths[last] + 1
        before = last
        while before >= 0 and edges[before, byte] < 0:
            edges[before, byte] = state
            before = links[before]
        if before < 0:
            links[state] = 0
        else:
            target = edges[before, byte]
            if lengths[before] + 1 == lengths[target]:
                links[state] = target
            else:
                clone = states
                states += 1
                edges[clone] = edges[target]
                links[clone] = links[target]
                lengths[clone] = lengths[before] + 1
                while before >= 0 and edges[before, byte] == target:
                    edges[before, byte] = clone
                    before = links[before]
                links[target] = clone
                links[state] = clone
        last = state
    return edges[:states], links[:states], lengths[:states]


@kernel()
def _match(edges: Array, links: Array, lengths: Array, text: Array) -> tuple[int, int]:
    """(bytes, end) of the longest match."""
    state, size, best, end = 0, 0, 0, 0
    for at in range(len(text)):
        byte = text[at]
        while state > 0 and edges[state, byte] < 0:
            state = links[state]
            size = lengths[state]
        if edges[state, byte] >= 0:
            state = edges[state, byte]
            size += 1
        if size > best:
            best, end = size, at + 1
    return best, end
