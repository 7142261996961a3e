"""What the model looks at in each block of a page: a row of numbers.

A block's features are its own text (length, links, punctuation, words that furniture uses), its ancestors (how far up
the nearest <nav>, or a class that says `sidebar`, is), the text beside and above it in tree and page, how many blocks
have the same path in the tree, and the page as a whole. Linear in text, elements and blocks, but for one sort of the
blocks by path. No feature knows a host, a language or the order of pages.
"""

from __future__ import annotations

from collections import namedtuple
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import FNV32, FNV64, PRIME, find_slot, fnv32, lower
from pipeline.kernels.html.attributes import NAME_GROUPS, ROLE_BIT, TAGS, TEXT_GROUPS, word_table
from pipeline.kernels.html.declared import TEXTS, is_letter, pair
from pipeline.kernels.html.tree import BREAK, EMPHASIS, Blocks, Tree

FAR = 64  # stands for "no such ancestor"
LEVELS = 5  # ancestors that add text, looked at from the block outwards
AROUND = (-3, -2, -1, 1, 2, 3)  # neighbouring blocks looked at
LONG = 80  # bytes from which a block with few links counts as a paragraph
MAX_TITLE_WORDS = 40
PART_TAGS = (
    "nav", "header", "footer", "aside", "article", "main", "section", "form", "table", "ul", "ol", "dl", "figure",
    "blockquote", "address", "details", "script-template", "noscript", "button", "label", "p", "li", "td", "pre",
    "h1", "h2", "h3", "h4", "a", "span", "time", "cite",
)  # fmt: skip
_Own = namedtuple(
    "_Own",
    "tag bytes words link_share word_bytes punctuation sentence_ends ends_sentence commas digits capitals short_words"
    " marks breaks runs emphasis long_words title_share title_cover copies first_capital copy description body post"
    " review name",
)
_Place = namedtuple(
    "_Place",
    "number number_share bytes_before since_heading heading from_h1 from_title long_before long_after depth siblings"
    " in_top up_to_top down_to_top top_links in_span from_span like_count like_bytes like_links like_share",
)
_Page = namedtuple("_Page", "bytes links blocks long p main articles h1 top_share templates span_share")
_NAMED, _TEXT_GROUPS = len(NAME_GROUPS), len(TEXT_GROUPS)
_PARTS = _NAMED + 1 + len(PART_TAGS)
# Where each kind of column begins; a name's value is its column.
OWN = _Own(*range(len(_Own._fields)))
SAYS = len(OWN)
_IN = SAYS + _TEXT_GROUPS
_LEVEL = _IN + _PARTS
_NEIGHBOUR = _LEVEL + 5 * LEVELS
PLACE = _Place(*range(_NEIGHBOUR + 3 * len(AROUND), _NEIGHBOUR + 3 * len(AROUND) + len(_Place._fields)))
PAGE = _Page(*range(PLACE[-1] + 1, PLACE[-1] + 1 + len(_Page._fields)))
FEATURES = (
    *OWN._fields,
    *(f"says_{name}" for name in TEXT_GROUPS),
    *(f"in_{name}" for name in (*NAME_GROUPS, "role-main", *(f"<{tag}>" for tag in PART_TAGS))),
    *(f"{what}_{level}" for level in range(1, LEVELS + 1) for what in ("bytes", "links", "blocks", "long", "share")),
    *(f"{what}_{step:+d}" for step in AROUND for what in ("bytes", "links", "tag")),
    *PLACE._fields,
    *(f"page_{name}" for name in PAGE._fields),
)

_PART_OF_TAG = np.full(256, -1, np.int32)
_PART_OF_TAG[[TAGS[name] for name in PART_TAGS]] = np.arange(_NAMED + 1, _PARTS)
_HEADINGS = np.zeros(256, np.int32)
_HEADINGS[[TAGS[f"h{level}"] for level in range(1, 7)]] = np.arange(1, 7)
_P, _MAIN, _ARTICLE, _H1, _SCRIPT_TEMPLATE = (TAGS[n] for n in ("p", "main", "article", "h1", "script-template"))


class Elements(NamedTuple):
    """Per element: hash of the tags and names from the root, depth, children; of its subtree bytes of text, those in
    links, blocks, and long blocks."""

    path: Array
    depth: Array
    children: Array
    text: Array
    links: Array
    blocks: Array
    long: Array


