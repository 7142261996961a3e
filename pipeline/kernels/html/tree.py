"""HTML bytes to a flat tree: arrays of elements and runs of text, in one pass over the page.

A tokenizer and a tree builder in one numba kernel. It knows what decides where text belongs (void and raw elements,
implied ends of p, li, dt, dd, option and table parts, stray and crossed end tags, comments, script templates as
markup) and leaves out what does not (foster parenting, the adoption agency beyond links). Time and memory
are linear in the page, whatever it holds: the stack of open elements is bounded, deeper elements count as
siblings. About 300 MB of HTML a second on one core.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compiled import kernel
from pipeline.kernels.html.attributes import find_slot, is_alpha, is_space, lower, read_attributes
from pipeline.kernels.html.vocabulary import BLOCK, KINDS, RAW, SKIPPED, TAGS, VOID, tag_table, word_table

Array = np.ndarray[Any, Any]
LINK, VERBATIM, BREAK, EMPHASIS = 1, 2, 4, 8  # flags of a run
MAX_DEPTH = 256
MAX_NAME = 64  # bytes of a tag or attribute word that are read

_P, _LI, _DT, _DD, _TR, _TD, _TH = (TAGS[name] for name in ("p", "li", "dt", "dd", "tr", "td", "th"))
_A, _BR, _PRE, _TABLE, _CAPTION, _TITLE = (TAGS[name] for name in ("a", "br", "pre", "table", "caption", "title"))
_UL, _OL, _DL, _SCRIPT, _TEMPLATE = (TAGS[name] for name in ("ul", "ol", "dl", "script", "script-template"))
_THEAD, _TBODY, _TFOOT, _BODY = (TAGS[name] for name in ("thead", "tbody", "tfoot", "body"))
_HTML, _FORM, _SVG = TAGS["html"], TAGS["form"], TAGS["svg"]
_EMPHASIS = np.zeros(256, np.bool_)
_EMPHASIS[[TAGS[name] for name in ("b", "i", "u", "em", "strong", "small")]] = True
# Elements inside <p> that end it.
_ENDS_P = (KINDS & BLOCK).astype(np.bool_)
_ENDS_P[[TAGS[n] for n in ("button", "label", "noscript", "template", "script-template", "td", "th", "tr")]] = False
_SCOPE = np.zeros(256, np.bool_)
_SCOPE[[_TABLE, _TD, _TH, _CAPTION, _HTML, _TEMPLATE, TAGS["button"]]] = True


class Tree(NamedTuple):
    """Elements in document order; element 0 is the root. Positions are byte offsets into the page.

    tag, parent, end (first element behind the subtree), names (mask of vocabulary groups, own attributes only) have
    a row per element; run_* have a row per piece of text, `run_block` being a counter that grows at each border of
    a block element. `title` is the span of <title>.
    """

    tag: Array
    parent: Array
    end: Array
    names: Array
    run_element: Array
    run_start: Array
    run_end: Array
    run_flags: Array
    run_block: Array
    title: Array


def parse(page: Array) -> Tree:
    """Tree of a page given as uint8 array of UTF-8."""
    size = int(np.count_nonzero(page == ord("<"))) + 2
    tag, parent, end, names = (np.zeros(size, kind) for kind in (np.uint8, np.int32, np.int32, np.uint32))
    runs = (np.zeros(2 * size, kind) for kind in (np.int32, np.int32, np.int32, np.uint8, np.int32))
    room = Tree._make([tag, parent, end, names, *runs, np.zeros(2, np.int64)])
    elements, pieces = _parse(page, *tag_table(), *word_table(), room)
    return Tree._make([*(row[:elements] for row in room[:4]), *(run[:pieces] for run in room[4:9]), room.title])


@kernel()
def _skip_raw(page: Array, at: int, name: int, name_end: int) -> tuple[int, int]:
    """(end of the raw text that begins at `at`, position behind its end tag) of the element page[name:name_end]."""
    size = len(page)
    length = name_end - name
    while at < size:
        if page[at] == 60 and at + 2 + length <= size and page[at + 1] == 47:
            same = True
            for i in range(length):
                if lower(page[at + 2 + i]) != lower(page[name + i]):
                    same = False
                    break
            if same:
                end = at
                while at < size and page[at] != 62:
                    at += 1
                return end, at + 1
        at += 1
    return size, size


@kernel()
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


@kernel()
def _parse(
    page: Array, tag_keys: Array, tag_ids: Array, keys: Array, whole: Array, prefix: Array, out: Tree
) -> tuple[int, int]:
    size = len(page)
    stack = np.zeros(MAX_DEPTH, np.int32)
    depth = 1
    elements = 1
    runs = 0
    block = 0
    link_depth = 0  # depth of the stack at which an open <a href> lies, 0 for none
    paragraphs = verbatim = emphasis = skipped = 0  # open elements of these kinds
    at = 0
    while at < size:
        start = at
        while at < size and not (
            page[at] == 60
            and at + 1 < size
            and (is_alpha(page[at + 1]) or page[at + 1] == 47 or page[at + 1] == 33 or page[at + 1] == 63)
        ):
            at += 1
        if at > start and skipped == 0:
            out.run_element[runs], out.run_start[runs], out.run_end[runs] = stack[depth - 1], start, at
            out.run_flags[runs] = (
                (LINK if link_depth > 0 else 0) | (VERBATIM if verbatim > 0 else 0) | (EMPHASIS if emphasis > 0 else 0)
            )
            out.run_block[runs] = block
            runs += 1
        if at >= size:
            break
        kind = page[at + 1]
        if kind == 33 or kind == 63:  # <! or <?
            if at + 3 < size and page[at + 2] == 45 and page[at + 3] == 45:
                at += 4
                if at < size and page[at] == 62:
                    at += 1
                    continue
                while at < size and not (page[at] == 62 and page[at - 1] == 45 and page[at - 2] == 45):
                    at += 1
            else:
                while at < size and page[at] != 62:
                    at += 1
            at += 1
            continue
        closing = kind == 47
        name = at + 2 if closing else at + 1
        at = name
        value = np.uint32(2166136261)
        dashed = False
        while at < size and not is_space(page[at]) and page[at] != 62 and page[at] != 47:
            if at - name < MAX_NAME:
                value = np.uint32((value ^ np.uint32(lower(page[at]))) * np.uint32(16777619))
            dashed = dashed or page[at] == 45
            at += 1
        name_end = at
        if name_end == name:  # `</` and no name
            while at < size and page[at] != 62:
                at += 1
            at += 1
            continue
        slot = find_slot(tag_keys, value)
        this = int(tag_ids[slot]) if slot >= 0 else 0
        traits = int(KINDS[this])
        if this == 0 and dashed:
            traits = BLOCK  # a custom element is nearly always a part of the page, not of a sentence
        at, mask, link, template = read_attributes(page, at, keys, whole, prefix)

        if closing:
            if this == _A:
                link_depth = 0
            if this == _SCRIPT:
                this = _TEMPLATE
                traits = BLOCK
            if traits & BLOCK:
                block += 1
            if this in (_BODY, _HTML) or traits & (VOID | RAW):
                if this == _BR:  # </br> is a line break
                    out.run_element[runs], out.run_start[runs], out.run_end[runs] = stack[depth - 1], at, at
                    out.run_flags[runs], out.run_block[runs] = BREAK, block
                    runs += 1
                continue
            # Find what it ends; inline elements do not reach through blocks, nor blocks through table cells.
            found = depth - 1
            while found > 0:
                other = np.int64(out.tag[stack[found]])
                if other == this:
                    break
                if not traits & BLOCK and (KINDS[other] & BLOCK):
                    found = 0
                    break
                if _SCOPE[other] and not (this in (_TABLE, _TR, _THEAD, _TBODY, _TFOOT) and other != _TABLE):
                    found = 0
                    break
                found -= 1
            if found == 0:
                continue
        else:
            found = depth
            if traits & BLOCK:
                block += 1
                if paragraphs > 0 and _ENDS_P[this]:
                    for i in range(depth - 1, 0, -1):
                        if out.tag[stack[i]] == _P:
                            found = i
                            break
                        if _SCOPE[out.tag[stack[i]]]:
                            break
            for i in range(found - 1, 0, -1):
                verdict = _closes(this, np.int64(out.tag[stack[i]]))
                if verdict == 1:
                    found = i
                if verdict != 0:
                    break
        # Close everything from `found` on.
        while depth > found:
            depth -= 1
            old = stack[depth]
            other = np.int64(out.tag[old])
            out.end[old] = elements
            paragraphs -= int(other == _P)
            verbatim -= int(other == _PRE)
            emphasis -= int(_EMPHASIS[other])
            skipped -= int((KINDS[other] & SKIPPED) != 0)
            if link_depth > depth:
                link_depth = 0
        if closing:
            continue
        if (skipped > 0 or this == _SVG) and page[at - 2] == 47:
            continue  # in SVG, `<title/>` and the like are whole; read as HTML they would take in the rest of the page

        if this == _SCRIPT and template:
            this = _TEMPLATE
            traits = BLOCK
            block += 1
        if traits & RAW:
            raw_end, behind = _skip_raw(page, at, name, name_end)
            if this == _TITLE and out.title[1] == 0:
                out.title[0], out.title[1] = at, raw_end
            at = behind
            continue
        if this == _BR:
            if skipped == 0:
                out.run_element[runs], out.run_start[runs], out.run_end[runs] = stack[depth - 1], at, at
                out.run_flags[runs], out.run_block[runs] = BREAK, block
                runs += 1
            continue
        if traits & VOID:
            continue
        if this in (_BODY, _HTML):
            out.names[0] |= mask
            continue
        if this == _A:
            link_depth = depth + 1 if link else 0
        if this == _PRE and at < size and page[at] == 10:
            at += 1
        out.tag[elements], out.parent[elements], out.names[elements] = this, stack[depth - 1], mask
        if depth < MAX_DEPTH:
            stack[depth] = elements
            depth += 1
            paragraphs += int(this == _P)
            verbatim += int(this == _PRE)
            emphasis += int(_EMPHASIS[this])
            skipped += int((traits & SKIPPED) != 0)
        else:
            out.end[elements] = elements + 1
            link_depth = 0
        elements += 1
    while depth > 0:
        depth -= 1
        out.end[stack[depth]] = elements
    out.end[0] = elements
    return elements, runs
