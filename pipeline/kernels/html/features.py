"""What the model looks at in each block of a page: a row of numbers.

A block's features are its own text (length,
links, punctuation, words that furniture uses), its ancestors (how far up the nearest <nav>, or a class that says
`sidebar`, lies), the text around it in the tree and in the page, how often its place in the tree repeats, and the
page as a whole. One pass over text and tree in numba; no feature knows a host, a language or the order of pages.

What stands around a block: its ancestors, the text beside and above it, its like, and the page.

Linear in elements and blocks, but for one sort of the blocks by the kind of their place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compiled import kernel
from pipeline.kernels.html.attributes import ROLE_BIT, find_slot
from pipeline.kernels.html.blocks import Blocks
from pipeline.kernels.html.tree import BREAK, EMPHASIS, Tree
from pipeline.kernels.html.vocabulary import NAME_GROUPS, TAGS, TEXT_GROUPS, word_table

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


@kernel()
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


@kernel()
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


@kernel()
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


@kernel()
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


MAX_TITLE_WORDS = 40

OWN = ("tag", "bytes", "words", "link_share", "word_bytes", "punctuation", "sentence_ends", "ends_sentence", "commas",
       "digits", "capitals", "short_words", "marks", "breaks", "runs", "emphasis", "long_words", "title_share",
       "title_cover", "copies", "first_capital")  # fmt: skip
PAGE = ("page_bytes", "page_links", "page_blocks", "page_long", "page_p", "page_main", "page_articles", "page_h1",
        "page_top_share", "page_templates", "page_span_share")  # fmt: skip
PLACE = ("index", "index_share", "bytes_before", "since_heading", "heading", "from_h1", "from_title", "long_before",
         "long_after", "depth", "siblings", "in_top", "up_to_top", "down_to_top", "top_links", "in_span", "from_span",
         "like_count", "like_bytes", "like_links", "like_share")  # fmt: skip
FEATURES = (
    *OWN,
    *(f"says_{name}" for name in TEXT_GROUPS),
    *(f"in_{name}" for name in (*NAME_GROUPS, "role-main", *(f"<{tag}>" for tag in PART_TAGS))),
    *(f"{what}_{level}" for level in range(1, LEVELS + 1) for what in ("bytes", "links", "blocks", "long", "share")),
    *(f"{what}_{step:+d}" for step in AROUND for what in ("bytes", "links", "tag")),
    *PLACE,
    *PAGE,
)
_OWN, _TEXT_GROUPS = len(OWN), len(TEXT_GROUPS)


def describe(page: Array, tree: Tree, blocks: Blocks) -> Array:
    """float32 (blocks, len(FEATURES))."""
    out = np.zeros((len(blocks.first), len(FEATURES)), np.float32)
    if len(out):
        keys, whole, _ = word_table(text=True)
        title = np.zeros(MAX_TITLE_WORDS, np.uint32)
        titles = _title_words(page, tree.title[0], tree.title[1], title)
        hashes = np.zeros(len(out), np.uint64)
        _own(page, tree, blocks, keys, whole, title[:titles], hashes, out)
        _count_equal(hashes, np.argsort(hashes, kind="stable"), out[:, OWN.index("copies")])
        at = len(OWN) + len(TEXT_GROUPS)
        find_ancestors(tree, blocks.first, out[:, at : at + PARTS])
        describe_surroundings(tree, blocks, out, at + PARTS)
    return out


@kernel()
def _is_letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122 or byte >= 128 or 48 <= byte <= 57


@kernel()
def _step(value: np.uint32, byte: int) -> np.uint32:
    """FNV-1a with ASCII capitals as small letters."""
    return np.uint32((value ^ np.uint32(byte + 32 if 65 <= byte <= 90 else byte)) * np.uint32(16777619))


@kernel()
def _title_words(page: Array, start: int, end: int, out: Array) -> int:
    count = 0
    value = np.uint32(2166136261)
    length = 0
    for at in range(start, end + 1):
        byte = page[at] if at < end else np.uint8(32)
        if _is_letter(byte):
            value = _step(value, byte)
            length += 1
        else:
            if length > 1 and count < len(out):
                out[count] = value
                count += 1
            value = np.uint32(2166136261)
            length = 0
    return count


@kernel()
def _own(
    page: Array, tree: Tree, blocks: Blocks, keys: Array, whole: Array, title: Array, hashes: Array, out: Array
) -> None:
    seen = np.zeros(len(title), np.bool_)
    for block in range(len(blocks.first)):
        words = short = long_words = punctuation = ends = commas = digits = capitals = marks = breaks = emphasis = 0
        letters = in_title = 0
        whole_hash = np.uint64(14695981039346656037)
        seen[:] = False
        value = np.uint32(2166136261)
        length = 0
        ends_sentence = first_capital = False
        began = False
        mask = np.uint32(0)
        for run in range(blocks.first[block], blocks.last[block]):
            if tree.run_flags[run] & BREAK:
                breaks += 1
            for at in range(tree.run_start[run], tree.run_end[run] + 1):
                # A run's end parts words only at the block's end: inline tags stand within words too.
                byte = int(page[at]) if at < tree.run_end[run] else 32
                if at == tree.run_end[run] and run + 1 < blocks.last[block] and not tree.run_flags[run + 1] & BREAK:
                    continue
                if _is_letter(byte):
                    if not began:
                        began, first_capital = True, 65 <= byte <= 90
                    value = _step(value, byte)
                    length += 1
                    letters += 1
                    digits += 48 <= byte <= 57
                    capitals += 65 <= byte <= 90
                    whole_hash = (whole_hash ^ np.uint64(byte)) * np.uint64(1099511628211)
                    ends_sentence = False
                    if (
                        byte == 0xE3
                        and at + 2 < tree.run_end[run]
                        and page[at + 1] == 0x80
                        and page[at + 2] in (0x81, 0x82)
                    ):
                        commas += page[at + 2] == 0x81
                        ends += page[at + 2] == 0x82
                        punctuation += 1
                        ends_sentence = page[at + 2] == 0x82
                    elif byte == 0xEF and at + 2 < tree.run_end[run] and page[at + 1] == 0xBC:
                        commas += page[at + 2] == 0x8C
                        punctuation += 1
                    emphasis += (tree.run_flags[run] & EMPHASIS) != 0
                    continue
                if length > 0:
                    words += 1
                    short += length <= 3
                    long_words += length > 12
                    slot = find_slot(keys, value)
                    if slot >= 0:
                        mask |= whole[slot]
                    for i in range(len(title)):
                        if title[i] == value:
                            in_title += 1
                            seen[i] = True
                            break
                    value = np.uint32(2166136261)
                    length = 0
                if byte == 46 or byte == 33 or byte == 63:
                    ends += 1
                    punctuation += 1
                    ends_sentence = True
                elif byte == 44 or byte == 59 or byte == 58:
                    commas += byte == 44
                    punctuation += 1
                    ends_sentence = byte == 58
                elif byte == 124 or byte == 62 or byte == 47 or byte == 43 or byte == 35 or byte == 64:
                    marks += 1  # | > / + # @
        size = max(blocks.bytes[block], 1)
        row = out[block]
        row[0] = tree.tag[blocks.element[block]]
        row[1] = np.log1p(blocks.bytes[block])
        row[2] = np.log1p(words)
        row[3] = blocks.links[block] / size
        row[4] = letters / max(words, 1)
        row[5] = punctuation / size
        row[6] = ends
        row[7] = ends_sentence
        row[8] = commas
        row[9] = digits / size
        row[10] = capitals / size
        row[11] = short / max(words, 1)
        row[12] = marks / size
        row[13] = breaks
        row[14] = blocks.last[block] - blocks.first[block]
        row[15] = emphasis / max(letters, 1)
        row[16] = long_words / max(words, 1)
        row[17] = in_title / max(words, 1)
        row[18] = np.sum(seen) / max(len(title), 1)
        row[20] = first_capital
        for group in range(_TEXT_GROUPS):
            row[_OWN + group] = (mask >> np.uint32(group)) & np.uint32(1)
        hashes[block] = whole_hash


@kernel()
def _count_equal(hashes: Array, order: Array, out: Array) -> None:
    """Number of rows with the same hash."""
    start = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or hashes[order[at]] != hashes[order[start]]:
            for i in range(start, at):
                out[order[i]] = at - start
            start = at