def describe(page: Array, tree: Tree, blocks: Blocks, pairs: Array, texts: Array) -> tuple[Array, Elements]:
    """(float32 (blocks, len(FEATURES)), the elements' own). pairs, texts: of what the page declares."""
    count, size = len(blocks.first), len(tree.tag)
    out = np.zeros((count, len(FEATURES)), np.float32)
    kinds = (np.uint64, np.int32, np.int32, np.int64, np.int64, np.int64, np.int64)
    elements, is_long = Elements._make([np.zeros(size, kind) for kind in kinds]), np.zeros(count, np.bool_)
    if count == 0:
        return out, elements
    title = np.zeros(MAX_TITLE_WORDS, np.uint32)
    title = title[: _title_words(page, tree.title[0], tree.title[1], title)]
    hashes, same = np.zeros(count, np.uint64), np.zeros((count, 3), np.float64)
    scratch = np.zeros(len(title), np.bool_), np.zeros(len(TEXTS), np.int64)
    _describe_text(page, tree, blocks, *word_table(text=True)[:2], title, pairs, texts, *scratch, hashes, out)
    order = np.argsort(hashes, kind="stable")
    _sum_equal(hashes, order, blocks, same)
    out[:, OWN.copies] = same[:, 0]
    out[order, OWN.copy] = np.arange(count) - np.searchsorted(hashes[order], hashes[order])
    _find_ancestors(tree, blocks.first, np.full((size, _PARTS), FAR, np.uint8), out[:, _IN : _IN + _PARTS])
    _measure_elements(tree, blocks, elements, is_long)
    paths = elements.path[blocks.element]
    _sum_equal(paths, np.argsort(paths, kind="stable"), blocks, same)
    _describe_surroundings(tree, blocks, elements, is_long, same, np.zeros(size, np.float32), out)
    return out, elements


@kernel(**UNCOUNTED)
def _title_words(page: Array, start: int, end: int, out: Array) -> int:
    """Write the hashes of the title's words. Returns their number."""
    count = 0
    value = FNV32
    length = 0
    for at in range(start, end + 1):
        byte = page[at] if at < end else np.uint8(32)
        if is_letter(byte):
            value = fnv32(value, lower(byte))
            length += 1
        else:
            if length > 1 and count < len(out):
                out[count] = value
                count += 1
            value = FNV32
            length = 0
    return count


@inner
def _wide_sign(page: Array, at: int, end: int) -> int:
    """The sign that page[at:end] begins with: 1 an ideographic comma, 2 an ideographic full stop, 3 a full-width comma,
    4 another full-width sign, 0 none of these."""
    if at + 2 >= end:
        return 0
    first, second, third = page[at], page[at + 1], page[at + 2]
    if first == 0xE3 and second == 0x80 and (third == 0x81 or third == 0x82):
        return int(third) - 0x80
    if first == 0xEF and second == 0xBC:
        return 3 if third == 0x8C else 4
    return 0


@inner
def _title_word(value: np.uint32, title: Array, seen: Array) -> int:
    """Whether a word is one of the title's (1 or 0), which is entered in `seen`."""
    for i in range(len(title)):
        if title[i] == value:
            seen[i] = True
            return 1
    return 0


