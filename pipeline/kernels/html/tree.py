"""HTML bytes to a flat tree and its blocks of text, as arrays, in one pass over the page.

A tokenizer and a tree builder in one numba kernel. It handles what decides where text belongs (void and raw elements,
implied ends of p, li, dt, dd, option and table parts, stray and crossed end tags, comments, script templates as
markup, formulas that a page has twice) and leaves out what does not (foster parenting, the adoption agency beyond
links). Time and memory are linear in the page, whatever it holds: the stack of open elements is bounded, deeper
elements count as siblings. About 300 MB of HTML a second on one core.

A block is the text between two borders of block elements, or between two line breaks in a row. Unknown elements are
inline; custom ones (`my-part`) that follow each other outside of paragraphs and the like are parted. Text in <template>
and <noscript> is no text of the page; what it hides (`hidden`, `aria-hidden`, `display: none`) is marked, since trained
trees decide by all blocks. A formula's TeX, where it is there, stands for the formula.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import FNV32, find_slot, fnv32, is_space, lower
from pipeline.kernels.html.attributes import (
    BLOCK,
    FORMULA,
    HIDDEN,
    KINDS,
    LINKED,
    LINKED_DATA,
    RAW,
    SHADOW,
    SKIPPED,
    TAGS,
    TEMPLATE,
    TEX,
    VOID,
    is_alpha,
    read_attributes,
    tag_table,
    word_table,
)

LINK, VERBATIM, BREAK, EMPHASIS, CODE, MATH, UNSEEN = 1, 2, 4, 8, 16, 32, 64  # flags of a run
MAX_DEPTH = 256
MAX_NAME = 64  # bytes of a tag's name that are read
MAX_NOTES = 300  # places where a page says something of itself

_P, _LI, _DT, _DD, _TR, _TD, _TH = (TAGS[name] for name in ("p", "li", "dt", "dd", "tr", "td", "th"))
_A, _BR, _PRE, _TABLE, _CAPTION, _TITLE = (TAGS[name] for name in ("a", "br", "pre", "table", "caption", "title"))
_UL, _OL, _DL, _SCRIPT, _SCRIPT_TEMPLATE = (TAGS[name] for name in ("ul", "ol", "dl", "script", "script-template"))
_THEAD, _TBODY, _TFOOT, _BODY, _META = (TAGS[name] for name in ("thead", "tbody", "tfoot", "body", "meta"))
_HTML, _SVG, _MATH, _ANNOTATION, _NOSCRIPT = (TAGS[name] for name in ("html", "svg", "math", "annotation", "noscript"))
_HIDES = np.uint32(1 << 30)  # in `names`, which has no group there
_TEMPLATE = TAGS["template"]
_EMPHASIS, _CODE, _OF_SENTENCES = (np.zeros(256, np.bool_) for _ in range(3))
_CODE[[TAGS[name] for name in ("code", "kbd", "samp", "tt")]] = True
# Blocks in which custom elements are parts of sentences.
_SENTENCES = "p li dt dd td th caption figcaption summary label button h1 h2 h3 h4 h5 h6"
_OF_SENTENCES[[TAGS[name] for name in _SENTENCES.split()]] = True
_EMPHASIS[[TAGS[name] for name in ("b", "i", "u", "em", "strong", "small")]] = True
# Elements inside <p> that end it.
_ENDS_P = (KINDS & BLOCK).astype(np.bool_)
_ENDS_P[[TAGS[n] for n in ("button", "label", "noscript", "template", "script-template", "td", "th", "tr")]] = False
_SCOPE = np.zeros(256, np.bool_)
_SCOPE[[_TABLE, _TD, _TH, _CAPTION, _HTML, _SCRIPT_TEMPLATE, TAGS["button"]]] = True


_PARAGRAPHS, _VERBATIM, _EMPHASES, _CODES, _SKIPPED, _HIDDEN = range(6)  # counters of open elements


class Tree(NamedTuple):
    """Elements in document order; element 0 is the root. Positions are byte offsets into the page.

    tag, parent, end (first element behind the subtree), names (mask of vocabulary groups, own attributes only), spans
    (columns + 256 * rows of a table cell) have a row per element; run_* have a row per piece of text, `run_block` being
    a counter that grows at each border of a block element. `title` is the span of <title>; `notes` has a row (start,
    end) for each <meta> tag and each script of JSON-LD.
    """

    tag: Array
    parent: Array
    end: Array
    names: Array
    spans: Array
    run_element: Array
    run_start: Array
    run_end: Array
    run_flags: Array
    run_block: Array
    title: Array
    notes: Array


class Blocks(NamedTuple):
    """Per block: runs [first, last), nearest block element, text in bytes (white space folded), bytes in links, whether
    the page shows any of it."""

    first: Array
    last: Array
    element: Array
    bytes: Array
    links: Array
    seen: Array


def parse(page: Array) -> Tree:
    """Tree of a page given as uint8 array of UTF-8."""
    size = int(np.count_nonzero(page == ord("<"))) + 2
    kinds = (np.uint8, np.int32, np.int32, np.uint32, np.uint16)
    of_elements = (np.zeros(size, kind) for kind in kinds)
    of_runs = (np.zeros(2 * size, kind) for kind in (np.int32, np.int32, np.int32, np.uint8, np.int32))
    room = Tree._make([*of_elements, *of_runs, np.zeros(2, np.int64), np.zeros((MAX_NOTES, 2), np.int32)])
    scratch = np.zeros(MAX_DEPTH, np.int32), np.zeros(6, np.int32)
    elements, pieces, notes = _parse(page, *tag_table(), *word_table(), *scratch, room)
    ends = (elements,) * 5 + (pieces,) * 5 + (2, notes)
    return Tree._make([rows[:end] for rows, end in zip(room, ends, strict=True)])


def cut_blocks(page: Array, tree: Tree) -> Blocks:
    """Blocks of a page in document order."""
    size = len(tree.run_element)
    first, last, element = (np.zeros(size, np.int32) for _ in range(3))
    count = _cut(page, tree, first, last, element)
    sizes, links = np.zeros(count, np.int64), np.zeros(count, np.int64)
    blocks = Blocks(first[:count], last[:count], element[:count], sizes, links, np.zeros(count, np.bool_))
    _measure(page, tree, blocks)
    return blocks


@inner
def _is_markup(page: Array, at: int) -> bool:
    """Whether a tag, comment or declaration begins at `at`."""
    if page[at] != 60 or at + 1 >= len(page):
        return False
    following = page[at + 1]
    return bool(is_alpha(following) or following == 47 or following == 33 or following == 63)  # / ! ?


@inner
def _skip_tag(page: Array, at: int) -> int:
    """Position behind the next `>`."""
    while at < len(page) and page[at] != 62:
        at += 1
    return at + 1


@inner
def _skip_declaration(page: Array, at: int) -> int:
    """Position behind the comment, doctype or processing instruction at `at`."""
    size = len(page)
    if not (at + 3 < size and page[at + 2] == 45 and page[at + 3] == 45):
        return int(_skip_tag(page, at))
    at += 4
    if at < size and page[at] == 62:
        return at + 1
    while at < size and not (page[at] == 62 and page[at - 1] == 45 and page[at - 2] == 45):
        at += 1
    return at + 1


@inner
def _skip_raw(page: Array, at: int, name: int, name_end: int) -> tuple[int, int]:
    """(end of the raw text that begins at `at`, position behind its end tag) of the element page[name:name_end]."""
    size = len(page)
    length = name_end - name
    while at < size:
        if page[at] == 60 and at + 2 + length <= size and page[at + 1] == 47:
            i = 0
            while i < length and lower(page[at + 2 + i]) == lower(page[name + i]):
                i += 1
            if i == length:
                return at, _skip_tag(page, at)
        at += 1
    return size, size


@inner
def _read_name(page: Array, at: int) -> tuple[int, np.uint32, bool]:
    """(end, hash, whether it holds a dash) of a tag's name."""
    start, value, dashed = at, FNV32, False
    while at < len(page) and not is_space(page[at]) and page[at] != 62 and page[at] != 47:
        if at - start < MAX_NAME:
            value = fnv32(value, lower(page[at]))
        dashed = dashed or page[at] == 45
        at += 1
    return at, value, dashed


