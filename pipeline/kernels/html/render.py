"""Chosen blocks of a page as plain text.

Paragraphs stand apart by a blank line, list items begin with `- ` (indented by depth), cells of a table row are
joined by ` | `, preformatted text is kept verbatim, line breaks stay. Elsewhere white space is folded; inline
tags neither part nor join words. One numba pass over the chosen runs; entities are decoded once, at the end.
"""

from __future__ import annotations

from html import unescape
from typing import Any

import numpy as np

from pipeline.kernels.compiled import kernel
from pipeline.kernels.html.blocks import Blocks
from pipeline.kernels.html.tree import BREAK, VERBATIM, Tree
from pipeline.kernels.html.vocabulary import TAGS

Array = np.ndarray[Any, Any]
CELL_BYTES = 200  # a longer block in a table cell is a paragraph of a layout table
MAX_INDENT = 8  # levels
_SEPARATOR_BYTES = 2 * MAX_INDENT + 4
_LI, _UL, _OL, _TR, _TD, _TH, _TABLE, _DT, _DD, _P = (
    TAGS[name] for name in ("li", "ul", "ol", "tr", "td", "th", "table", "dt", "dd", "p")
)
# Soft hyphens and zero-width spaces part nothing.
_PLAIN = {**dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""), **dict.fromkeys("\u2028\u2029\x85", "\n"), "\xa0": " "}


def render(page: Array, tree: Tree, blocks: Blocks, chosen: Array) -> str:
    """Text of the blocks where `chosen` (bool per block) holds, in document order."""
    numbers = np.flatnonzero(chosen)
    out = np.empty(len(page) + _SEPARATOR_BYTES * len(numbers), np.uint8)
    size = _render(page, tree, blocks, numbers, out)
    text = unescape(out[:size].tobytes().decode("utf-8", "replace"))
    for sign, plain in _PLAIN.items():  # several times faster than one regular expression
        text = text.replace(sign, plain)
    return text


@kernel()
def _place(tag: Array, parent: Array, at: int) -> tuple[int, int, int, int, int]:
    """(list item, depth of lists, cell, row, table) around an element, 0 where there is none."""
    item = lists = cell = row = table = 0
    while at > 0:
        kind = tag[at]
        if table == 0:
            if kind == _LI and item == 0:
                item = at
            elif kind in (_UL, _OL):
                lists += 1
            elif (kind in (_TD, _TH)) and cell == 0:
                cell = at
            elif kind == _TR and row == 0:
                row = at
            elif kind == _TABLE:
                table = at
        at = parent[at]
    return item, lists, cell, row, table


@kernel()
def _nbsp(page: Array, at: int, end: int) -> int:
    """Length of a no-break space at `at` (two bytes, or &nbsp; or &#160;), 0 if there is none."""
    if page[at] == 0xC2 and at + 1 < end and page[at + 1] == 0xA0:
        return 2
    if page[at] == 38 and at + 5 < end and page[at + 5] == 59:
        if page[at + 1] == 110 and page[at + 2] == 98 and page[at + 3] == 115 and page[at + 4] == 112:
            return 6
        if page[at + 1] == 35 and page[at + 2] == 49 and page[at + 3] == 54 and page[at + 4] == 48:
            return 6
    return 0


@kernel()
def _render(page: Array, tree: Tree, blocks: Blocks, numbers: Array, out: Array) -> int:
    size = 0
    item = lists = cell = row = table = 0
    previous = -1
    for block in numbers:
        before_item, before_cell, before_row, before_table = item, cell, row, table
        item, lists, cell, row, table = _place(tree.tag, tree.parent, blocks.element[block])
        small = blocks.bytes[block] < CELL_BYTES and (previous < 0 or blocks.bytes[previous] < CELL_BYTES)
        kind = tree.tag[blocks.element[block]]
        newlines = 2
        if previous >= 0:
            if row > 0 and row == before_row and cell != before_cell and small:
                newlines = 0
                out[size], out[size + 1], out[size + 2] = 32, 124, 32
                size += 3
            elif (
                (table > 0 and table == before_table and row != before_row and small)
                or (item > 0 and before_item > 0 and (item != before_item or kind != _P))
                or (kind == _DD and tree.tag[blocks.element[previous]] == _DT)
            ):
                newlines = 1
            for _ in range(newlines):
                out[size] = 10
                size += 1
        if item > 0 and newlines > 0:
            for _ in range(2 * (min(lists, MAX_INDENT) - 1)):
                out[size] = 32
                size += 1
            if item != before_item:
                out[size], out[size + 1] = 45, 32
                size += 2
        pending = False  # white space seen and not yet written
        at_start = True
        for run in range(blocks.first[block], blocks.last[block]):
            flags = tree.run_flags[run]
            if flags & BREAK:
                out[size] = 10
                size += 1
                pending, at_start = False, True
                continue
            at = tree.run_start[run]
            end = tree.run_end[run]
            while at < end:
                byte = page[at]
                hard = _nbsp(page, at, end)
                if hard > 0:
                    byte = np.uint8(32)
                if flags & VERBATIM:
                    out[size] = byte
                    size += 1
                elif byte == 32 or 9 <= byte <= 13:
                    pending = True
                else:
                    if pending and not at_start:
                        out[size] = 32
                        size += 1
                    pending = at_start = False
                    out[size] = byte
                    size += 1
                at += max(hard, 1)
        previous = block
    return size