@kernel(**UNCOUNTED)
def _describe_text(
    page: Array, tree: Tree, blocks: Blocks, keys: Array, groups: Array, title: Array, pairs: Array, texts: Array,
    seen: Array, shared: Array, hashes: Array, out: Array,
) -> None:  # fmt: skip
    """Write the columns OWN (without `copies` and `copy`) and SAYS, and a hash of each block's letters.

    pairs, texts: of what the page declares; seen, shared: scratch per word of the title and per kind of text.
    """
    for block in range(len(blocks.first)):
        words = short = long_words = punctuation = ends = commas = digits = capitals = marks = breaks = emphasis = 0
        letters = in_title = 0
        text_hash = FNV64
        seen[:] = False
        shared[:] = 0
        value = FNV32
        before = np.uint32(0)
        length = 0
        ends_sentence = first_capital = began = False
        mask = np.uint32(0)
        for run in range(blocks.first[block], blocks.last[block]):
            run_end = tree.run_end[run]
            if tree.run_flags[run] & BREAK:
                breaks += 1
            for at in range(tree.run_start[run], run_end + 1):
                # A run's end parts words only at the block's end: inline tags occur within words too.
                byte = int(page[at]) if at < run_end else 32
                if at == run_end and run + 1 < blocks.last[block] and not tree.run_flags[run + 1] & BREAK:
                    continue
                if is_letter(byte):
                    if not began:
                        began, first_capital = True, 65 <= byte <= 90
                    value = fnv32(value, lower(byte))
                    length += 1
                    letters += 1
                    digits += 48 <= byte <= 57
                    capitals += 65 <= byte <= 90
                    text_hash = (text_hash ^ np.uint64(byte)) * PRIME
                    ends_sentence = False
                    if byte == 0xE3 or byte == 0xEF:
                        sign = _wide_sign(page, at, run_end)
                        commas += sign == 1 or sign == 3
                        ends += sign == 2
                        punctuation += sign > 0
                        ends_sentence = sign == 2
                    emphasis += (tree.run_flags[run] & EMPHASIS) != 0
                    continue
                if length > 0:
                    words += 1
                    short += length <= 3
                    long_words += length > 12
                    slot = find_slot(keys, value)
                    if slot >= 0:
                        mask |= groups[slot]
                    in_title += _title_word(value, title, seen)
                    slot = find_slot(pairs, pair(before, value)) if before != 0 else -1
                    if slot >= 0:
                        for kind in range(len(shared)):
                            shared[kind] += (texts[slot] >> kind) & 1
                    before, value = value, FNV32
                    length = 0
                if byte == 46 or byte == 33 or byte == 63:  # . ! ?
                    ends += 1
                    punctuation += 1
                    ends_sentence = True
                elif byte == 44 or byte == 59 or byte == 58:  # , ; :
                    commas += byte == 44
                    punctuation += 1
                    ends_sentence = byte == 58
                elif byte == 124 or byte == 62 or byte == 47 or byte == 43 or byte == 35 or byte == 64:
                    marks += 1  # | > / + # @
        size = max(blocks.bytes[block], 1)
        row = out[block]
        row[OWN.tag] = tree.tag[blocks.element[block]]
        row[OWN.bytes] = np.log1p(blocks.bytes[block])
        row[OWN.words] = np.log1p(words)
        row[OWN.link_share] = blocks.links[block] / size
        row[OWN.word_bytes] = letters / max(words, 1)
        row[OWN.punctuation] = punctuation / size
        row[OWN.sentence_ends] = ends
        row[OWN.ends_sentence] = ends_sentence
        row[OWN.commas] = commas
        row[OWN.digits] = digits / size
        row[OWN.capitals] = capitals / size
        row[OWN.short_words] = short / max(words, 1)
        row[OWN.marks] = marks / size
        row[OWN.breaks] = breaks
        row[OWN.runs] = blocks.last[block] - blocks.first[block]
        row[OWN.emphasis] = emphasis / max(letters, 1)
        row[OWN.long_words] = long_words / max(words, 1)
        row[OWN.title_share] = in_title / max(words, 1)
        row[OWN.title_cover] = np.sum(seen) / max(len(title), 1)
        row[OWN.first_capital] = first_capital
        for kind in range(len(shared)):
            row[OWN.description + kind] = shared[kind] / max(words - 1, 1)
        for group in range(_TEXT_GROUPS):
            row[SAYS + group] = (mask >> np.uint32(group)) & np.uint32(1)
        hashes[block] = text_hash


@kernel(**UNCOUNTED)
def _sum_equal(hashes: Array, order: Array, blocks: Blocks, out: Array) -> None:
    """float64 (blocks, 3): number, bytes and bytes in links of all blocks with a block's hash. order: by hash."""
    start = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or hashes[order[i]] != hashes[order[start]]:
            size = links = 0
            for j in range(start, i):
                size += blocks.bytes[order[j]]
                links += blocks.links[order[j]]
            for j in range(start, i):
                out[order[j], 0], out[order[j], 1], out[order[j], 2] = i - start, size, links
            start = i


