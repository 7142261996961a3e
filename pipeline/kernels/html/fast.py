"""Extractor `fast`: main text by a trained model over blocks, in numba from the page's bytes to the text's.

tree.py reads the page and cuts it into blocks, features.py describes them. Here two small ensembles of regression
trees score them: the first scores each block by itself; the second sees the first's scores of the blocks around it,
along its ancestors and of the page, which makes decisions coherent. Trained by the package `training`, which records
data and split; `weights.npz` beside this file holds the trees. The chosen blocks are rendered as plain text.

Where the model leaves nearly nothing of a page that has text, or is unsure of more text than it is sure of (cards of a
listing, parts of a landing page), a wider choice is made (`wide`); a page with more elements than MAX_ELEMENTS is
decided by link density alone (`budget`). A heading that is a link or a button is kept with the text that it heads. A
page whose text is all hidden is read with what it hides. No time-out, no state: the same page always gives the same
text. Figures: docs/benchmarks.md, benchmarks/extraction.py.
"""

from __future__ import annotations

from functools import cache
from html import unescape
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import is_space
from pipeline.kernels.html.attributes import MAX_SPAN, TAGS
from pipeline.kernels.html.features import LEVELS, describe
from pipeline.kernels.html.tree import BREAK, CODE, MATH, UNSEEN, VERBATIM, Blocks, Tree, cut_blocks, parse

MAX_ELEMENTS = 300_000
FEW_BYTES = 200  # below this, less than WIDE_SHARE of the page's text is too little to be its main text
WIDE_SHARE = 0.3
WIDE_SCORE = 0.15
SURE_SHARE = 0.5  # of the text with WIDE_SCORE and more; below this share of it the model's choice is unsure
MUCH_BYTES = 1000  # of such text; a page with less is a notice among navigation rather than a listing
PROSE_BYTES = 40  # shortest block that counts where nothing but link density decides

WEIGHTS = Path(__file__).with_name("weights.npz")
AROUND = (-4, -3, -2, -1, 1, 2, 3, 4)
CONTEXT = 1 + len(AROUND) + LEVELS + 5
LEAVES = 32  # at most, in a tree: as many as a word has bits
_ALL = np.uint32((1 << LEAVES) - 1)
_ROWS = 64  # at a time: enough that the compiler strikes out leaves of several rows in one instruction
_DE_BRUIJN = np.uint32(0x077CB531)  # its 32 rotations begin with different five bits, which tell a lone bit's index
_INDEX = np.zeros(LEAVES, np.int64)
_INDEX[[(int(_DE_BRUIJN) << i & int(_ALL)) >> 27 for i in range(LEAVES)]] = np.arange(LEAVES)

CELL_BYTES = 200  # a longer block in a table cell is a paragraph of a layout table
MAX_INDENT = 8  # levels
_MOST_COLUMNS = 2 * MAX_SPAN  # of a table; what is beyond stands in the last
_SEPARATOR_BYTES = 2 * MAX_INDENT + 4
_LI, _UL, _OL, _TR, _TD, _TH, _TABLE, _DT, _DD, _P, _BUTTON = (
    TAGS[name] for name in ("li", "ul", "ol", "tr", "td", "th", "table", "dt", "dd", "p", "button")
)
_LEVELS = np.zeros(256, np.int64)  # of headings
_LEVELS[[TAGS[name] for name in ("h1", "h2", "h3", "h4", "h5", "h6", "summary")]] = np.arange(1, 8)
# Soft hyphens and zero-width spaces part nothing.
_PLAIN = {**dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""), **dict.fromkeys("\u2028\u2029\x85", "\n"), "\xa0": " "}

Choice = Literal["model", "wide", "budget"]


class Extraction(NamedTuple):
    """Text, and the path by which its blocks were chosen."""

    text: str
    path: Choice


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


