"""From signatures to clusters of duplicates: LSH candidates, verification, union-find.

Documents that share a band key are candidates (Leskovec et al., Mining of Massive Datasets, chapter 3). Within
a band's bucket each document is compared with the one before it and with the first; only pairs whose
whole signatures agree on at least `verify` of their hashes become edges, so that a chance collision of one
band deletes nothing. Sorting dominates: O(bands x n log n) time, O(n) memory beside the signatures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from datasketch.lsh import _optimal_param
from numba import njit

from pipeline.minhash import EMPTY, U32, MinHasher

I64 = np.ndarray[Any, np.dtype[np.int64]]


def find_duplicates(
    texts: list[str], *, threshold: float = 0.8, bands: int = 14, rows: int = 8, ngram: int = 5, seed: int = 1
) -> I64:
    """Cluster label of each text, int64 (len(texts),): the index of the cluster's first text.

    Texts whose estimated Jaccard similarity over word n-grams reaches `threshold` share a label.

    >>> find_duplicates(["a b c d e f g h", "x y z u v w r s", "a b c d e f g h"]).tolist()
    [0, 1, 0]
    """
    hasher = MinHasher(bands, rows, ngram, seed)
    signatures = hasher.signatures(texts)
    return cluster(signatures, hasher.band_keys(signatures), threshold)


def optimal_bands(threshold: float, hashes: int) -> tuple[int, int]:
    """(bands, rows) within `hashes` that datasketch's optimizer picks for a Jaccard threshold."""
    bands, rows = _optimal_param(threshold, hashes, 0.5, 0.5)
    return int(bands), int(rows)


def cluster(signatures: U32, keys: Any, verify: float, known: I64 | None = None) -> I64:
    """Label of each document from its signature and band keys: the smallest index in its cluster.

    signatures: uint32 (n, hashes); keys: uint64 (n, bands); known: labels to start from, e.g. of exact
    duplicates. Documents without words join nothing new.
    """
    parent = np.arange(len(signatures), dtype=np.int64) if known is None else known.copy()
    needed = int(np.ceil(verify * signatures.shape[1] - 1e-9))
    real = np.flatnonzero((signatures != EMPTY).any(axis=1))
    for band in range(keys.shape[1]):
        order = real[np.argsort(keys[real, band], kind="stable")]
        _join(order, np.ascontiguousarray(keys[:, band]), signatures, needed, parent)
    labels: I64 = _labels(parent)
    return labels


def group_equal(hashes: Any) -> I64:
    """Label of each document, the smallest index with the same 128-bit hash. hashes: uint64 (n, 2)."""
    _, first, inverse = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    labels: I64 = first[inverse.ravel()].astype(np.int64)
    return labels


def agreement(signatures: U32, left: I64, right: I64) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Estimated Jaccard similarity of pairs of documents: the share of equal hashes, float64 (pairs,)."""
    return np.array([(signatures[i] == signatures[j]).mean() for i, j in zip(left, right, strict=True)])


@njit(cache=True)
def _find(parent: I64, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def _union(parent: I64, i: int, j: int) -> None:
    a, b = _find(parent, i), _find(parent, j)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(cache=True)
def _similar(signatures: U32, i: int, j: int, needed: int) -> bool:
    equal = 0
    for k in range(signatures.shape[1]):
        equal += signatures[i, k] == signatures[j, k]
    return bool(equal >= needed)


@njit(cache=True)
def _join(order: I64, keys: Any, signatures: U32, needed: int, parent: I64) -> None:
    first = 0
    for position in range(1, order.size):
        i = order[position]
        if keys[i] != keys[order[first]]:
            first = position
            continue
        for j in (order[position - 1], order[first]):
            if _find(parent, i) != _find(parent, j) and _similar(signatures, i, j, needed):
                _union(parent, i, j)


@njit(cache=True)
def _labels(parent: I64) -> I64:
    return np.array([_find(parent, i) for i in range(parent.size)], np.int64)
