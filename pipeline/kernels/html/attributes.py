"""Attributes of a start tag: what class, id, role and itemprop say, whether it is hidden, a link, a template.

Values are not kept: each word of a name is looked up in the vocabulary while it is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compiled import kernel
from pipeline.kernels.html.vocabulary import NAME_GROUPS

Array = np.ndarray[Any, Any]
ROLE_BIT = np.uint32(1 << 31)  # role="main"
HIDDEN_BIT = np.uint32(1 << list(NAME_GROUPS).index("hidden"))


@kernel()
def lower(byte: int) -> int:
    return byte + 32 if 65 <= byte <= 90 else byte


@kernel()
def is_alpha(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@kernel()
def is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@kernel()
def find_slot(keys: Array, value: np.uint32) -> int:
    """Slot of a hash in an open-addressing table, -1 where it is not."""
    slot = np.int64(value) & (len(keys) - 1)
    while keys[slot] != 0:
        if keys[slot] == value:
            return int(slot)
        slot = (slot + 1) & (len(keys) - 1)
    return -1


@kernel()
def _name_groups(page: Array, start: int, end: int, keys: Array, whole: Array, prefix: Array) -> np.uint32:
    """Groups of the words of an attribute value: parts between non-letters, or from a capital on."""
    mask = np.uint32(0)
    value = np.uint32(2166136261)
    length = 0
    for at in range(start, end + 1):
        byte = page[at] if at < end else np.uint8(32)
        upper = 65 <= byte <= 90
        starts = upper and length > 0 and 97 <= page[at - 1] <= 122
        if not is_alpha(byte) or starts:
            if length > 1:
                slot = find_slot(keys, value)
                if slot >= 0:
                    mask |= whole[slot]
            value = np.uint32(2166136261)
            length = 0
        if is_alpha(byte):
            value = np.uint32((value ^ np.uint32(lower(byte))) * np.uint32(16777619))
            length += 1
            if length > 1:
                slot = find_slot(keys, value)
                if slot >= 0:
                    mask |= prefix[slot]
    return mask


@kernel()
def _has(page: Array, start: int, end: int, word: bytes) -> bool:
    """Whether page[start:end] holds `word` (lower case), whatever its case."""
    size = len(word)
    for at in range(start, end - size + 1):
        found = True
        for i in range(size):
            if lower(page[at + i]) != word[i]:
                found = False
                break
        if found:
            return True
    return False


@kernel()
def _is_name(page: Array, start: int, end: int, word: bytes) -> bool:
    return end - start == len(word) and _has(page, start, end, word)


@kernel()
def read_attributes(
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
        if is_space(byte) or byte == 47 or byte == 61 or byte == 34 or byte == 39:
            at += 1
            continue
        name = at
        while at < size and not is_space(page[at]) and page[at] != 61 and page[at] != 62 and page[at] != 47:
            at += 1
        name_end = at
        while at < size and is_space(page[at]):
            at += 1
        start = end = at
        if at < size and page[at] == 61:  # =
            at += 1
            while at < size and is_space(page[at]):
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
                while at < size and not is_space(page[at]) and page[at] != 62:
                    at += 1
                end = at
        length = name_end - name
        first = lower(page[name])
        if (
            (length == 2 and first == 105 and lower(page[name + 1]) == 100)
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
