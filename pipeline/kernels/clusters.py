"""From signatures to clusters of duplicates: verified pairs, union-find, leaders.

Documents that share a band key are candidates (Leskovec et al., Mining of Massive Datasets, chapter 3). Within such a
bucket each document is compared with the bucket's leaders, the earlier documents that matched no other; a pair becomes
an edge only if its similarity reaches the threshold. So a chance collision of a band deletes nothing, and two groups
of duplicates that meet in one bucket stay two.

The connected components of the edges may be chains (1 like 2, 2 like 3, but 1 unlike 3), so each component is clustered
again by leaders (Hartigan 1975): documents are visited in survivor order; one joins the first leader whose similarity
and whose least similar member so far (the rim) both reach the threshold, else it becomes a leader. Checking the rim
keeps any two members of a cluster similar.

Cost: a sort per band, and at most 2 x LEADERS comparisons a document and bucket or component; the union-find joins
tens of millions of edges a second (benchmarks/dedup.py).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from pipeline.kernels.compiled import kernel
from pipeline.kernels.hashing import join_utf8
from pipeline.kernels.minhash import EMPTY, I64, U32, U64, MinHasher

NO_PAIRS = np.empty((0, 2), np.int64)
LEADERS = 128  # a bucket with more groups leaves the others to the other bands, and a component keeps them
_HASHES = 112  # of FineWeb's 14 x 8


def find_duplicates(
    texts: list[str],
    *,
    threshold: float = 0.8,
    bands: int | None = None,
    rows: int | None = None,
    ngram: int = 5,
    seed: int = 1,
    verify_by: Literal["estimate", "exact"] = "exact",
) -> I64:
    """Cluster label of each text, int64 (len(texts),): the index of the cluster's first text.

    threshold: a text joins an earlier one only if the Jaccard similarity of their word n-grams reaches it (in a recipe
    `dedup.verify`). verify_by: from the sets of shingles, or estimated from the signatures (faster; standard error 0.04
    at 0.75; blind to numbers). Without `bands` and `rows`, `optimal_bands` divides 112 hashes for the threshold and
    weighs a missed pair twenty times a false candidate, which verification rejects: 14 x 8 at 0.8. Texts without any
    word are like no other. Raises ValueError for a threshold outside 0 to 1.

    >>> find_duplicates(["a b c d e f g h", "x y z u v w r s", "A b c, d e f g h!"]).tolist()
    [0, 1, 0]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; a Jaccard similarity lies between 0 and 1")
    if bands is None or rows is None:
        best = optimal_bands(threshold, _HASHES, missed=0.95)
        bands, rows = bands or best[0], rows or best[1]
    hasher, exact = MinHasher(bands, rows, ngram, seed), verify_by == "exact"
    signatures = hasher.signatures_utf8(*join_utf8(texts))
    keys = hasher.band_keys(signatures)
    chosen = _candidates(keys, np.flatnonzero((signatures != EMPTY).any(axis=1)))
    keys = keys[chosen].T.copy()
    values, offsets = signatures[chosen].ravel(), np.arange(len(chosen) + 1, dtype=np.int64) * signatures.shape[1]
    if exact:
        values, offsets = hasher.shingles(*join_utf8([texts[i] for i in chosen.tolist()])).sets()
    parent = np.arange(len(chosen), dtype=np.int64)
    for band in keys:
        order = np.argsort(band, kind="stable")
        join(parent, similar_pairs(band, order, values, offsets, threshold, exact)[0])
    components = labels(parent)
    order = np.argsort(components, kind="stable")
    pairs, _ = similar_pairs(components.astype(np.uint64), order, values, offsets, threshold, exact, by_rim=True)
    labelled = np.arange(len(texts), dtype=np.int64)
    labelled[chosen[pairs[:, 1]]] = chosen[pairs[:, 0]]
    return labelled


def _candidates(keys: U64, documents: I64) -> I64:
    """Those of `documents` that share a key of any band with another."""
    shared = np.zeros(len(keys), bool)
    for band in keys.T:
        _, inverse, count = np.unique(band[documents], return_inverse=True, return_counts=True)
        shared[documents] |= count[inverse] > 1
    return np.flatnonzero(shared)


