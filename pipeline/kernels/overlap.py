"""The longest stretch that texts share with a query, exactly: a suffix automaton of the query reads each text once.

The automaton (Blumer et al. 1985) has at most two states a byte of the query and 1 KB a state; reading costs O(1) a
byte of text. Compiled with numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compiled import kernel

Ints = np.ndarray[Any, np.dtype[np.int32]]
LIMIT = 100_000  # bytes of a query: 200 MB of automaton


class Overlap:
    """Finds what texts share with one query."""

    def __init__(self, query: str) -> None:
        """Raises ValueError for an empty query or one of more than LIMIT bytes of UTF-8."""
        data = np.frombuffer(query.encode(), np.uint8)
        if not 0 < len(data) <= LIMIT:
            raise ValueError(f"the text has {len(data):,} bytes; expected 1 to {LIMIT:,}")
        self._edges, self._links, self._lengths = _build(data)

    def longest(self, text: str) -> str:
        """The longest substring of `text` that occurs in the query, the first of several, whole characters only."""
        data = text.encode()
        size, end = _match(self._edges, self._links, self._lengths, np.frombuffer(data, np.uint8))
        return data[end - size : end].decode(errors="ignore")


@kernel()
def _build(query: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[Ints, Ints, Ints]:
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
def _match(edges: Ints, links: Ints, lengths: Ints, text: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[int, int]:
    """(bytes, end) of the longest match."""
    state, size, best, end = 0, 0, 0, 0
    for place in range(len(text)):
        byte = text[place]
        while state > 0 and edges[state, byte] < 0:
            state = links[state]
            size = lengths[state]
        if edges[state, byte] >= 0:
            state = edges[state, byte]
            size += 1
        if size > best:
            best, end = size, place + 1
    return best, end