@inner
def _closes(tag: int, open_tag: int) -> int:
    """Whether a start tag `tag` ends the open element `open_tag` (1), is kept apart from it (-1), or neither (0)."""
    if tag == _LI:
        return 1 if open_tag == _LI else (-1 if open_tag in (_UL, _OL, _TD, _TH, _TABLE) else 0)
    if tag in (_DT, _DD):
        return 1 if open_tag in (_DT, _DD) else (-1 if open_tag in (_DL, _TD, _TH, _TABLE) else 0)
    if tag in (_TD, _TH):
        return 1 if open_tag in (_TD, _TH) else (-1 if open_tag in (_TR, _TABLE) else 0)
    if tag == _TR:
        return 1 if open_tag in (_TR, _CAPTION) else (-1 if open_tag == _TABLE else 0)
    if tag in (_THEAD, _TBODY, _TFOOT):
        return 1 if open_tag in (_THEAD, _TBODY, _TFOOT, _CAPTION) else (-1 if open_tag == _TABLE else 0)
    return -1


@inner
def _ended_by_start(this: int, paragraphs: int, stack: Array, depth: int, tag: Array) -> int:
    """Depth from which on a start tag ends the open elements; `depth` where it ends none."""
    first = depth
    if paragraphs > 0 and _ENDS_P[this]:
        for i in range(depth - 1, 0, -1):
            if tag[stack[i]] == _P:
                first = i
                break
            if _SCOPE[tag[stack[i]]]:
                break
    for i in range(first - 1, 0, -1):
        verdict = _closes(this, np.int64(tag[stack[i]]))
        if verdict == 1:
            first = i
        if verdict != 0:
            break
    return first


