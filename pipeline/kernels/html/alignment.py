"""Two texts of words brought into line: which words of a page its reviewed text holds, in order."""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compiled import Array, kernel

_OPENING = np.float32(1.0)  # cost of beginning a run of equal words: a lone word in common says little


@kernel()
def align(page: Array, truth: Array) -> tuple[Array, Array]:
    """(bool per word of `page`, bool per word of `truth`): the words of the best common sequence.

    Both are int32 word numbers. Affine gaps (Gotoh 1982): each word in common counts one, each run of them costs
    _OPENING. Time and memory (bytes) are the product of the lengths.
    """
    rows, columns = len(page), len(truth)
    back = np.zeros((rows + 1, columns + 1), np.uint8)  # 1, 2: a word of page, of truth left out; 3: one in common
    equal, equal_before = np.full(columns + 1, -1e9, np.float32), np.full(columns + 1, -1e9, np.float32)
    best, best_before = np.zeros(columns + 1, np.float32), np.zeros(columns + 1, np.float32)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            goes_on = False
            equal[j] = -1e9
            if page[i - 1] == truth[j - 1]:
                goes_on = equal_before[j - 1] >= best_before[j - 1] - _OPENING
                equal[j] = 1 + max(equal_before[j - 1], best_before[j - 1] - _OPENING)
            value, way = best_before[j], 1
            if best[j - 1] > value:
                value, way = best[j - 1], 2
            if equal[j] > value:
                value, way = equal[j], 3
            best[j] = value
            back[i, j] = way + 4 * goes_on
        equal, equal_before = equal_before, equal
        best, best_before = best_before, best
    in_page, in_truth = np.zeros(rows, np.bool_), np.zeros(columns, np.bool_)
    i, j, within = rows, columns, False
    while i > 0 and j > 0:
        way = back[i, j]
        if within or way & 3 == 3:
            in_page[i - 1] = in_truth[j - 1] = True
            within = way & 4 != 0
            i, j = i - 1, j - 1
        elif way & 3 == 1:
            i -= 1
        else:
            j -= 1
    return in_page, in_truth