@kernel(**UNCOUNTED)
def _find_ancestors(tree: Tree, first: Array, distances: Array, out: Array) -> None:
    """Steps up to the nearest element of each group of names and of each part tag, FAR where there is none."""
    for element in range(len(tree.tag)):
        row = distances[element]
        if element > 0:
            above = distances[tree.parent[element]]
            for i in range(len(row)):
                row[i] = min(above[i] + 1, FAR)
        for group in range(_NAMED):
            if (tree.names[element] >> np.uint32(group)) & np.uint32(1):
                row[group] = 0
        if tree.names[element] & ROLE_BIT:
            row[_NAMED] = 0
        if _PART_OF_TAG[tree.tag[element]] >= 0:
            row[_PART_OF_TAG[tree.tag[element]]] = 0
    for block in range(len(first)):
        nearest = distances[tree.run_element[first[block]]]
        for i in range(len(nearest)):
            out[block, i] = nearest[i]


@kernel(**UNCOUNTED)
def _measure_elements(tree: Tree, blocks: Blocks, elements: Elements, is_long: Array) -> None:
    for at in range(1, len(tree.tag)):
        above = tree.parent[at]
        kind = np.uint64(tree.tag[at]) ^ (np.uint64(tree.names[at]) << np.uint64(8))
        elements.path[at] = (elements.path[above] ^ kind) * PRIME
        elements.depth[at] = elements.depth[above] + 1
        elements.children[above] += 1
    for block in range(len(blocks.element)):
        is_long[block] = blocks.bytes[block] >= LONG and blocks.links[block] * 3 < blocks.bytes[block]
        at = blocks.element[block]
        elements.text[at] += blocks.bytes[block]
        elements.links[at] += blocks.links[block]
        elements.blocks[at] += 1
        elements.long[at] += is_long[block]
    for at in range(len(tree.tag) - 1, 0, -1):
        above = tree.parent[at]
        elements.text[above] += elements.text[at]
        elements.links[above] += elements.links[at]
        elements.blocks[above] += elements.blocks[at]
        elements.long[above] += elements.long[at]


@inner
def _best_container(parent: Array, blocks: Blocks, commas: Array, elements: Elements, score: Array) -> int:
    """Element with the best score in Readability's manner: prose counts for parents, less for their parents."""
    for block in range(len(blocks.element)):
        if blocks.bytes[block] < 25 or blocks.links[block] * 2 > blocks.bytes[block]:
            continue
        worth = np.float32(1 + commas[block] + min(blocks.bytes[block] / 100, 3))
        at = blocks.element[block]
        for level in range(5):
            score[at] += worth if level <= 1 else worth / (2 if level == 2 else 3 * (level - 1))
            if at == 0:
                break
            at = parent[at]
    best = 0
    for at in range(len(score)):
        score[at] *= 1 - elements.links[at] / max(elements.text[at], 1)
        if score[at] > score[best]:
            best = at
    return best


@inner
def _best_span(text: Array, links: Array) -> tuple[int, int]:
    """Blocks [start, stop) with the largest sum of plain text less a charge for each block (maximum subarray)."""
    best = current = 0.0
    start = stop = begin = 0
    for block in range(len(text)):
        if current <= 0:
            current, begin = 0.0, block
        current += text[block] - 2.0 * links[block] - 60.0
        if current > best:
            best, start, stop = current, begin, block + 1
    return start, stop


@inner
def _describe_levels(parent: Array, element: int, size: int, elements: Elements, row: Array) -> None:
    """The nearest ancestors that hold more text than what is below them."""
    i = _LEVEL
    for _ in range(LEVELS):
        while element > 0 and elements.text[element] <= size:
            element = parent[element]
        size = elements.text[element]
        row[i] = np.log1p(size)
        row[i + 1] = elements.links[element] / max(size, 1)
        row[i + 2] = np.log1p(elements.blocks[element])
        row[i + 3] = elements.long[element] / max(elements.blocks[element], 1)
        row[i + 4] = size / max(elements.text[0], 1)
        i += 5


@inner
def _describe_neighbours(tag: Array, blocks: Blocks, block: int, row: Array) -> None:
    i = _NEIGHBOUR
    for step in AROUND:
        other = block + step
        if 0 <= other < len(blocks.element):
            row[i] = np.log1p(blocks.bytes[other])
            row[i + 1] = blocks.links[other] / max(blocks.bytes[other], 1)
            row[i + 2] = tag[blocks.element[other]]
        else:
            row[i] = row[i + 1] = row[i + 2] = -1
        i += 3