@inner
def _ended_by_end(this: int, traits: int, stack: Array, depth: int, tag: Array) -> int:
    """Depth from which on an end tag ends the open elements; 0 where it ends none.

    Inline elements do not reach through blocks, nor blocks through table cells.
    """
    for i in range(depth - 1, 0, -1):
        other = np.int64(tag[stack[i]])
        if other == this:
            return i
        if not traits & BLOCK and KINDS[other] & BLOCK:
            return 0
        if _SCOPE[other] and not (this in (_TABLE, _TR, _THEAD, _TBODY, _TFOOT) and other != _TABLE):
            return 0
    return 0


@inner
def _count_open(counts: Array, tag: int, by: int) -> None:
    counts[_PARAGRAPHS] += by * int(tag == _P)
    counts[_VERBATIM] += by * int(tag == _PRE)
    counts[_EMPHASES] += by * int(_EMPHASIS[tag])
    counts[_CODES] += by * int(_CODE[tag])
    counts[_SKIPPED] += by * int((KINDS[tag] & SKIPPED) != 0 or tag == _NOSCRIPT)


@inner
def _add_run(out: Tree, run: int, element: int, start: int, end: int, flags: int, block: int) -> int:
    """Write a piece of text. Returns the number of runs."""
    out.run_element[run], out.run_start[run], out.run_end[run] = element, start, end
    out.run_flags[run], out.run_block[run] = flags, block
    return run + 1


@inner
def _blank(page: Array, start: int, end: int) -> bool:
    """Whether a run holds nothing but white space (no-break spaces too)."""
    at = start
    while at < end:
        byte = page[at]
        if is_space(byte):
            at += 1
        elif byte == 0xC2 and at + 1 < end and page[at + 1] == 0xA0:
            at += 2
        elif byte == 38 and at + 5 < end and page[at + 1] == 110 and page[at + 2] == 98 and page[at + 3] == 115:
            at += 6  # &nbsp;
        else:
            return False
    return True


@inner
def _of_sentence(stack: Array, depth: int, tag: Array) -> bool:
    """Whether the nearest open block is one of sentences."""
    for i in range(depth - 1, 0, -1):
        if KINDS[tag[stack[i]]] & BLOCK:
            return bool(_OF_SENTENCES[tag[stack[i]]])
    return False


