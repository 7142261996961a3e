"""Ensembles of regression trees, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, kernel

LEAVES = 32  # at most, in a tree: as many as a word has bits
_ALL = np.uint32((1 << LEAVES) - 1)
_ROWS = 64  # at a time: enough that the compiler strikes out leaves of several rows in one instruction
_DE_BRUIJN = np.uint32(0x077CB531)  # its 32 rotations begin with different five bits, which tell a lone bit's index
_PLACES = [(int(_DE_BRUIJN) << i & int(_ALL)) >> 27 for i in range(LEAVES)]


class Nodes(NamedTuple):
    """Nodes of all trees. feature (-1 in a leaf), threshold (a leaf's value), left, right; roots: first nodes."""

    feature: Array
    threshold: Array
    left: Array
    right: Array
    roots: Array


class Trees(NamedTuple):
    """The same trees, their inner nodes by feature and threshold.

    starts: int64 (features + 1,), where a feature's nodes begin in the next three; threshold: float32; tree: int16;
    kept: uint32, the leaves of the tree that a value above the threshold leaves possible. leaves: float32
    (trees, LEAVES), the value of the i-th leaf from the left at _PLACES[i].
    """

    starts: Array
    threshold: Array
    tree: Array
    kept: Array
    leaves: Array


def by_feature(nodes: Nodes) -> Trees:
    """Order trees for `run_trees`. Raises ValueError for a tree of more than LEAVES leaves."""
    inner: list[tuple[int, float, int, int]] = []
    leaves = np.zeros((len(nodes.roots), LEAVES), np.float32)

    def walk(node: int, tree: int, first: int) -> int:
        """Number the leaves below a node from `first` on. Returns the number after the last."""
        if nodes.feature[node] < 0:
            if first == LEAVES:
                raise ValueError(f"tree {tree} has more than {LEAVES} leaves")
            leaves[tree, _PLACES[first]] = nodes.threshold[node]
            return first + 1
        middle = walk(nodes.left[node], tree, first)
        left = (1 << middle) - (1 << first)
        inner.append((int(nodes.feature[node]), float(nodes.threshold[node]), tree, int(_ALL) & ~left))
        return walk(nodes.right[node], tree, middle)

    for tree, root in enumerate(nodes.roots):
        walk(root, tree, 0)
    feature, threshold, of_tree, kept = (np.array(column) for column in zip(*sorted(inner), strict=True))
    starts = np.searchsorted(feature, np.arange(feature.max() + 2))
    return Trees(starts, threshold.astype(np.float32), of_tree.astype(np.int16), kept.astype(np.uint32), leaves)


def run_trees(trees: Trees, rows: Array, sureness: float = 1.0) -> Array:
    """float32 (rows,): sigmoid of `sureness` times the sum of all trees' leaves; a value <= threshold goes left.

    QuickScorer (Lucchese et al. 2015): instead of walking down each tree, whose branches no processor can foresee, go
    through each feature's thresholds in order and strike out the leaves that every threshold below the value rules
    out; the first of a tree's remaining leaves is the one that the walk would reach. What a threshold below the values
    of all rows rules out is struck out once for all of them.
    """
    out = np.zeros(len(rows), np.float32)
    of_all = np.empty(len(trees.leaves), np.uint32)
    _run(trees, rows, of_all, np.empty((len(of_all), _ROWS), np.uint32), np.empty((2, _ROWS)), sureness, out)
    return out


@kernel(**UNCOUNTED)
def _run(
    trees: Trees, rows: Array, of_all: Array, possible: Array, scratch: Array, sureness: float, out: Array
) -> None:
    starts, threshold, of_tree, kept, leaves = trees
    values, totals = scratch[0], scratch[1]
    for first in range(0, len(rows), _ROWS):
        of_all[:] = _ALL
        possible[:] = _ALL
        for feature in range(len(starts) - 1):
            smallest, largest = np.inf, -np.inf
            for i in range(_ROWS):
                value = rows[min(first + i, len(rows) - 1), feature]
                values[i] = value
                smallest, largest = min(smallest, value), max(largest, value)
            for node in range(starts[feature], starts[feature + 1]):
                limit, above, tree = threshold[node], kept[node], of_tree[node]
                if largest <= limit:
                    break
                if smallest > limit:
                    of_all[tree] &= above
                    continue
                for i in range(_ROWS):
                    possible[tree, i] &= _ALL if values[i] <= limit else above
        totals[:] = 0.0
        for tree in range(len(leaves)):
            common = of_all[tree]
            for i in range(_ROWS):
                left = possible[tree, i] & common
                totals[i] += leaves[tree, np.uint32((left & -left) * _DE_BRUIJN) >> np.uint32(27)]
        for i in range(min(_ROWS, len(rows) - first)):
            out[first + i] = 1.0 / (1.0 + np.exp(-sureness * totals[i]))


@kernel()
def walk_trees(nodes: Nodes, row: Array, classes: int) -> Array:
    """float64 (classes,): softmax of the sums of a row's leaves; tree i belongs to class i modulo `classes`."""
    out = np.zeros(classes)
    for tree in range(len(nodes.roots)):
        at = nodes.roots[tree]
        while nodes.feature[at] >= 0:
            at = nodes.left[at] if row[nodes.feature[at]] <= nodes.threshold[at] else nodes.right[at]
        out[tree % classes] += nodes.threshold[at]
    out = np.exp(out - out.max())
    shares: Array = out / out.sum()
    return shares
