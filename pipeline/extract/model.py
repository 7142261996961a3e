"""Which blocks are main text: two small ensembles of regression trees over blocks' features.

The first scores each block by itself; the second sees the first's scores of the blocks around it, along its
ancestors and of the whole page, which makes decisions coherent. Trained by benchmarks/train_extractor.py, which
records data and split; `weights.npz` beside this file holds the trees. Scoring costs about 1 µs a block.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from pipeline.extract.blocks import Blocks
from pipeline.extract.surroundings import LEVELS
from pipeline.extract.tree import Tree

Array = np.ndarray[Any, Any]
WEIGHTS = Path(__file__).with_name("weights.npz")
AROUND = (-4, -3, -2, -1, 1, 2, 3, 4)
CONTEXT = 1 + len(AROUND) + LEVELS + 5


class Trees(NamedTuple):
    """Nodes of all trees. feature (-1 in a leaf), threshold (a leaf's value), left, right; roots: first nodes."""

    feature: Array
    threshold: Array
    left: Array
    right: Array
    roots: Array


@cache
def load() -> tuple[Trees, Trees, float]:
    """(first stage, second stage, score from which a block is main text)."""
    with np.load(WEIGHTS) as found:
        stages = [Trees(*(found[f"{stage}_{name}"] for name in Trees._fields)) for stage in ("first", "second")]
        return stages[0], stages[1], float(found["threshold"])


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


@njit(cache=True)
def run_trees(trees: Trees, rows: Array) -> Array:
    """Sigmoid of the sum of all trees' leaves for each row; a value <= threshold goes left."""
    out = np.zeros(len(rows), np.float32)
    for i in range(len(rows)):
        total = 0.0
        for root in trees.roots:
            node = root
            while trees.feature[node] >= 0:
                node = trees.left[node] if rows[i, trees.feature[node]] <= trees.threshold[node] else trees.right[node]
            total += trees.threshold[node]
        out[i] = 1.0 / (1.0 + np.exp(-total))
    return out


@njit(cache=True)
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
