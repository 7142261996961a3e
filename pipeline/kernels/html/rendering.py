r"""Chosen blocks as plain text.

Paragraphs are separated by a blank line, list items begin with `- ` (indented by depth), cells of a table row are
joined by ` | ` (an empty one keeps its place in tables of data), preformatted text is verbatim, line breaks stay, TeX
stands between `\(` and `\)`. Elsewhere white space is folded, but for indentation by no-break spaces; inline tags
neither part nor join words. Entities are decoded once, at the end. markdown.py renders the same blocks with structure.
"""

from __future__ import annotations

from html import unescape

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import is_space
from pipeline.kernels.html.attributes import MAX_SPAN, TAGS
from pipeline.kernels.html.tree import BREAK, CODE, MATH, UNSEEN, VERBATIM, Blocks, Tree

CELL_BYTES = 200  # a longer block in a table cell is a paragraph of a layout table
MAX_INDENT = 8  # levels
_MOST_COLUMNS = 2 * MAX_SPAN  # of a table; what is beyond stands in the last
_SEPARATOR_BYTES = 2 * MAX_INDENT + 4
_LI, _UL, _OL, _TR, _TD, _TH, _TABLE, _DT, _DD, _P = (
    TAGS[name] for name in ("li", "ul", "ol", "tr", "td", "th", "table", "dt", "dd", "p")
)
# Soft hyphens and zero-width spaces part nothing.
PLAIN = {**dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""), **dict.fromkeys("\u2028\u2029\x85", "\n"), "\xa0": " "}


def render(page: Array, tree: Tree, blocks: Blocks, chosen: Array) -> str:
    r"""Text of the blocks where `chosen` (bool per block) holds, in document order.

    Paragraphs are separated by a blank line, list items begin with `- ` (indented by depth), cells of a table row are
    joined by ` | ` (an empty one keeps its place in tables of data), preformatted text is verbatim, line breaks stay,
    TeX stands between `\(` and `\)`. Elsewhere white space is folded, but for indentation by no-break spaces; inline
    tags neither part nor join words. Entities are decoded once, at the end.
    """
    numbers = np.flatnonzero(chosen & blocks.seen)
    columns = np.full(len(tree.tag), -1, np.int32)
    places = _lay_out(tree, np.zeros(_MOST_COLUMNS, np.int64), columns)
    out = np.empty(len(page) + _SEPARATOR_BYTES * len(numbers) + 3 * places, np.uint8)
    size = _render(page, tree, blocks, numbers, columns, out)
    text = unescape(out[:size].tobytes().decode("utf-8", "replace"))
    for sign, plain in PLAIN.items():  # several times faster than one regular expression
        text = text.replace(sign, plain)
    return text


@inner
def _surroundings(tag: Array, parent: Array, at: int) -> tuple[int, int, int, int, int]:
    """(list item, depth of lists, cell, row, table) around an element, 0 for none."""
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


@inner
def _is_data(tag: Array, end: Array, table: int) -> bool:
    """Whether a table is one of data: it holds no other, and has a header cell or two rows of two cells and more."""
    rows = cells = 0
    header = False
    for at in range(table + 1, end[table]):
        if tag[at] == _TABLE:
            return False
        if tag[at] == _TR:
            cells = 0
        elif tag[at] == _TD or tag[at] == _TH:
            header |= tag[at] == _TH
            cells += 1
            rows += cells == 2
    return header or rows > 1


@kernel(**UNCOUNTED)
def _lay_out(tree: Tree, covered: Array, columns: Array) -> int:
    """Write the first column of each cell of tables of data, and the number of columns of each of their rows.

    covered: scratch, rows for which a column is still covered by a cell above. Returns the sum of the rows' columns.
    """
    places = 0
    for table in range(len(tree.tag)):
        if tree.tag[table] != _TABLE or not _is_data(tree.tag, tree.end, table):
            continue
        covered[:] = 0
        row = column = 0
        for at in range(table + 1, tree.end[table]):
            kind = tree.tag[at]
            if kind == _TR:
                places += column
                for i in range(column, len(covered)):
                    covered[i] = max(covered[i] - 1, 0)
                row, column = at, 0
            elif kind in (_TD, _TH) and row > 0:
                while column < len(covered) and covered[column] > 0:
                    covered[column] -= 1
                    column += 1
                columns[at] = column
                for _ in range(tree.spans[at] & 255):
                    if column < len(covered):
                        covered[column] = (tree.spans[at] >> 8) - 1
                        column += 1
                columns[row] = column
        places += column
    return places


