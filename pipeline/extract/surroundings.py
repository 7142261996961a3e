"""What stands around a block: its ancestors, the text beside and above it, its like, and the page.

Linear in elements and blocks, but for one sort of the blocks by the kind of their place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.extract.attributes import ROLE_BIT
from pipeline.extract.blocks import Blocks
from pipeline.extract.tree import Tree
from pipeline.extract.vocabulary import NAME_GROUPS, TAGS

Array = np.ndarray[Any, Any]
FAR = 64  # stands for "no such ancestor"
LEVELS = 5  # ancestors that add text, looked at from the block outwards
AROUND = (-3, -2, -1, 1, 2, 3)  # neighbouring blocks looked at
LONG = 80  # bytes from which a block with few links counts as a paragraph
NAMED = len(NAME_GROUPS)
PART_TAGS = (
    "nav", "header", "footer", "aside", "article", "main", "section", "form", "table", "ul", "ol", "dl", "figure",
    "blockquote", "address", "details", "script-template", "noscript", "button", "label", "p", "li", "td", "pre",
    "h1", "h2", "h3", "h4", "a", "span", "time", "cite",
)  # fmt: skip
_PART_OF_TAG = np.full(256, -1, np.int32)
for _number, _name in enumerate(PART_TAGS):
    _PART_OF_TAG[TAGS[_name]] = len(NAME_GROUPS) + 1 + _number
PARTS = len(NAME_GROUPS) + 1 + len(PART_TAGS)
_HEADINGS = np.zeros(256, np.int32)
for _level in range(1, 7):
    _HEADINGS[TAGS[f"h{_level}"]] = _level
_P, _MAIN, _ARTICLE, _H1, _SCRIPT_TEMPLATE = (TAGS[n] for n in ("p", "main", "article", "h1", "script-template"))


@njit(cache=True)
def find_ancestors(tree: Tree, first: Array, out: Array) -> None:
    """Steps up to the nearest element of each group of names and of each part tag, FAR where there is none."""
    groups = NAMED
    distances = np.full((len(tree.tag), out.shape[1]), FAR, np.uint8)
    for element in range(len(tree.tag)):
        row = distances[element]
        if element > 0:
            above = distances[tree.parent[element]]
            for i in range(len(row)):
                row[i] = min(above[i] + 1, FAR)
        for group in range(groups):
            if (tree.names[element] >> np.uint32(group)) & np.uint32(1):
                row[group] = 0
        if tree.names[element] & ROLE_BIT:
            row[groups] = 0
        if _PART_OF_TAG[tree.tag[element]] >= 0:
            row[_PART_OF_TAG[tree.tag[element]]] = 0
    for block in range(len(first)):
        out[block] = distances[tree.run_element[first[block]]]


@njit(cache=True)
def _best_container(parent: Array, blocks: Blocks, commas: Array, total: Array, linked: Array) -> int:
    """Element with the best score in Readability's manner: prose counts for parents, less for their parents."""
    score = np.zeros(len(parent), np.float32)
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
        score[at] *= 1 - linked[at] / max(total[at], 1)
        if score[at] > score[best]:
            best = at
    return best


@njit(cache=True)
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


