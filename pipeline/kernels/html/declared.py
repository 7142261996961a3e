"""What a page says of itself beside its text: the kind of page, and words of its description and structured data.

Kinds are named by Open Graph's `og:type` and schema.org's `@type`. Texts are those of `<meta name="description">` and
of strings in JSON-LD; what a block has in common with one of them, by pairs of words, tells whether it is the product's
description, a reader's review or a card's name, whatever its place. Nothing of them becomes text of the page. tree.py
finds where they are.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import FNV32, fnv32, lower
from pipeline.kernels.html.tree import Tree

SCHEMA = {
    "article": "article newsarticle blogposting reportagenewsarticle techarticle scholarlyarticle howto recipe blog",
    "product": "product productgroup offer aggregateoffer softwareapplication og:product",
    "forum": "discussionforumposting qapage question answer comment interactioncounter",
    "list": "itemlist collectionpage searchresultspage offercatalog collection productcollection",
    "service": "service localbusiness organization professionalservice faqpage softwareapplication",
    "website": "website webpage aboutpage contactpage",
}
# Kinds of texts, and the JSON-LD keys that hold them; <meta> descriptions count among the first.
TEXTS = {"description": "description", "body": "articleBody", "post": "text", "review": "reviewBody",
         "name": "name headline"}  # fmt: skip
MOST_BYTES = 200_000  # of a page's JSON-LD
_TYPE = re.compile(rb'"@type"\s*:\s*"(\w+)"')
_OPEN_GRAPH = re.compile(rb"og:type[\"']?\s+content\s*=\s*[\"']?([\w.:]+)")
_DESCRIPTION = re.compile(rb"(?:name|property)\s*=\s*[\"']?(?:og:|twitter:)?description\b", re.IGNORECASE)
_CONTENT = re.compile(rb"\scontent\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_KIND_OF_KEY = {key.encode(): 1 << i for i, keys in enumerate(TEXTS.values()) for key in keys.split()}
_STRING = re.compile(rb'"(%s)"\s*:\s*"((?:[^"\\]|\\.)*+)"' % b"|".join(_KIND_OF_KEY))
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")
_KIND_OF_TYPE = {
    name.encode(): [i for i, names in enumerate(SCHEMA.values()) if name in names.split()]
    for name in " ".join(SCHEMA.values()).split()
}


class Declared(NamedTuple):
    """kinds: float32 (len(SCHEMA) + 4,), kinds of page that a page names itself. pairs, texts: by slot, uint32 hashes
    of words that follow each other in a text, and uint8 kinds of TEXTS as bits."""

    kinds: Array
    pairs: Array
    texts: Array


def read_declared(page: Array, tree: Tree) -> Declared:
    """What a page says of itself."""
    kinds = np.zeros(len(SCHEMA) + 4, np.float32)
    texts: list[tuple[bytes, int]] = []
    left = MOST_BYTES
    for start, end in tree.notes.tolist():
        note = page[start : min(end, start + left)].tobytes()
        if note[:1] == b"<":
            if match := _OPEN_GRAPH.search(note):
                name = match[1].lower()
                first = next((i for i, kind in enumerate((b"article", b"product", b"website")) if kind in name), 3)
                kinds[len(SCHEMA) + first] = 1.0
            elif _DESCRIPTION.search(note) and (match := _CONTENT.search(note)):
                texts.append((match[1] or match[2] or b"", 1))
        else:
            left -= len(note)
            texts += [(_unescape(match[2]), _KIND_OF_KEY[match[1]]) for match in _STRING.finditer(note)]
            for match in _TYPE.finditer(note):
                kinds[_KIND_OF_TYPE.get(match[1].lower(), [])] = 1.0
    data = b" ".join(text for text, _ in texts)
    ends = np.cumsum([len(text) + 1 for text, _ in texts], dtype=np.int64)
    slots = 1 << max(2 * len(data), 15).bit_length()
    pairs, bits = np.zeros(slots, np.uint32), np.zeros(slots, np.uint8)
    _enter(np.frombuffer(data, np.uint8), ends, np.array([kind for _, kind in texts], np.uint8), pairs, bits)
    return Declared(kinds, pairs, bits)


def _unescape(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)).encode("utf-8", "replace"), text)


@inner
def is_letter(byte: int) -> bool:
    """Of a word: ASCII letters and digits, and all that is not ASCII."""
    return 97 <= (byte | 32) <= 122 or byte >= 128 or 48 <= byte <= 57


@inner
def pair(before: np.uint32, word: np.uint32) -> np.uint32:
    """Hash of two words in a row, never 0."""
    return np.uint32((before * np.uint32(31)) ^ word) | np.uint32(1)


@kernel(**UNCOUNTED)
def _enter(data: Array, ends: Array, of_text: Array, keys: Array, kinds: Array) -> None:
    """Enter the pairs of words of each text. ends: of the texts, with the blank behind each."""
    start = 0
    for text in range(len(ends)):
        before, value, length, escape = np.uint32(0), FNV32, 0, False
        for at in range(start, ends[text]):
            byte = data[at] if at < len(data) else np.uint8(32)
            inside = is_letter(byte) and not escape  # JSON's line breaks part words
            escape = byte == 92 and not escape
            if inside:
                value = fnv32(value, lower(byte))
                length += 1
            elif length > 0:
                if before != 0:
                    key = pair(before, value)
                    slot = np.int64(key) & (len(keys) - 1)
                    while keys[slot] != 0 and keys[slot] != key:
                        slot = (slot + 1) & (len(keys) - 1)
                    keys[slot] = key
                    kinds[slot] |= of_text[text]
                before, value, length = value, FNV32, 0
        start = ends[text]
