"""What the model looks at beyond a block's own surroundings: repetition, sections, landmarks, and the page.

An element's likes are its siblings of the same tag with the same words of class and id: cards of a grid, posts of a
thread, rows of a result list. Of a block's ancestors the one whose likes hold the most text is its item. A block stands
under the headings before it, behind the short blocks that lead its ancestors, and before or behind the page's
landmarks. Linear in elements and blocks.
"""

from __future__ import annotations

from collections import namedtuple
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.html.attributes import NAME_GROUPS, TAGS, TEXT_GROUPS
from pipeline.kernels.html.declared import SCHEMA
from pipeline.kernels.html.features import FAR, FEATURES, SAYS, Elements
from pipeline.kernels.html.tree import Blocks, Tree

LEAST_LIKES = 3  # siblings alike from which an element is an item
MAX_KINDS = 24  # kinds of children that are told apart below one element
_Columns = namedtuple(
    "_Columns",
    "item_likes item_share item_bytes item_links item_blocks item_number item_place item_prices"
    " inner_likes inner_bytes inner_place prices price_near year section_bytes section_links section_blocks"
    " section_prices from_main behind_footer from_footer main_share page_prices page_headings page_items page_short"
    " page_lists page_tables page_pre page_forms page_times page_years page_linked",
)
COLUMNS = _Columns(*range(len(_Columns._fields)))
_UNDER = len(COLUMNS)
_TEXT_GROUPS = len(TEXT_GROUPS)
_ABOVE, _LED = _UNDER + _TEXT_GROUPS, _UNDER + 2 * _TEXT_GROUPS
WHOLE = (*_Columns._fields, *(f"{where}_{name}" for where in ("under", "above", "led") for name in TEXT_GROUPS))
LEAD_BYTES = 60  # longest first block that names what follows in an element
_HEADINGS = np.zeros(256, np.int64)
_HEADINGS[[TAGS[f"h{level}"] for level in range(1, 7)]] = np.arange(1, 7)
_MAIN, _ARTICLE, _FOOTER, _LI, _TABLE, _PRE, _FORM, _TIME, _TD = (
    TAGS[name] for name in ("main", "article", "footer", "li", "table", "pre", "form", "time", "td")
)
# A page's own row, from which its kind is told: means of all block columns by bytes and by block, then what follows.
PAGE_ROW = (
    *(f"bytes_{name}" for name in (*FEATURES, *WHOLE)),
    *(f"blocks_{name}" for name in (*FEATURES, *WHOLE)),
    *(f"root_{name}" for name in NAME_GROUPS),
    *(f"declares_{name}" for name in (*SCHEMA, "og-article", "og-product", "og-website", "og-other")),
)


class _Likes(NamedTuple):
    """Per element: siblings alike (itself included), its place among them; bytes, bytes in links, blocks and prices of
    all of them; and the prices of its own subtree."""

    number: Array
    place: Array
    all_bytes: Array
    all_links: Array
    all_blocks: Array
    all_prices: Array
    prices: Array


def describe_whole(page: Array, tree: Tree, blocks: Blocks, features: Array, elements: Elements) -> Array:
    """float32 (blocks, len(WHOLE)). features, elements: what `describe` gives."""
    count, size = len(blocks.first), len(tree.tag)
    out = np.zeros((count, len(WHOLE)), np.float32)
    if count:
        likes = _Likes._make([np.zeros(size, np.int64) for _ in _Likes._fields])
        prices = np.zeros(count, np.int64)
        _find_prices(page, tree, blocks, prices, out)
        _find_likes(tree, blocks, elements, prices, np.zeros(MAX_KINDS, np.int64), likes)
        _describe_items(tree, blocks, elements, likes, np.zeros((size, 2), np.int32), out)
        _describe_sections(tree, blocks, prices, features, np.zeros(7, np.int64), out)
        led = np.full((size, _TEXT_GROUPS), FAR, np.uint8)
        _describe_leads(tree, blocks, features, np.full(size, -1, np.int32), led, out)
    return out