@njit(cache=True)
def describe_surroundings(tree: Tree, blocks: Blocks, out: Array, column: int) -> None:
    count = len(blocks.element)
    total, linked = np.zeros(len(tree.tag), np.int64), np.zeros(len(tree.tag), np.int64)
    parts, longs = np.zeros(len(tree.tag), np.int64), np.zeros(len(tree.tag), np.int64)
    is_long = np.zeros(count, np.bool_)
    paths = np.zeros(len(tree.tag), np.uint64)
    depth = np.zeros(len(tree.tag), np.int32)
    siblings = np.zeros(len(tree.tag), np.int32)
    for at in range(1, len(tree.tag)):
        paths[at] = (
            paths[tree.parent[at]] ^ np.uint64(tree.tag[at]) ^ (np.uint64(tree.names[at]) << np.uint64(8))
        ) * np.uint64(1099511628211)
        depth[at] = depth[tree.parent[at]] + 1
        siblings[tree.parent[at]] += 1
    in_p = 0
    for block in range(count):
        is_long[block] = blocks.bytes[block] >= LONG and blocks.links[block] * 3 < blocks.bytes[block]
        at = blocks.element[block]
        total[at] += blocks.bytes[block]
        linked[at] += blocks.links[block]
        parts[at] += 1
        longs[at] += is_long[block]
        in_p += blocks.bytes[block] if tree.tag[at] == _P else 0
    for at in range(len(tree.tag) - 1, 0, -1):
        total[tree.parent[at]] += total[at]
        linked[tree.parent[at]] += linked[at]
        parts[tree.parent[at]] += parts[at]
        longs[tree.parent[at]] += longs[at]
    page_bytes = max(total[0], 1)
    top = _best_container(tree.parent, blocks, out[:, 8], total, linked)
    start, stop = _best_span(blocks.bytes, blocks.links)
    span_bytes = 0
    for block in range(start, stop):
        span_bytes += blocks.bytes[block]
    mains = articles = templates = h1s = 0
    for at in range(len(tree.tag)):
        mains += tree.tag[at] == _MAIN
        articles += tree.tag[at] == _ARTICLE
        templates += tree.tag[at] == _SCRIPT_TEMPLATE
    first_h1 = best_title = -1
    for block in range(count):
        if tree.tag[blocks.element[block]] == _H1:
            h1s += 1
            first_h1 = block if first_h1 < 0 else first_h1
        if out[block, 18] >= 0.5 and (best_title < 0 or out[block, 18] > out[best_title, 18]):
            best_title = block

    # Blocks in the same kind of place.
    hashes = paths[blocks.element]
    order = np.argsort(hashes, kind="mergesort")
    like = np.zeros((count, 3), np.float64)
    begin = 0
    for i in range(1, count + 1):
        if i == count or hashes[order[i]] != hashes[order[begin]]:
            bytes_like = links_like = 0
            for j in range(begin, i):
                bytes_like += blocks.bytes[order[j]]
                links_like += blocks.links[order[j]]
            for j in range(begin, i):
                like[order[j], 0], like[order[j], 1], like[order[j], 2] = i - begin, bytes_like, links_like
            begin = i

    before = 0
    heading = heading_at = long_before = 0
    for block in range(count):
        row = out[block]
        at = blocks.element[block]
        i = column
        here = at
        size = blocks.bytes[block]
        for _ in range(LEVELS):
            while here > 0 and total[here] <= size:
                here = tree.parent[here]
            size = total[here]
            row[i] = np.log1p(size)
            row[i + 1] = linked[here] / max(size, 1)
            row[i + 2] = np.log1p(parts[here])
            row[i + 3] = longs[here] / max(parts[here], 1)
            row[i + 4] = size / page_bytes
            i += 5
        for step in AROUND:
            other = block + step
            if 0 <= other < count:
                row[i] = np.log1p(blocks.bytes[other])
                row[i + 1] = blocks.links[other] / max(blocks.bytes[other], 1)
                row[i + 2] = tree.tag[blocks.element[other]]
            else:
                row[i] = row[i + 1] = row[i + 2] = -1
            i += 3
        if _HEADINGS[tree.tag[at]] > 0:
            heading, heading_at = _HEADINGS[tree.tag[at]], block
        row[i] = block
        row[i + 1] = block / count
        row[i + 2] = before / page_bytes
        row[i + 3] = block - heading_at
        row[i + 4] = heading
        row[i + 5] = block - first_h1 if first_h1 >= 0 else -1000
        row[i + 6] = block - best_title if best_title >= 0 else -1000
        row[i + 7] = long_before
        row[i + 9] = depth[at]
        row[i + 10] = siblings[tree.parent[at]]
        row[i + 11] = top <= at < tree.end[top]
        common = at
        while not common <= top < tree.end[common]:
            common = tree.parent[common]
        row[i + 12] = depth[at] - depth[common]
        row[i + 13] = depth[top] - depth[common]
        row[i + 14] = linked[top] / max(total[top], 1)
        row[i + 15] = start <= block < stop
        row[i + 16] = block - start if block < start else (block - stop + 1 if block >= stop else 0)
        row[i + 17] = np.log1p(like[block, 0])
        row[i + 18] = np.log1p(like[block, 1])
        row[i + 19] = like[block, 2] / max(like[block, 1], 1)
        row[i + 20] = like[block, 1] / page_bytes
        i += 21
        row[i] = np.log1p(page_bytes)
        row[i + 1] = linked[0] / page_bytes
        row[i + 2] = np.log1p(count)
        row[i + 3] = longs[0]
        row[i + 4] = in_p / page_bytes
        row[i + 5] = mains
        row[i + 6] = articles
        row[i + 7] = h1s
        row[i + 8] = total[top] / page_bytes
        row[i + 9] = templates
        row[i + 10] = span_bytes / page_bytes
        before += blocks.bytes[block]
        long_before = 0 if is_long[block] else long_before + 1
    long_after = 0
    for block in range(count - 1, -1, -1):
        out[block, column + 5 * LEVELS + 3 * len(AROUND) + 8] = long_after
        long_after = 0 if is_long[block] else long_after + 1
