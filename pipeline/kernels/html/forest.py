"""Which blocks are main text: two small ensembles of regression trees over blocks' features.

The first scores each block by itself; the second sees the first's scores of the blocks around it, along its
ancestors and of the whole page, which makes decisions coherent. Trained by benchmarks/train_extractor.py, which
records data and split; `weights.npz` beside this file holds the trees. They are evaluated by QuickScorer (Lucchese et
al., 2015): instead of walking down each tree, whose branches no processor can foresee, go through each feature's
thresholds in order and strike out the leaves that every threshold below the value rules out; what remains of a tree
begins with its leaf.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compiled import kernel
from pipeline.kernels.html.blocks import Blocks
from pipeline.kernels.html.features import LEVELS
from pipeline.kernels.html.tree import Tree

Array = np.ndarray[Any, Any]
WEIGHTS = Path(__file__).with_name("weights.npz")
AROUND = (-4, -3, -2, -1, 1, 2, 3, 4)
CONTEXT = 1 + len(AROUND) + LEVELS + 5
LEAVES = 32  # at most, in a tree: as many as a word has bits
_ALL = np.uint32((1 << LEAVES) - 1)
_ROWS = 64  # at a time: enough that the compiler strikes out leaves of several rows in one instruction
_DE_BRUIJN = np.uint32(0x077CB531)  # its 32 rotations begin with different five bits, which tell a lone bit's place
_PLACE = np.zeros(LEAVES, np.int64)
_PLACE[[(int(_DE_BRUIJN) << i & int(_ALL)) >> 27 for i in range(LEAVES)]] = np.arange(LEAVES)


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
    (trees, LEAVES), values from left to right.
    """

    starts: Array
    threshold: Array
    tree: Array
    kept: Array
    leaves: Array


@cache
def load() -> tuple[Trees, Trees, float]:
    """(first stage, second stage, score from which a block is main text)."""
    with np.load(WEIGHTS) as found:
        stages = [Nodes(*(found[f"{stage}_{name}"] for name in Nodes._fields)) for stage in ("first", "second")]
        return by_feature(stages[0]), by_feature(stages[1]), float(found["threshold"])


def by_feature(nodes: Nodes) -> Trees:
    """Raises ValueError for a tree of more than LEAVES leaves."""
    inner: list[tuple[int, float, int, int]] = []
    leaves = np.zeros((len(nodes.roots), LEAVES), np.float32)

    def walk(node: int, tree: int, first: int) -> int:
        """Number the leaves below a node from `first` on. Returns the number after the last."""
        if nodes.feature[node] < 0:
            if first == LEAVES:
                raise ValueError(f"{WEIGHTS}: tree {tree} has more than {LEAVES} leaves")
            leaves[tree, first] = nodes.threshold[node]
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


def score(tree: Tree, blocks: Blocks, features: Array) -> Array:
    """float32 (blocks,): probability that a block is main text."""
    first, second, _ = load()
    alone = run_trees(first, features)
    scores: Array = run_trees(second, np.hstack([features, context(tree, blocks, alone)]))
    return scores


def context(tree: Tree, blocks: Blocks, scores: Array) -> Array:
    """float32 (blocks, CONTEXT): first-stage scores around each block."""
    out = np.zeros((len(scores), CONTEXT), np.float32)
    _context(tree.parent, blocks, scores, out)
    return out


@kernel()
def run_trees(trees: Trees, rows: Array) -> Array:
    """Sigmoid of the sum of all trees' leaves for each row; a value <= threshold goes left."""
    starts, threshold, of_tree, kept, leaves = trees
    out = np.zeros(len(rows), np.float32)
    possible = np.empty((len(leaves), _ROWS), np.uint32)
    values = np.empty(_ROWS, np.float32)
    totals = np.empty(_ROWS, np.float64)
    for first in range(0, len(rows), _ROWS):
        possible[:] = _ALL
        for feature in range(len(starts) - 1):
            largest = -np.inf
            for i in range(_ROWS):
                values[i] = rows[min(first + i, len(rows) - 1), feature]
                largest = max(largest, values[i])
            for node in range(starts[feature], starts[feature + 1]):
                limit, above = threshold[node], kept[node]
                if largest <= limit:
                    break
                of_rows = possible[of_tree[node]]
                for i in range(_ROWS):
                    of_rows[i] &= _ALL if values[i] <= limit else above
        totals[:] = 0.0
        for tree in range(len(leaves)):
            for i in range(_ROWS):
                lowest = possible[tree, i] & -possible[tree, i]
                totals[i] += leaves[tree, _PLACE[np.uint32(lowest * _DE_BRUIJN) >> np.uint32(27)]]
        for i in range(min(_ROWS, len(rows) - first)):
            out[first + i] = 1.0 / (1.0 + np.exp(-totals[i]))
    return out


@kernel()
def _context(parent: Array, blocks: Blocks, scores: Array, out: Array) -> None:
    count = len(scores)
    total = np.zeros(len(parent), np.float64)
    good = np.zeros(len(parent), np.float64)
    for block in range(count):
        total[blocks.element[block]] += blocks.bytes[block]
        good[blocks.element[block]] += blocks.bytes[block] * scores[block]
    for at in range(len(parent) - 1, 0, -1):
        total[parent[at]] += total[at]
        good[parent[at]] += good[at]
    all_good = max(good[0], 1e-9)
    good_before = 0.0
    since_good = 1000
    for block in range(count):
        row = out[block]
        row[0] = scores[block]
        i = 1
        for step in AROUND:
            other = block + step
            row[i] = scores[other] if 0 <= other < count else -1
            i += 1
        here = blocks.element[block]
        size = blocks.bytes[block] + 0.0
        for _ in range(LEVELS):
            while here > 0 and total[here] <= size:
                here = parent[here]
            size = total[here]
            row[i] = good[here] / max(size, 1.0)
            i += 1
        row[i] = good[0] / max(total[0], 1.0)
        row[i + 1] = np.log1p(good[0])
        row[i + 2] = good_before / all_good
        row[i + 3] = since_good
        good_before += blocks.bytes[block] * scores[block]
        since_good = 0 if scores[block] >= 0.5 else since_good + 1
    since_good = 1000
    for block in range(count - 1, -1, -1):
        out[block, CONTEXT - 1] = since_good
        since_good = 0 if scores[block] >= 0.5 else since_good + 1
