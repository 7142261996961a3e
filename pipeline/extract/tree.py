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
from numba import njit

from pipeline.extract.vocabulary import BLOCK, KINDS, NAME_GROUPS, RAW, SKIPPED, TAGS, VOID, tag_table, word_table

Array = np.ndarray[Any, Any]
LINK, VERBATIM, BREAK, EMPHASIS = 1, 2, 4, 8  # flags of a run
MAX_DEPTH = 256
MAX_NAME = 64  # bytes of a tag or attribute word that are read

_BITS = {name: np.uint32(1 << bit) for bit, name in enumerate(NAME_GROUPS)}
HIDDEN_BIT, ROLE_BIT = _BITS["hidden"], np.uint32(1 << 31)  # ROLE_BIT: role="main"
_P, _LI, _DT, _DD, _TR, _TD, _TH = (TAGS[name] for name in ("p", "li", "dt", "dd", "tr", "td", "th"))
_A, _BR, _PRE, _TABLE, _CAPTION, _TITLE = (TAGS[name] for name in ("a", "br", "pre", "table", "caption", "title"))
_UL, _OL, _DL, _SCRIPT, _TEMPLATE = (TAGS[name] for name in ("ul", "ol", "dl", "script", "script-template"))
_THEAD, _TBODY, _TFOOT, _BODY = (TAGS[name] for name in ("thead", "tbody", "tfoot", "body"))
_HTML, _FORM = TAGS["html"], TAGS["form"]
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
    title: tuple[int, int]


def parse(page: Array) -> Tree:
    """Tree of a page given as uint8 array of UTF-8."""
    size = int(np.count_nonzero(page == ord("<"))) + 2
    tag, parent, end, names = (np.zeros(size, kind) for kind in (np.uint8, np.int32, np.int32, np.uint32))
    runs = (np.zeros(2 * size, kind) for kind in (np.int32, np.int32, np.int32, np.uint8, np.int32))
    room = Tree(tag, parent, end, names, *runs, title=(0, 0))
    elements, pieces, start, stop = _parse(page, *tag_table(), *word_table(), room)
    return Tree(*(row[:elements] for row in room[:4]), *(run[:pieces] for run in room[4:9]), title=(start, stop))


@njit(cache=True)
def _lower(byte: int) -> int:
    return byte + 32 if 65 <= byte <= 90 else byte