def extract(page: str) -> Extraction:
    """Main text of a decoded HTML page; "" where the page has no text."""
    data = np.frombuffer(page.encode("utf-8", "replace"), np.uint8)
    tree = parse(data)
    blocks = cut_blocks(data, tree)
    if _hides_all(blocks):
        tree.run_flags[:] &= ~np.uint8(UNSEEN)
        blocks.seen[:] = True
    if len(tree.tag) > MAX_ELEMENTS:
        return Extraction(render(data, tree, blocks, _prose(blocks)), "budget")
    scores = score(tree, blocks, describe(data, tree, blocks))
    chosen, path = choose(blocks, scores, load()[2])
    _keep_headings(tree, blocks, chosen)
    return Extraction(render(data, tree, blocks, chosen), path)


def all_text(page: str) -> str:
    """All text of a decoded HTML page, or of a part of one."""
    data = np.frombuffer(page.encode("utf-8", "replace"), np.uint8)
    tree = parse(data)
    blocks = cut_blocks(data, tree)
    return render(data, tree, blocks, np.ones(len(blocks.first), bool))


def _hides_all(blocks: Blocks) -> bool:
    return int(blocks.bytes[blocks.seen].sum()) < FEW_BYTES <= int(blocks.bytes.sum())


def choose(blocks: Blocks, scores: Array, threshold: float) -> tuple[Array, Choice]:
    """Blocks scored as main text, or a wider choice where they are too little of the page."""
    chosen = (scores >= threshold) & blocks.seen
    wide = chosen | (scores >= WIDE_SCORE) & blocks.seen
    size, plausible, total = (int(blocks.bytes[which].sum()) for which in (chosen, wide, blocks.seen))
    sure = size >= SURE_SHARE * plausible or plausible < MUCH_BYTES
    if sure and (size >= FEW_BYTES or size >= WIDE_SHARE * total):
        return chosen, "model"
    if plausible < FEW_BYTES:
        wide |= _prose(blocks)
    return wide, "wide"


@kernel()
def _keep_headings(tree: Tree, blocks: Blocks, chosen: Array) -> None:
    """Choose headings that are links or buttons, right before chosen text of the same part of the page."""
    below = 0  # level of the heading after the block if it was chosen here, 99 for other chosen text, 0 for none
    for block in range(len(chosen) - 1, -1, -1):
        at, following, below = blocks.element[block], below, 0
        if chosen[block]:
            below = 99
            continue
        button = False
        for _ in range(4):
            if at == 0 or _LEVELS[tree.tag[at]]:
                break
            button |= tree.tag[at] == _BUTTON
            at = tree.parent[at]
        level = _LEVELS[tree.tag[at]]
        if level == 0 or level >= following or not (button or blocks.links[block] * 10 >= blocks.bytes[block] * 9):
            continue
        for _ in range(3):  # up to the part that holds more than the heading
            at = tree.parent[at]
            if blocks.element[block + 1] < tree.end[at]:
                chosen[block] = True
                below = level
            if at == 0 or below or (block > 0 and blocks.element[block - 1] >= at):
                break


def _prose(blocks: Blocks) -> Array:
    """Blocks of some length that are not mostly links."""
    return blocks.seen & (blocks.bytes >= PROSE_BYTES) & (blocks.links * 2 < blocks.bytes)


@cache
def load() -> tuple[Trees, Trees, float]:
    """(first stage, second stage, score from which a block is main text)."""
    with np.load(WEIGHTS) as arrays:
        stages = [Nodes(*(arrays[f"{stage}_{name}"] for name in Nodes._fields)) for stage in ("first", "second")]
        return by_feature(stages[0]), by_feature(stages[1]), float(arrays["threshold"])


def by_feature(nodes: Nodes) -> Trees:
    """Order trees for `run_trees`. Raises ValueError for a tree of more than LEAVES leaves."""
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
    """float32 (rows,): sigmoid of the sum of all trees' leaves; a value <= threshold goes left.

    QuickScorer (Lucchese et al. 2015): instead of walking down each tree, whose branches no processor can foresee, go
    through each feature's thresholds in order and strike out the leaves that every threshold below the value rules
    out; the first of a tree's remaining leaves is the one that the walk would reach.
    """
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
                totals[i] += leaves[tree, _INDEX[np.uint32(lowest * _DE_BRUIJN) >> np.uint32(27)]]
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
    for sign, plain in _PLAIN.items():  # several times faster than one regular expression
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
