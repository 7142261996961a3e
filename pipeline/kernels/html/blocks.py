"""Blocks of text of a page: text between two borders of block elements, or between two line breaks in a row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compiled import kernel
from pipeline.kernels.html.tree import BREAK, LINK, Tree
from pipeline.kernels.html.vocabulary import BLOCK, KINDS

Array = np.ndarray[Any, Any]


class Blocks(NamedTuple):
    """Per block: runs [first, last), nearest block element, text in bytes (white space folded), bytes in links."""

    first: Array
    last: Array
    element: Array
    bytes: Array
    links: Array


@kernel()
def _blank(page: Array, start: int, end: int) -> bool:
    """Whether a run holds nothing but white space (no-break spaces too)."""
    at = start
    while at < end:
        byte = page[at]
        if byte == 32 or 9 <= byte <= 13:
            at += 1
        elif byte == 0xC2 and at + 1 < end and page[at + 1] == 0xA0:
            at += 2
        elif byte == 38 and at + 5 < end and page[at + 1] == 110 and page[at + 2] == 98 and page[at + 3] == 115:
            at += 6  # &nbsp;
        else:
            return False
    return True


@kernel()
def _cut(page: Array, tree: Tree, first: Array, last: Array, element: Array) -> int:
    """Fill first, last, element; returns the number of blocks."""
    count = 0
    breaks = 0
    current = -1
    for run in range(len(tree.run_element)):
        if tree.run_block[run] != current:
            current = tree.run_block[run]
            breaks = 2
        if tree.run_flags[run] & BREAK:
            breaks += 1
            continue
        if _blank(page, tree.run_start[run], tree.run_end[run]):
            continue
        if breaks >= 2:
            owner = tree.run_element[run]
            while owner > 0 and not (KINDS[tree.tag[owner]] & BLOCK):
                owner = tree.parent[owner]
            first[count], element[count] = run, owner
            count += 1
        last[count - 1] = run + 1
        breaks = 0
    return count


def cut_blocks(page: Array, tree: Tree) -> Blocks:
    """Blocks of a page in document order."""
    size = len(tree.run_element)
    first, last, element = (np.zeros(size, np.int32) for _ in range(3))
    count = _cut(page, tree, first, last, element)
    sizes, links = np.zeros(count, np.int64), np.zeros(count, np.int64)
    blocks = Blocks(first[:count], last[:count], element[:count], sizes, links)
    _measure(page, tree, blocks)
    return blocks


@kernel()
def _measure(page: Array, tree: Tree, blocks: Blocks) -> None:
    for block in range(len(blocks.first)):
        for run in range(blocks.first[block], blocks.last[block]):
            space = True
            size = 0
            for at in range(tree.run_start[run], tree.run_end[run]):
                blank = page[at] <= 32
                size += not (blank and space)
                space = blank
            blocks.bytes[block] += size
            if tree.run_flags[run] & LINK:
                blocks.links[block] += size