@inner
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


@inner
def _places(tree: Tree, blocks: Blocks, columns: Array, block: int, row: int, cell: int, step: int) -> int:
    """Empty places of a row before (step -1) or behind (1) the cell of a short block; 0 if other text is there."""
    if columns[cell] < 0 or blocks.bytes[block] >= CELL_BYTES:
        return 0
    other = block + step
    while 0 <= other < len(blocks.seen) and not blocks.seen[other]:
        other += step
    if 0 <= other < len(blocks.seen) and row < blocks.element[other] < tree.end[row]:
        return 0
    return int(columns[cell] if step < 0 else columns[row] - columns[cell] - (tree.spans[cell] & 255))


@inner
def _put(out: Array, size: int, text: bytes, times: int = 1) -> int:
    """Write a text several times. Returns the new size of the output."""
    for _ in range(times):
        for byte in text:
            out[size] = byte
            size += 1
    return size


@inner
def _render_runs(page: Array, tree: Tree, first: int, last: int, out: Array, size: int) -> int:
    """Write the text of runs. Returns the new size of the output."""
    pending = False  # white space seen and not yet written
    at_start = True
    indents = False
    after_break = first > 0 and (tree.run_flags[first - 1] & BREAK) != 0
    for run in range(first, last):
        flags = tree.run_flags[run]
        if flags & UNSEEN:
            continue
        if flags & BREAK:
            out[size] = 10
            size += 1
            pending, at_start, after_break = False, True, True
            continue
        at = tree.run_start[run]
        end = tree.run_end[run]
        if flags & MATH:
            size = _put(out, size, b" \\(" if pending and not at_start else b"\\(")
            pending, at_start = False, True
        while at < end:
            byte = page[at]
            hard = _nbsp(page, at, end)
            if hard > 0:
                byte = np.uint8(32)
            more = indents or (hard > 0 and _nbsp(page, at + hard, end) > 0)
            indents = hard > 0 and at_start and after_break and more
            if flags & VERBATIM or (hard > 0 and flags & CODE) or indents:
                out[size] = byte
                size += 1
                at_start &= hard > 0
            elif is_space(byte):
                pending = True
            else:
                if pending and not at_start:
                    out[size] = 32
                    size += 1
                pending = at_start = False
                out[size] = byte
                size += 1
            at += max(hard, 1)
        if flags & MATH:
            size = _put(out, size, b"\\)")
            pending = at_start = False
    return size


@kernel(**UNCOUNTED)
def _render(page: Array, tree: Tree, blocks: Blocks, numbers: Array, columns: Array, out: Array) -> int:
    size = 0
    item = lists = cell = row = table = 0
    previous = -1
    for block in numbers:
        before_item, before_cell, before_row, before_table = item, cell, row, table
        item, lists, cell, row, table = _surroundings(tree.tag, tree.parent, blocks.element[block])
        small = blocks.bytes[block] < CELL_BYTES and (previous < 0 or blocks.bytes[previous] < CELL_BYTES)
        kind = tree.tag[blocks.element[block]]
        newlines = 2
        if previous >= 0:
            if row > 0 and row == before_row and cell != before_cell and small:
                newlines = 0
                size = _put(out, size, b" | ", max(columns[cell] - columns[before_cell], 1))
            elif (
                (table > 0 and table == before_table and row != before_row and small)
                or (item > 0 and before_item > 0 and (item != before_item or kind != _P))
                or (kind == _DD and tree.tag[blocks.element[previous]] == _DT)
            ):
                newlines = 1
            if row != before_row:
                size = _put(out, size, b" | ", _places(tree, blocks, columns, previous, before_row, before_cell, 1))
            size = _put(out, size, b"\n", newlines)
        if row != before_row:
            size = _put(out, size, b" | ", _places(tree, blocks, columns, block, row, cell, -1))
        if item > 0 and newlines > 0:
            size = _put(out, size, b"  ", min(lists, MAX_INDENT) - 1)
            if item != before_item:
                size = _put(out, size, b"- ")
        size = _render_runs(page, tree, blocks.first[block], blocks.last[block], out, size)
        previous = block
    return _put(out, size, b" | ", _places(tree, blocks, columns, previous, row, cell, 1)) if previous >= 0 else size