def page_row(tree: Tree, blocks: Blocks, rows: Array, declares: Array) -> Array:
    """float32 (1, len(PAGE_ROW)). rows: all columns of the blocks."""
    width = rows.shape[1]
    out = np.zeros((1, len(PAGE_ROW)), np.float32)
    _average(blocks.bytes, rows, out[0, :width], out[0, width : 2 * width])
    names = int(tree.names[0]) if len(tree.names) else 0
    for group in range(len(NAME_GROUPS)):
        out[0, 2 * width + group] = names >> group & 1
    out[0, 2 * width + len(NAME_GROUPS) :] = declares
    return out


@kernel(**UNCOUNTED)
def _average(sizes: Array, rows: Array, by_bytes: Array, by_block: Array) -> None:
    total = 0.0
    for block in range(len(rows)):
        weight, row = np.float32(sizes[block]), rows[block]
        total += sizes[block]
        for column in range(len(row)):
            by_bytes[column] += weight * row[column]
            by_block[column] += row[column]
    share, part = np.float32(1 / max(total, 1.0)), np.float32(1 / max(len(rows), 1))
    for column in range(len(by_bytes)):
        by_bytes[column] *= share
        by_block[column] *= part


@inner
def _digit(page: Array, at: int, end: int) -> bool:
    """Whether a digit is at `at`, or behind a blank there."""
    if at < end and page[at] == 32:
        at += 1
    return at < end and 48 <= page[at] <= 57


@inner
def _is_price(page: Array, at: int, start: int, end: int) -> bool:
    """Whether a currency's sign beside a digit is at `at`."""
    byte, width = page[at], 0
    if byte == 36:  # $
        width = 1
    elif byte == 0xC2 and at + 1 < end and (page[at + 1] == 0xA3 or page[at + 1] == 0xA5):  # pound, yen
        width = 2
    elif byte == 0xE2 and at + 2 < end and page[at + 1] == 0x82 and page[at + 2] >= 0xA0:  # euro, rupee and others
        width = 3
    elif byte == 38 and at + 5 < end and (page[at + 1] == 112 or page[at + 1] == 101) and page[at + 5] == 59:
        width = 6 if page[at + 2] == 117 or (page[at + 2] == 111 and page[at + 3] == 117) else 0  # &euro; &pound
    if width == 0:
        return False
    before = at - 1
    if before >= start and page[before] == 32:
        before -= 1
    return _digit(page, at + width, end) or (before >= start and 48 <= page[before] <= 57)


@kernel(**UNCOUNTED)
def _find_prices(page: Array, tree: Tree, blocks: Blocks, prices: Array, out: Array) -> None:
    for block in range(len(blocks.first)):
        year = 0
        for run in range(blocks.first[block], blocks.last[block]):
            start, end = tree.run_start[run], tree.run_end[run]
            digits = 0
            for at in range(start, end):
                byte = page[at]
                if 48 <= byte <= 57:
                    digits += 1
                    year |= digits == 4 and (page[at - 3] == 49 or page[at - 3] == 50) and page[at - 2] in (48, 57)
                    continue
                digits = 0
                if byte == 36 or byte == 38 or byte == 0xC2 or byte == 0xE2:
                    prices[block] += _is_price(page, at, start, end)
        out[block, COLUMNS.prices] = prices[block]
        out[block, COLUMNS.year] = year


@kernel(**UNCOUNTED)
def _find_likes(tree: Tree, blocks: Blocks, elements: Elements, prices: Array, heads: Array, likes: _Likes) -> None:
    """heads: scratch, the first element of each kind below one element."""
    for block in range(len(blocks.element)):
        likes.prices[blocks.element[block]] += prices[block]
    for at in range(len(tree.tag) - 1, 0, -1):
        likes.prices[tree.parent[at]] += likes.prices[at]
    for above in range(len(tree.tag)):
        kinds = 0
        at = above + 1
        while at < tree.end[above]:
            head = -1
            for i in range(kinds):
                if tree.tag[heads[i]] == tree.tag[at] and tree.names[heads[i]] == tree.names[at]:
                    head = heads[i]
                    break
            if head < 0:
                head = at
                if kinds < MAX_KINDS:
                    heads[kinds] = at
                    kinds += 1
            if elements.text[at] > 0:  # without text it is none
                likes.place[at] = likes.number[head]
                likes.number[head] += 1
                likes.all_bytes[head] += elements.text[at]
                likes.all_links[head] += elements.links[at]
                likes.all_blocks[head] += elements.blocks[at]
                likes.all_prices[head] += likes.prices[at]
            # The head's totals are complete only after the last of its kind: it is found again through `place`.
            if head != at:
                likes.place[at] |= head << 20
            at = max(tree.end[at], at + 1)