@kernel(**UNCOUNTED)
def _parse(
    page: Array, tag_keys: Array, tag_ids: Array, keys: Array, words: Array, prefixes: Array, stack: Array,
    counts: Array, out: Tree,
) -> tuple[int, int, int]:  # fmt: skip
    """Fill `out`; returns the numbers of elements, runs and notes."""
    size, depth, elements, runs, notes, block, at = len(page), 1, 1, 0, 0, 0, 0
    link_depth = 0  # depth of the stack at which an open <a href> lies, 0 for none
    texts, text_block = 0, -1  # runs that are not blank, and the block of the last one
    formula_depth = custom_depth = 0  # of an open formula; of an open custom element that begins a block
    formula = 0  # runs before the last formula
    formula_end = custom_end = -1  # texts at its end; at the end of such an element
    while at < size:
        start = at
        while at < size and not _is_markup(page, at):
            at += 1
        if at > start and counts[_SKIPPED] == 0:
            flags = LINK if link_depth > 0 else 0
            flags |= (VERBATIM if counts[_VERBATIM] > 0 else 0) | (EMPHASIS if counts[_EMPHASES] > 0 else 0)
            flags |= (CODE if counts[_CODES] > 0 else 0) | (UNSEEN if counts[_HIDDEN] > 0 else 0)
            runs = _add_run(out, runs, stack[depth - 1], start, at, flags, block)
            if not flags & UNSEEN and not _blank(page, start, at):
                texts, text_block = texts + 1, block
        if at >= size:
            break
        kind = page[at + 1]
        if kind == 33 or kind == 63:  # <! or <?
            at = _skip_declaration(page, at)
            continue
        closing = kind == 47
        name = at + 2 if closing else at + 1
        name_end, value, dashed = _read_name(page, name)
        if name_end == name:  # `</` and no name
            at = _skip_tag(page, name)
            continue
        slot = find_slot(tag_keys, value)
        this = int(tag_ids[slot]) if slot >= 0 else 0
        traits = int(KINDS[this])
        at, mask, says, spans = read_attributes(page, name_end, keys, words, prefixes)
        if closing and this == _SCRIPT:
            this, traits = _SCRIPT_TEMPLATE, BLOCK
        if traits & BLOCK:
            block += 1
        if this == 0 and dashed:
            traits = BLOCK  # for the stack: a custom element may hold blocks
            if not closing and custom_end == texts and not _of_sentence(stack, depth, out.tag):
                block += 1

        if closing:
            if this == _A:
                link_depth = 0
            if this in (_BODY, _HTML) or traits & (VOID | RAW):
                if this == _BR:  # </br> is a line break
                    runs = _add_run(out, runs, stack[depth - 1], at, at, BREAK, block)
                continue
            ended = _ended_by_end(this, traits, stack, depth, out.tag)
            if ended == 0:
                continue
        else:
            ended = _ended_by_start(this, counts[_PARAGRAPHS], stack, depth, out.tag)
        while depth > ended:
            depth -= 1
            element = stack[depth]
            out.end[element] = elements
            _count_open(counts, np.int64(out.tag[element]), -1)
            counts[_HIDDEN if out.tag[element] != _TEMPLATE else _SKIPPED] -= int((out.names[element] & _HIDES) != 0)
            if link_depth > depth:
                link_depth = 0
            if formula_depth == depth:
                formula_depth, formula_end = 0, texts
            if custom_depth == depth:
                custom_depth, custom_end = 0, texts
        if closing:
            continue

        if (counts[_SKIPPED] > 0 or this == _SVG) and page[at - 2] == 47:
            continue  # SVG knows `<title/>` and the like; read as HTML they would take in the rest of the page
        if this == _SCRIPT and says & TEMPLATE:
            this, traits = _SCRIPT_TEMPLATE, BLOCK
            block += 1
        tex = (
            says & TEX
            and counts[_SKIPPED] + counts[_HIDDEN] == 0
            and (this == _SCRIPT or (this == _ANNOTATION and formula_depth > 0))
        )
        if tex or traits & RAW:
            raw_end, behind = _skip_raw(page, at, name, name_end)
            if says & LINKED_DATA and notes < MAX_NOTES:
                out.notes[notes, 0], out.notes[notes, 1] = at, raw_end
                notes += 1
            if this == _TITLE and out.title[1] == 0:
                out.title[0], out.title[1] = at, raw_end
            if tex and not _blank(page, at, raw_end):
                if this == _ANNOTATION or formula_end == texts:
                    runs = formula  # the same formula as the page shows it
                runs = _add_run(out, runs, stack[depth - 1], at, raw_end, MATH, block)
                texts, text_block = texts + 1, block
            at = behind
            continue
        if this == _BR and counts[_SKIPPED] == 0:
            runs = _add_run(out, runs, stack[depth - 1], at, at, BREAK, block)
        if this == _META and notes < MAX_NOTES:
            out.notes[notes, 0], out.notes[notes, 1] = start, at
            notes += 1
        if traits & VOID:
            continue
        if this in (_BODY, _HTML):
            out.names[0] |= mask
            continue
        if this == _A:
            link_depth = depth + 1 if says & LINKED else 0
        if this == _PRE and at < size and page[at] == 10:
            at += 1
        out.tag[elements], out.parent[elements], out.names[elements] = this, stack[depth - 1], mask
        out.spans[elements] = spans
        if depth < MAX_DEPTH:
            if this == _MATH and out.names[stack[depth - 1]] & _HIDES and counts[_HIDDEN] == 1:
                out.names[stack[depth - 1]] &= ~_HIDES  # shown as an image beside it, as in Wikipedia
                counts[_HIDDEN] = 0
            if formula_depth == 0 and (this == _MATH or says & FORMULA):
                formula = formula if says & FORMULA and formula_end == texts else runs
                formula_depth = depth
            if not says & SHADOW if this == _TEMPLATE else says & HIDDEN:
                out.names[elements] |= _HIDES
                counts[_HIDDEN if this != _TEMPLATE else _SKIPPED] += 1
            if this == 0 and dashed and text_block != block:
                custom_depth = depth
            stack[depth] = elements
            depth += 1
            _count_open(counts, this, 1)
        else:
            out.end[elements] = elements + 1
            link_depth = 0
        elements += 1
    while depth > 0:
        depth -= 1
        out.end[stack[depth]] = elements
    out.end[0] = elements
    return elements, runs, notes


@kernel(**UNCOUNTED)
def _cut(page: Array, tree: Tree, first: Array, last: Array, element: Array) -> int:
    """Fill the first three columns of Blocks. Returns the number of blocks."""
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


@kernel(**UNCOUNTED)
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
            blocks.seen[block] |= not tree.run_flags[run] & (UNSEEN | BREAK) and size > 0
            if tree.run_flags[run] & LINK:
                blocks.links[block] += size