@njit(cache=True)
def _is_alpha(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@njit(cache=True)
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@njit(cache=True)
def find_slot(keys: Array, value: np.uint32) -> int:
    """Slot of a hash in an open-addressing table, -1 where it is not."""
    slot = np.int64(value) & (len(keys) - 1)
    while keys[slot] != 0:
        if keys[slot] == value:
            return slot
        slot = (slot + 1) & (len(keys) - 1)
    return -1


@njit(cache=True)
def _name_groups(page: Array, start: int, end: int, keys: Array, whole: Array, prefix: Array) -> np.uint32:
    """Groups of the words of an attribute value: parts between non-letters, or from a capital on."""
    mask = np.uint32(0)
    value = np.uint32(2166136261)
    length = 0
    for at in range(start, end + 1):
        byte = page[at] if at < end else np.uint8(32)
        upper = 65 <= byte <= 90
        starts = upper and length > 0 and 97 <= page[at - 1] <= 122
        if not _is_alpha(byte) or starts:
            if length > 1:
                slot = find_slot(keys, value)
                if slot >= 0:
                    mask |= whole[slot]
            value = np.uint32(2166136261)
            length = 0
        if _is_alpha(byte):
            value = np.uint32((value ^ np.uint32(_lower(byte))) * np.uint32(16777619))
            length += 1
            if length > 1:
                slot = find_slot(keys, value)
                if slot >= 0:
                    mask |= prefix[slot]
    return mask


@njit(cache=True)
def _has(page: Array, start: int, end: int, word: bytes) -> bool:
    """Whether page[start:end] holds `word` (lower case), whatever its case."""
    size = len(word)
    for at in range(start, end - size + 1):
        found = True
        for i in range(size):
            if _lower(page[at + i]) != word[i]:
                found = False
                break
        if found:
            return True
    return False


@njit(cache=True)
def _is_name(page: Array, start: int, end: int, word: bytes) -> bool:
    return end - start == len(word) and _has(page, start, end, word)


@njit(cache=True)
def _read_attributes(
    page: Array, at: int, keys: Array, whole: Array, prefix: Array
) -> tuple[int, np.uint32, bool, bool]:
    """(position behind `>`, mask of groups, whether there is an href, whether `type` is a template's) of a tag."""
    size = len(page)
    mask = np.uint32(0)
    link = template = False
    while at < size:
        byte = page[at]
        if byte == 62:  # >
            return at + 1, mask, link, template
        if _is_space(byte) or byte == 47 or byte == 61 or byte == 34 or byte == 39:
            at += 1
            continue
        name = at
        while at < size and not _is_space(page[at]) and page[at] != 61 and page[at] != 62 and page[at] != 47:
            at += 1
        name_end = at
        while at < size and _is_space(page[at]):
            at += 1
        start = end = at
        if at < size and page[at] == 61:  # =
            at += 1
            while at < size and _is_space(page[at]):
                at += 1
            start = end = at
            if at < size and (page[at] == 34 or page[at] == 39):
                quote = page[at]
                start = at + 1
                at += 1
                while at < size and page[at] != quote:
                    at += 1
                end = at
                at += 1
            else:
                while at < size and not _is_space(page[at]) and page[at] != 62:
                    at += 1
                end = at
        length = name_end - name
        first = _lower(page[name])
        if (
            (length == 2 and first == 105 and _lower(page[name + 1]) == 100)
            or (first == 99 and _is_name(page, name, name_end, b"class"))
            or (first == 105 and _is_name(page, name, name_end, b"itemprop"))
        ):  # id
            mask |= _name_groups(page, start, end, keys, whole, prefix)
        elif first == 114 and _is_name(page, name, name_end, b"role"):
            mask |= (
                ROLE_BIT if _is_name(page, start, end, b"main") else _name_groups(page, start, end, keys, whole, prefix)
            )
        elif first == 104 and _is_name(page, name, name_end, b"href"):
            link = True
        elif first == 104 and _is_name(page, name, name_end, b"hidden"):
            mask |= HIDDEN_BIT
        elif first == 97 and _is_name(page, name, name_end, b"aria-hidden"):
            if _is_name(page, start, end, b"true"):
                mask |= HIDDEN_BIT
        elif first == 115 and _is_name(page, name, name_end, b"style"):
            if _has(page, start, end, b"display:none") or _has(page, start, end, b"display: none"):
                mask |= HIDDEN_BIT
        elif first == 116 and _is_name(page, name, name_end, b"type"):
            template = _has(page, start, end, b"template") or _is_name(page, start, end, b"text/html")
    return size, mask, link, template


@njit(cache=True)
def _skip_raw(page: Array, at: int, name: int, name_end: int) -> tuple[int, int]:
    """(end of the raw text that begins at `at`, position behind its end tag) of the element page[name:name_end]."""
    size = len(page)
    length = name_end - name
    while at < size:
        if page[at] == 60 and at + 2 + length <= size and page[at + 1] == 47:
            same = True
            for i in range(length):
                if _lower(page[at + 2 + i]) != _lower(page[name + i]):
                    same = False
                    break
            if same:
                end = at
                while at < size and page[at] != 62:
                    at += 1
                return end, at + 1
        at += 1
    return size, size


@njit(cache=True)
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


@njit(cache=True)
def _parse(
    page: Array, tag_keys: Array, tag_ids: Array, keys: Array, whole: Array, prefix: Array, out: Tree
) -> tuple[int, int, int, int]:
    size = len(page)
    stack = np.zeros(MAX_DEPTH, np.int32)
    depth = 1
    elements = 1
    runs = 0
    block = 0
    link_depth = 0  # depth of the stack at which an open <a href> lies, 0 for none
    paragraphs = verbatim = emphasis = skipped = 0  # open elements of these kinds
    title_start = title_end = 0
    at = 0
    while at < size:
        start = at
        while at < size and not (
            page[at] == 60
            and at + 1 < size
            and (_is_alpha(page[at + 1]) or page[at + 1] == 47 or page[at + 1] == 33 or page[at + 1] == 63)
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
        while at < size and not _is_space(page[at]) and page[at] != 62 and page[at] != 47:
            if at - name < MAX_NAME:
                value = np.uint32((value ^ np.uint32(_lower(page[at]))) * np.uint32(16777619))
            dashed = dashed or page[at] == 45
            at += 1
        name_end = at
        if name_end == name:  # `</` and no name
            while at < size and page[at] != 62:
                at += 1
            at += 1
            continue
        slot = find_slot(tag_keys, value)
        this = np.int64(tag_ids[slot]) if slot >= 0 else 0
        traits = np.int64(KINDS[this])
        if this == 0 and dashed:
            traits = BLOCK  # a custom element is nearly always a part of the page, not of a sentence
        at, mask, link, template = _read_attributes(page, at, keys, whole, prefix)

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
            paragraphs -= other == _P
            verbatim -= other == _PRE
            emphasis -= np.int64(_EMPHASIS[other])
            skipped -= (KINDS[other] & SKIPPED) != 0
            if link_depth > depth:
                link_depth = 0
        if closing:
            continue

        if this == _SCRIPT and template:
            this = _TEMPLATE
            traits = BLOCK
            block += 1
        if traits & RAW:
            raw_end, behind = _skip_raw(page, at, name, name_end)
            if this == _TITLE and title_end == 0:
                title_start, title_end = at, raw_end
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
            paragraphs += this == _P
            verbatim += this == _PRE
            emphasis += np.int64(_EMPHASIS[this])
            skipped += (traits & SKIPPED) != 0
        else:
            out.end[elements] = elements + 1
            link_depth = 0
        elements += 1
    while depth > 0:
        depth -= 1
        out.end[stack[depth]] = elements
    out.end[0] = elements
    return elements, runs, title_start, title_end