@kernel(**UNCOUNTED)
def _describe_items(tree: Tree, blocks: Blocks, elements: Elements, likes: _Likes, item: Array, out: Array) -> None:
    """item: scratch zeros (elements, 2): the ancestor or self whose likes hold the most text, and the nearest one."""
    for at in range(1, len(tree.tag)):
        head = likes.place[at] >> 20
        likes.place[at] &= (1 << 20) - 1
        if head > 0:
            likes.number[at] = likes.number[head]
            likes.all_bytes[at] = likes.all_bytes[head]
            likes.all_links[at] = likes.all_links[head]
            likes.all_blocks[at] = likes.all_blocks[head]
            likes.all_prices[at] = likes.all_prices[head]
        above = tree.parent[at]
        item[at, 0], item[at, 1] = item[above, 0], item[above, 1]
        if likes.number[at] >= LEAST_LIKES:
            item[at, 1] = at
            if item[at, 0] == 0 or likes.all_bytes[at] >= likes.all_bytes[item[at, 0]]:
                item[at, 0] = at
    total = max(elements.text[0], 1)
    for block in range(len(blocks.element)):
        row = out[block]
        best, nearest = item[blocks.element[block], 0], item[blocks.element[block], 1]
        if best == 0:
            continue
        size = max(likes.all_bytes[best], 1)
        row[COLUMNS.item_likes] = np.log1p(likes.number[best])
        row[COLUMNS.item_share] = size / total
        row[COLUMNS.item_bytes] = np.log1p(size / likes.number[best])
        row[COLUMNS.item_links] = likes.all_links[best] / size
        row[COLUMNS.item_blocks] = np.log1p(likes.all_blocks[best] / likes.number[best])
        row[COLUMNS.item_number] = likes.place[best]
        row[COLUMNS.item_place] = blocks.bytes[block] / max(elements.text[best], 1)
        row[COLUMNS.item_prices] = likes.all_prices[best] / likes.number[best]
        row[COLUMNS.inner_likes] = np.log1p(likes.number[nearest])
        row[COLUMNS.inner_bytes] = np.log1p(likes.all_bytes[nearest] / likes.number[nearest])
        row[COLUMNS.inner_place] = likes.place[nearest] / likes.number[nearest]