def optimal_bands(threshold: float, hashes: int, missed: float = 0.5) -> tuple[int, int]:
    """(bands, rows), at most `hashes` in all, that best separate pairs above a Jaccard threshold from those below.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands (Leskovec et al., section 3.4). The
    error to minimize is, as in datasketch, the area under that curve below the threshold (false candidates), weighted
    1 - missed, plus the area above the curve beyond it (missed pairs), weighted `missed`. Of equal errors the fewest
    bands, then rows, win.
    """
    nodes, weights = np.polynomial.legendre.leggauss(hashes // 2 + 1)  # exact for polynomials of this degree
    below, above = threshold * (nodes + 1) / 2, threshold + (1 - threshold) * (nodes + 1) / 2

    def error(split: tuple[int, int]) -> float:
        bands, rows = split
        false = threshold / 2 * weights @ (1 - (1 - below**rows) ** bands)
        lost = (1 - threshold) / 2 * weights @ (1 - above**rows) ** bands
        return float((1 - missed) * false + missed * lost)

    return min(((bands, rows) for bands in range(1, hashes + 1) for rows in range(1, hashes // bands + 1)), key=error)


def similar_pairs(
    keys: U64,
    order: I64,
    values: U32,
    offsets: I64,
    threshold: float,
    exact: bool,
    *,
    by_rim: bool = False,
    leaders: I64 = NO_PAIRS,
) -> tuple[I64, I64]:
    """(verified pairs, leaders of the last bucket) of documents that share a key.

    order: int64 (n,), in which documents are walked; keys: uint64, by document, ascending in that order.
    Document i has values[offsets[i] : offsets[i + 1]]: its signature, or with `exact` the sorted set of its shingle
    hashes. by_rim: a document joins a leader only if it is like the leader's rim too. Returns int64 (pairs, 2),
    (leader, document), a document at most once, and the last bucket's int64 (leaders, 2), each leader with its rim:
    a bucket that does not fit into memory at once is continued by passing these as `leaders`.
    """
    pairs: tuple[I64, I64] = _similar_pairs(keys, order, values, offsets, threshold, exact, by_rim, leaders)
    return pairs


def similarity(values: U32, offsets: I64, left: I64, right: I64, exact: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Similarity of pairs of documents (`similar_pairs`), float64 (pairs,)."""
    out = np.empty(len(left))
    _similarities(values, offsets, left, right, exact, out)
    return out


def join(parent: I64, edges: I64) -> None:
    """Unite the ends of `edges`, int64 (n, 2), in the forest `parent`, int64 (nodes,); a root is its tree's least."""
    _join(parent, edges)


def labels(parent: I64) -> I64:
    """The least node of each node's tree, int64 (nodes,)."""
    out: I64 = _labels(parent)
    return out


@kernel()
def gather(values: Any, places: I64, to: I64, out: Any) -> None:
    """Copy values[start : start + size] to out[to[i] :] for each (start, size) in `places`."""
    for i in range(places.shape[0]):
        at = places[i, 0]
        for k in range(places[i, 1]):
            out[to[i] + k] = values[at + k]


@kernel()
def _similarity(values: U32, offsets: I64, i: int, j: int, exact: bool) -> float:
    """Share of equal hashes of two signatures, or the Jaccard similarity of two sorted sets."""
    a, a_end, b, b_end = offsets[i], offsets[i + 1], offsets[j], offsets[j + 1]
    sizes = (a_end - a) + (b_end - b)
    equal = 0
    if not exact:
        for k in range(a_end - a):
            equal += values[a + k] == values[b + k]
        return float(equal / max(a_end - a, 1))
    while a < a_end and b < b_end:
        left, right = values[a], values[b]
        equal += left == right
        a += left <= right
        b += right <= left
    return float(equal / max(sizes - equal, 1))


@kernel()
def _similar_pairs(
    keys: U64, order: I64, values: U32, offsets: I64, threshold: float, exact: bool, by_rim: bool, before: I64
) -> tuple[I64, I64]:
    pairs = np.empty((order.size, 2), np.int64)
    leaders = np.empty((LEADERS, 2), np.int64)  # leader, rim
    closeness = np.ones(LEADERS)  # of the two
    count, leading, least = 0, before.shape[0], threshold - 1e-9
    for k in range(leading):
        leaders[k, 0], leaders[k, 1] = before[k, 0], before[k, 1]
        closeness[k] = _similarity(values, offsets, before[k, 0], before[k, 1], exact)
    for at in range(order.size):
        i = order[at]
        if at and keys[i] != keys[order[at - 1]]:
            leading = 0
        matched = False
        for k in range(leading):
            leader, rim = leaders[k, 0], leaders[k, 1]
            similarity = _similarity(values, offsets, leader, i, exact)
            if similarity < least:
                continue
            if by_rim and rim != leader and _similarity(values, offsets, rim, i, exact) < least:
                continue
            pairs[count, 0], pairs[count, 1] = leader, i
            count += 1
            if similarity < closeness[k]:
                leaders[k, 1], closeness[k] = i, similarity
            matched = True
            break
        if not matched and leading < LEADERS:
            leaders[leading, 0], leaders[leading, 1], closeness[leading] = i, i, 1.0
            leading += 1
    return pairs[:count].copy(), leaders[:leading].copy()


@kernel()
def _similarities(values: U32, offsets: I64, left: I64, right: I64, exact: bool, out: Any) -> None:
    for k in range(out.size):
        out[k] = _similarity(values, offsets, left[k], right[k], exact)


@kernel()
def _find(parent: I64, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel()
def _join(parent: I64, edges: I64) -> None:
    for k in range(edges.shape[0]):
        a, b = _find(parent, edges[k, 0]), _find(parent, edges[k, 1])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b


@kernel()
def _labels(parent: I64) -> I64:
    out = np.empty(parent.size, np.int64)
    for i in range(parent.size):
        out[i] = _find(parent, i)
    return out