@inner
def _describe_page(tree: Tree, blocks: Blocks, elements: Elements, row: Array) -> None:
    """The columns PAGE but those of `top` and the span."""
    in_p = mains = articles = templates = h1s = 0
    for block in range(len(blocks.element)):
        tag = tree.tag[blocks.element[block]]
        in_p += blocks.bytes[block] if tag == _P else 0
        h1s += tag == _H1
    for tag in tree.tag:
        mains += tag == _MAIN
        articles += tag == _ARTICLE
        templates += tag == _SCRIPT_TEMPLATE
    size = max(elements.text[0], 1)
    row[PAGE.bytes] = np.log1p(size)
    row[PAGE.links] = elements.links[0] / size
    row[PAGE.blocks] = np.log1p(len(blocks.element))
    row[PAGE.long] = elements.long[0]
    row[PAGE.p] = in_p / size
    row[PAGE.main], row[PAGE.articles], row[PAGE.h1], row[PAGE.templates] = mains, articles, h1s, templates


@inner
def _describe_top(tree: Tree, at: int, top: int, elements: Elements, row: Array) -> None:
    """A block's way to the best container, element `top`."""
    common = at
    while not common <= top < tree.end[common]:
        common = tree.parent[common]
    row[PLACE.in_top] = top <= at < tree.end[top]
    row[PLACE.up_to_top] = elements.depth[at] - elements.depth[common]
    row[PLACE.down_to_top] = elements.depth[top] - elements.depth[common]
    row[PLACE.top_links] = elements.links[top] / max(elements.text[top], 1)


@kernel(**UNCOUNTED)
def _describe_surroundings(
    tree: Tree, blocks: Blocks, elements: Elements, is_long: Array, like: Array, scratch: Array, out: Array
) -> None:
    """Write the columns from _LEVEL on. like: `_sum_equal` by path; scratch: float32 zeros (elements,)."""
    count, page_bytes = len(blocks.element), max(elements.text[0], 1)
    top = _best_container(tree.parent, blocks, out[:, OWN.commas], elements, scratch)
    start, stop = _best_span(blocks.bytes, blocks.links)
    _describe_page(tree, blocks, elements, out[0])
    out[0, PAGE.top_share] = elements.text[top] / page_bytes
    out[0, PAGE.span_share] = np.sum(blocks.bytes[start:stop]) / page_bytes
    first_h1 = best_title = -1
    for block in range(count):
        if first_h1 < 0 and tree.tag[blocks.element[block]] == _H1:
            first_h1 = block
        cover = out[block, OWN.title_cover]
        if cover >= 0.5 and (best_title < 0 or cover > out[best_title, OWN.title_cover]):
            best_title = block
    before = heading = heading_at = long_before = 0
    for block in range(count):
        row, at = out[block], blocks.element[block]
        _describe_levels(tree.parent, at, blocks.bytes[block], elements, row)
        _describe_neighbours(tree.tag, blocks, block, row)
        _describe_top(tree, at, top, elements, row)
        if _HEADINGS[tree.tag[at]] > 0:
            heading, heading_at = _HEADINGS[tree.tag[at]], block
        row[PLACE.number] = block
        row[PLACE.number_share] = block / count
        row[PLACE.bytes_before] = before / page_bytes
        row[PLACE.since_heading] = block - heading_at
        row[PLACE.heading] = heading
        row[PLACE.from_h1] = block - first_h1 if first_h1 >= 0 else -1000
        row[PLACE.from_title] = block - best_title if best_title >= 0 else -1000
        row[PLACE.long_before] = long_before
        row[PLACE.depth] = elements.depth[at]
        row[PLACE.siblings] = elements.children[tree.parent[at]]
        row[PLACE.in_span] = start <= block < stop
        row[PLACE.from_span] = block - start if block < start else (block - stop + 1 if block >= stop else 0)
        row[PLACE.like_count] = np.log1p(like[block, 0])
        row[PLACE.like_bytes] = np.log1p(like[block, 1])
        row[PLACE.like_links] = like[block, 2] / max(like[block, 1], 1)
        row[PLACE.like_share] = like[block, 1] / page_bytes
        for i in range(PAGE.bytes, PAGE.span_share + 1):
            row[i] = out[0, i]
        before += blocks.bytes[block]
        long_before = 0 if is_long[block] else long_before + 1
    long_after = 0
    for block in range(count - 1, -1, -1):
        out[block, PLACE.long_after] = long_after
        long_after = 0 if is_long[block] else long_after + 1