@kernel(**UNCOUNTED)
def _describe_sections(tree: Tree, blocks: Blocks, prices: Array, features: Array, said: Array, out: Array) -> None:
    """said: scratch zeros (7,), groups of words of the headings above, by level; 0 has none."""
    count = len(blocks.element)
    main = footer = -1
    for at in range(len(tree.tag)):
        if main < 0 and (tree.tag[at] == _MAIN or tree.tag[at] == _ARTICLE):
            main = at
        if tree.tag[at] == _FOOTER:
            footer = at
    first_main = first_footer = count
    inside = total = 0
    for block in range(count - 1, -1, -1):
        at = blocks.element[block]
        if 0 <= main <= at:
            first_main = block
            inside += blocks.bytes[block] if at < tree.end[main] else 0
        if 0 <= footer <= at:
            first_footer = block
        total += blocks.bytes[block]
    _describe_page(tree, blocks, prices, out)
    start = 0
    for block in range(1, count + 1):
        if block < count and _HEADINGS[tree.tag[blocks.element[block]]] == 0:
            continue
        size = links = worth = 0
        for i in range(start, block):
            size += blocks.bytes[i]
            links += blocks.links[i]
            worth += prices[i]
        level = _HEADINGS[tree.tag[blocks.element[start]]]
        if level > 0:
            said[level:] = 0
            for group in range(_TEXT_GROUPS):
                said[level] |= np.int64(features[start, SAYS + group]) << group
        above = 0
        for higher in range(level):
            above |= said[higher]
        for i in range(start, block):
            row = out[i]
            row[COLUMNS.section_bytes] = np.log1p(size)
            row[COLUMNS.section_links] = links / max(size, 1)
            row[COLUMNS.section_blocks] = np.log1p(block - start)
            row[COLUMNS.section_prices] = worth
            for group in range(_TEXT_GROUPS):
                row[_UNDER + group] = (said[level] >> group) & 1
                row[_ABOVE + group] = (above >> group) & 1
        start = block
    for block in range(count):
        row = out[block]
        row[COLUMNS.from_main] = block - first_main if main >= 0 else -1000
        row[COLUMNS.behind_footer] = footer >= 0 and block >= first_footer
        row[COLUMNS.from_footer] = block - first_footer if footer >= 0 else -1000
        row[COLUMNS.main_share] = inside / max(total, 1)
        near = 0
        for other in range(max(block - 3, 0), min(block + 4, count)):
            near += prices[other] > 0
        row[COLUMNS.price_near] = near
        for column in range(COLUMNS.page_prices, COLUMNS.page_linked + 1):
            row[column] = out[0, column]


@kernel(**UNCOUNTED)
def _describe_leads(tree: Tree, blocks: Blocks, features: Array, first: Array, led: Array, out: Array) -> None:
    """Steps up to the nearest element whose first block is short and says a group of words: a heading in all but name.

    first: scratch -1 (elements,), an element's first block; led: scratch FAR (elements, groups of words).
    """
    for block in range(len(blocks.element)):
        at = blocks.element[block]
        while first[at] < 0:
            first[at] = block
            at = tree.parent[at]
    for at in range(1, len(tree.tag)):
        lead = first[at]
        if lead < 0:
            continue
        short = blocks.bytes[lead] <= LEAD_BYTES
        for group in range(_TEXT_GROUPS):
            says = short and features[lead, SAYS + group] > 0
            led[at, group] = 0 if says else min(led[tree.parent[at], group] + 1, FAR)
    for block in range(len(blocks.element)):
        for group in range(_TEXT_GROUPS):
            out[block, _LED + group] = led[blocks.element[block], group]


@kernel(**UNCOUNTED)
def _describe_page(tree: Tree, blocks: Blocks, prices: Array, out: Array) -> None:
    """The columns that are the same for all blocks, into the first row."""
    priced = headings = short = lists = pre = total = years = linked = 0
    items = 0.0
    for block in range(len(blocks.element)):
        tag = tree.tag[blocks.element[block]]
        size = blocks.bytes[block]
        total += size
        priced += prices[block] > 0
        headings += _HEADINGS[tag] > 0
        short += size < 40
        lists += size if tag == _LI else 0
        pre += size if tag == _PRE else 0
        years += out[block, COLUMNS.year] > 0
        linked += blocks.links[block] * 2 > size
        items = max(items, out[block, COLUMNS.item_share])
    tables = forms = times = 0
    for tag in tree.tag:
        tables += tag == _TD
        forms += tag == _FORM
        times += tag == _TIME
    count, row = len(blocks.element), out[0]
    row[COLUMNS.page_prices] = np.log1p(priced)
    row[COLUMNS.page_headings] = headings / count
    row[COLUMNS.page_items] = items
    row[COLUMNS.page_short] = short / count
    row[COLUMNS.page_lists] = lists / max(total, 1)
    row[COLUMNS.page_tables] = np.log1p(tables)
    row[COLUMNS.page_pre] = pre / max(total, 1)
    row[COLUMNS.page_forms] = forms
    row[COLUMNS.page_times] = np.log1p(times)
    row[COLUMNS.page_years] = years / count
    row[COLUMNS.page_linked] = linked / count
