"""What the model looks at in each block of a page: a row of numbers.

A block's features are its own text (length,
links, punctuation, words that furniture uses), its ancestors (how far up the nearest <nav>, or a class that says
`sidebar`, lies), the text around it in the tree and in the page, how often its place in the tree repeats, and the
page as a whole. One pass over text and tree in numba; no feature knows a host, a language or the order of pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.extract.attributes import find_slot
from pipeline.extract.blocks import Blocks
from pipeline.extract.surroundings import (
    AROUND,
    LEVELS,
    PART_TAGS,
    PARTS,
    describe_surroundings,
    find_ancestors,
)
from pipeline.extract.tree import BREAK, EMPHASIS, Tree
from pipeline.extract.vocabulary import NAME_GROUPS, TEXT_GROUPS, word_table

Array = np.ndarray[Any, Any]
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


@njit(cache=True)
def _is_letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122 or byte >= 128 or 48 <= byte <= 57


@njit(cache=True)
def _step(value: np.uint32, byte: int) -> np.uint32:
    """FNV-1a with ASCII capitals as small letters."""
    return np.uint32((value ^ np.uint32(byte + 32 if 65 <= byte <= 90 else byte)) * np.uint32(16777619))


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
def _count_equal(hashes: Array, order: Array, out: Array) -> None:
    """Number of rows with the same hash."""
    start = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or hashes[order[at]] != hashes[order[start]]:
            for i in range(start, at):
                out[order[i]] = at - start
            start = at
