"""First scan of a batch: its parts (chunks between white space) and its lines, in one pass over the characters.

Four parts in five of a batch have occurred in it before. What depends on a part alone (its tokens, the sentences in
it) is computed once for each different part; later passes go over numbers of parts, not over characters. Equal parts
and lines are those with equal 64-bit hashes.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import PRIME, SEED, first_slot
from pipeline.kernels.signals.lexicon import BREAK, SPACE, character_table

LOREM_IPSUM, JAVASCRIPT, POLICY, CURLY, CITED = 1, 2, 4, 8, 16
NOTICES = {  # a line with one of these is boilerplate (C4), a document with the first a template
    "lorem ipsum": LOREM_IPSUM,
    "javascript": JAVASCRIPT,
    "terms of use": POLICY,
    "privacy policy": POLICY,
    "cookie policy": POLICY,
    "uses cookies": POLICY,
    "use of cookies": POLICY,
    "use cookies": POLICY,
}
# Parts of documents that are not English differ from equal ones that are: their words are cut by other rules.
OTHER = 1 << 15  # in `some`; no property has this bit
FOREIGN = np.uint64(0xD1B54A32D192ED03)  # in `keys`

PREFIX = 7  # letters of a notice that the scan looks for; those of all, and `{`, are bits of one integer
_LONGEST_NOTICE = max(map(len, NOTICES))
_PHRASES = np.array([[ord(x) for x in phrase.ljust(_LONGEST_NOTICE, "\0")] for phrase in NOTICES], np.uint32)
_MEANINGS = np.array(list(NOTICES.values()), np.uint8)
_NEWLINE, _RETURN = 10, 13
_ONE = np.uint64(1)
_OTHERS = np.uint32(127)  # stands for all characters but ASCII's in `positions`
# A citation mark after the end of a sentence: its sign, `[`, what may follow.
_END_BIT, _OPEN_BIT, _CITED_BIT, _CURLY_BIT = (np.uint64(1 << bit) for bit in (60, 61, 62, 63))
_FIRST_SLOTS_SHIFT = 52  # the table of parts begins with 2 ** 12 slots


class Parts(NamedTuple):
    """Parts in order, and the different ones among them in order of their first occurrence.

    starts: int32, where each begins; ids: uint32, which of the different ones it is; firsts, sizes: int32, where a
    different one first occurs and its length in code points; keys: uint64 hash, xor FOREIGN outside English; some,
    every: uint16, properties that some and all of its characters have; ends: int64 (documents,), in parts.
    """

    starts: Array
    ids: Array
    firsts: Array
    sizes: Array
    keys: Array
    some: Array
    every: Array
    ends: Array


class Lines(NamedTuple):
    """What stands between newlines, and rows, what stands between line breaks of any kind (str.splitlines).

    begins, sizes: int32, code points; hashes: uint64; parts: int32, the first part of each or the next one there is;
    ends: int64 (documents,), in lines. An empty last line counts. row_begins, row_parts: int32; marks: uint8, NOTICES,
    `{`, what may be a citation mark in a row; row_ends: int64 (documents,).
    """

    begins: Array
    sizes: Array
    hashes: Array
    parts: Array
    ends: Array
    row_begins: Array
    row_parts: Array
    marks: Array
    row_ends: Array


def scan(points: Array, ends: Array, english: Array) -> tuple[Parts, Lines]:
    """Parts and lines of documents.

    points: uint32 code points of all; ends: int64 (documents,), where each ends; english: bool (documents,).
    """
    most, documents = len(points) // 2 + len(ends), len(ends)
    starts, firsts, sizes = np.empty((3, most), np.int32)
    keys, some, every = np.empty(most, np.uint64), np.empty(most, np.uint16), np.empty(most, np.uint16)
    parts = Parts(starts, np.empty(most, np.uint32), firsts, sizes, keys, some, every, np.empty(documents, np.int64))
    most = len(points) + documents
    breaks, hashes, marks = np.empty((5, most), np.int32), np.empty(most, np.uint64), np.empty(most, np.uint8)
    lines = Lines(
        breaks[0], breaks[1], hashes, breaks[2], np.empty(documents, np.int64),
        breaks[3], breaks[4], marks, np.empty(documents, np.int64),
    )  # fmt: skip
    slots = np.empty(max(4 * len(points), 1 << 64 - _FIRST_SLOTS_SHIFT), np.uint32)
    tables = character_table(), *_notice_table(), _PHRASES, _MEANINGS
    different = _scan(points, ends, english, *tables, slots, parts, lines)
    part, line, row = (int(last[-1]) if documents else 0 for last in (parts.ends, lines.ends, lines.row_ends))
    return (
        Parts._make([*(x[:part] for x in parts[:2]), *(x[:different] for x in parts[2:7]), parts.ends]),
        Lines._make([*(x[:line] for x in lines[:4]), lines.ends, *(x[:row] for x in lines[5:8]), lines.row_ends]),
    )


@cache
def _notice_table() -> tuple[Array, np.uint64, np.uint64]:
    """The Shift-And automaton (Baeza-Yates and Gonnet 1992) that looks for all notices' beginnings at once.

    uint64 (128,): for each ASCII character the positions in the beginnings at which it occurs, as bits; masks of the
    first and of the last positions. All other characters share the last entry.
    """
    positions, firsts, lasts, bit = np.zeros(128, np.uint64), 0, 0, 0
    for phrase in NOTICES:
        firsts |= 1 << bit
        for letter in phrase[: PREFIX + (phrase[PREFIX - 1] == " ")]:  # a part ends it, not white space
            for character in {letter, letter.upper()}:
                positions[ord(character)] |= np.uint64(1 << bit)
            bit += 1
        lasts |= 1 << bit - 1
    others = (("{", _CURLY_BIT), ("[", _OPEN_BIT), ("0123456789]ec", _CITED_BIT), (".?!\"')]\x7f", _END_BIT))
    for members, position_bit in others:
        positions[[ord(character) for character in members]] |= position_bit
    return positions, np.uint64(firsts) | _CURLY_BIT | _END_BIT, np.uint64(lasts)


@inner
def _notices(points: Array, low: int, high: int, phrases: Array, meanings: Array) -> int:
    """Which notices stand between `low` and `high`."""
    found = 0
    for at in range(low, high):
        for k in range(phrases.shape[0]):
            size = 0
            while size < phrases.shape[1] and phrases[k, size] and at + size < high:
                point = points[at + size]
                if 65 <= point <= 90:
                    point += np.uint32(32)
                if point != phrases[k, size]:
                    break
                size += 1
            if size == phrases.shape[1] or phrases[k, size] == 0:
                found |= meanings[k]
    return found


@inner
def _grown(keys: Array, different: int, shift: np.uint64, slots: Array) -> np.uint64:
    """Twice the slots; returns their shift."""
    shift -= _ONE
    mask = (_ONE << (np.uint64(64) - shift)) - _ONE
    slots[: np.int64(mask) + 1] = 0
    for k in range(different):
        slot = first_slot(keys[k], shift)
        while slots[slot] != 0:
            slot = (slot + _ONE) & mask
        slots[slot] = k + 1
    return shift


@kernel(**UNCOUNTED, error_model="numpy")
def _scan(
    points: Array, ends: Array, english: Array, table: Array, positions: Array, firsts: np.uint64, lasts: np.uint64,
    phrases: Array, meanings: Array, slots: Array, parts: Parts, lines: Lines,
) -> int:  # fmt: skip
    part, different, line, row, i = 0, 0, 0, 0, np.uint64(0)  # see `number`
    shift, mask = np.uint64(_FIRST_SLOTS_SHIFT), np.uint64((1 << 64 - _FIRST_SLOTS_SHIFT) - 1)
    slots[: 1 << 64 - _FIRST_SLOTS_SHIFT] = 0
    for document in range(ends.size):
        high = np.uint64(ends[document])
        salt, origin = (np.uint64(0), 0) if english[document] else (FOREIGN, OTHER)
        lines.begins[line], lines.parts[line] = i, part
        lines.row_begins[row], lines.row_parts[row] = i, part
        line_hash, state, hits = SEED, np.uint64(0), np.uint64(0)
        while True:
            point = points[i] if i < high else np.uint32(_NEWLINE)
            bits = int(table[point])
            if bits & SPACE:
                state = (state << _ONE | firsts) & positions[point if point < _OTHERS else _OTHERS] | state & _END_BIT
                newline = point == _NEWLINE
                joined = point == _RETURN and i + _ONE < high and points[i + _ONE] == _NEWLINE
                if newline or (bits & BREAK and not joined):
                    row_begin = lines.row_begins[row]
                    mark = _notices(points, row_begin, np.int64(i), phrases, meanings) if hits & lasts else 0
                    mark |= CURLY if hits & _CURLY_BIT else 0
                    lines.marks[row] = mark | (CITED if hits & _CITED_BIT else 0)
                    hits = np.uint64(0)
                    row += 1
                    if newline:
                        lines.sizes[line], lines.hashes[line] = np.int64(i) - lines.begins[line], line_hash
                        line += 1
                        line_hash = SEED
                        if i == high:
                            break
                        lines.begins[line], lines.parts[line] = i + _ONE, part
                    lines.row_begins[row], lines.row_parts[row] = i + _ONE, part
                if not newline:
                    line_hash = (line_hash ^ np.uint64(point)) * PRIME
                i += _ONE
                continue
            begin, value, some, every = i, SEED, origin, 0xFFFF
            while not bits & SPACE:
                state = (state << _ONE | firsts) & positions[point if point < _OTHERS else _OTHERS]
                hits |= state
                some |= bits
                every &= bits
                value = (value ^ np.uint64(point)) * PRIME
                i += _ONE
                if i == high:
                    break
                point = points[i]
                bits = int(table[point])
            key = value ^ salt
            line_hash = (line_hash ^ key) * PRIME
            slot = first_slot(key, shift)
            while slots[slot] != 0 and parts.keys[slots[slot] - _ONE] != key:
                slot = (slot + _ONE) & mask
            if slots[slot] == 0:
                parts.firsts[different], parts.sizes[different], parts.keys[different] = begin, i - begin, key
                parts.some[different], parts.every[different] = some, every
                different += 1
                slots[slot] = different
                parts.ids[part] = different - 1
                if np.uint64(2 * different) > mask:
                    shift = _grown(parts.keys, different, shift, slots)
                    mask = mask << _ONE | _ONE
            else:
                parts.ids[part] = slots[slot] - _ONE
            parts.starts[part] = begin
            part += 1
        parts.ends[document], lines.ends[document], lines.row_ends[document] = part, line, row
    return different
