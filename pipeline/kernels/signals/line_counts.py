"""Statistics of characters, lines and paragraphs.

Characters: shares of digits, punctuation and capitals, counts of symbols. Lines: Gopher's, C4's and FineWeb's, each by
the reference's idea of a line: Gopher's repetition splits at runs of newlines, its quality rules and C4 at every line
break that str.splitlines knows, FineWeb at newlines and ignores blank lines. Repeated lines and paragraphs are those
with equal 64-bit hashes.
"""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import PRIME, SEED, number, slots_for
from pipeline.kernels.signals.chunks import CURLY, JAVASCRIPT, LOREM_IPSUM, POLICY, Lines, Parts
from pipeline.kernels.signals.lexicon import (
    DIGIT,
    LOWER,
    PUNCTUATION,
    SPACE,
    TERMINAL,
    UNSPACED,
    UPPER,
    character_table,
)
from pipeline.kernels.signals.words import BEGINS, ENDS, IS_SIGNS, SENTENCES_SHIFT

CHARACTERS = ("characters", "digit_ratio", "punctuation_ratio", "upper_ratio", "hashes", "ellipses")
_Line = namedtuple(
    "_Line",
    "newlines duplicate_lines duplicate_line_characters repeated_line_characters punctuated_lines short_lines"
    " longest_line duplicate_paragraphs duplicate_paragraph_characters bullet_lines ellipsis_lines c4_sentences"
    " curly_brackets lorem_ipsum c4_terminal_sentences c4_terminal_curly_brackets c4_terminal_lorem_ipsum c4_lines",
)
LINE = _Line(*range(len(_Line._fields)))  # a name's value is its column
LINES = LINE._fields
SHORT_LINE = 30  # characters (FineWeb)
LONGEST_C4_WORD = 1000  # characters (C4)
FEWEST_C4_WORDS = 3  # words a line (C4)
C4_ENDS = ".?!\"'"

_ENDS = np.array([ord(sign) for sign in C4_ENDS], np.uint32)
_NEWLINE, _DOT, _ELLIPSIS, _BULLET, _DASH, _HASH = 10, ord("."), 0x2026, 0x2022, ord("-"), ord("#")
_BITS = 10  # of a counter: six of them are added up at once
_UNTIL_FULL = (1 << _BITS) - 1  # characters


class Scratch(NamedTuple):
    """Room for the lines or paragraphs of a document."""

    keys: Array
    sizes: Array
    ids: Array
    counts: Array
    slots: Array


def measure_characters(points: Array, ends: Array) -> Array:
    """float64 (documents, len(CHARACTERS)); ratios are to visible characters, `hashes` and `ellipses` are counts."""
    counts = np.zeros((len(ends), 6), np.int64)
    _count_characters(points, ends, _counters(), counts)
    characters = np.diff(ends, prepend=0)
    visible = np.maximum(characters - counts[:, 0], 1)
    ratios = [counts[:, k] / visible for k in (1, 2, 3)]
    return np.column_stack([characters, *ratios, counts[:, 4], counts[:, 5]])


@cache
def _counters() -> Array:
    """uint64 (0x110000,): for each code point a one in the counter of each of its properties.

    These are white space, digit, punctuation, capital, `#`, ellipsis: the columns of `_count_characters`.
    """
    bits, point = character_table(), np.arange(0x110000)
    fields = [bits & flag > 0 for flag in (SPACE, DIGIT, PUNCTUATION)]
    fields += [bits & (UPPER | LOWER) == UPPER, point == _HASH, point == _ELLIPSIS]
    counters = np.zeros(0x110000, np.uint64)
    for k, field in enumerate(fields):
        counters |= field.astype(np.uint64) << np.uint64(_BITS * k)
    return counters


def measure_lines(points: Array, ends: Array, parts: Parts, lines: Lines, sentences: Array) -> Array:
    """float64 (documents, len(LINES)); shares are of lines, paragraphs or characters, the rest are counts.

    sentences: int32, of each different part (`words.Tokens`).
    """
    out = np.zeros((len(ends), len(LINES)))
    most = int(np.diff(lines.ends, prepend=0).max(initial=0))
    keys, ids = np.empty(most, np.uint64), np.empty(most, np.uint32)
    scratch = Scratch(keys, np.empty(most, np.int32), ids, np.empty(most, np.int32), slots_for(most))
    _measure_lines(points, ends, character_table(), parts, lines, sentences, _ENDS, scratch, out)
    return out


@inner
def _triple_dots(points: Array) -> int:
    """Three dots in a row, not overlapping."""
    overlapping, count, i = 0, 0, 0
    for k in range(points.size - 2):  # the compiler makes vectors of it, and most texts have none
        overlapping += (points[k] == _DOT) & (points[k + 1] == _DOT) & (points[k + 2] == _DOT)
    while overlapping and i < points.size - 2:
        if points[i] == _DOT and points[i + 1] == _DOT and points[i + 2] == _DOT:
            count += 1
            i += 2
        i += 1
    return count


@kernel(**UNCOUNTED, error_model="numpy")
def _count_characters(points: Array, ends: Array, counters: Array, out: Array) -> None:
    low, mask = 0, np.uint64(_UNTIL_FULL)
    for document in range(ends.size):
        text, row = points[low : ends[document]], out[document]
        low = ends[document]
        for begin in range(0, text.size, _UNTIL_FULL):
            counts = np.uint64(0)
            for point in text[begin : begin + _UNTIL_FULL]:
                counts += counters[point]
            for k in range(row.size):
                row[k] += np.int64(counts >> np.uint64(_BITS * k) & mask)
        row[5] += _triple_dots(text)


@inner
def _ends_in_dots(points: Array, low: int, high: int) -> bool:
    return bool(high - low > 2 and points[high - 1] == points[high - 2] == points[high - 3] == _DOT)


@inner
def _repeated(n: int, keys: Array, sizes: Array, s: Scratch) -> tuple[int, int]:
    """(parts seen before, their characters)."""
    number(keys[:n], s.ids, s.counts, s.slots)
    seen, characters = 0, 0
    for i in range(n):
        new = s.ids[i] == seen
        seen += new
        characters += 0 if new else sizes[i]
    return n - seen, characters


@inner
def _newline_lines(
    points: Array, low: int, high: int, table: Array, first: int, n: int, last_part: int, parts: Parts, lines: Lines,
    s: Scratch, row: Array,
) -> None:  # fmt: skip
    """Lines between newlines: repetition, FineWeb's shares, the longest."""
    punctuated, short, longest, empty, visible = 0, 0, 0, 0, 0
    for k in range(first, first + n):
        size = lines.sizes[k]
        longest = max(longest, size)
        empty += size == 0
        if lines.parts[k] < (lines.parts[k + 1] if k + 1 < first + n else last_part):
            visible += 1
            punctuated += table[points[lines.begins[k] + size - 1]] & TERMINAL > 0
            short += size <= SHORT_LINE
            s.sizes[k - first] = size
        else:
            s.sizes[k - first] = 0
    sizes = lines.sizes[first : first + n]
    repeated, characters = _repeated(n, lines.hashes[first : first + n], sizes, s)
    filled_characters, seen = 0, 0
    for k in range(n):
        new = s.ids[k] == seen
        seen += new
        filled_characters += 0 if new else s.sizes[k]
    # Gopher's split at runs of newlines leaves an empty line only at either end that has one.
    edges = 0
    if high > low:
        edges = int(points[low] == _NEWLINE) + int(points[high - 1] == _NEWLINE)
    repeated -= max(empty - 1, 0)
    row[LINE.newlines] = n - 1
    row[LINE.duplicate_lines] = (repeated + (edges == 2)) / max(n - empty + edges, 1)
    row[LINE.duplicate_line_characters] = characters / max(high - low, 1)
    row[LINE.repeated_line_characters] = filled_characters / max(high - low - (n - 1), 1)
    row[LINE.punctuated_lines] = punctuated / max(visible, 1)
    row[LINE.short_lines] = short / max(visible, 1)
    row[LINE.longest_line] = longest


@inner
def _hash_between(points: Array, begin: int, end: int, part: int, parts: Parts) -> np.uint64:
    """Hash of a stretch of a line whose first part is `part`."""
    value, i = SEED, begin
    while i < end:
        if i == parts.starts[part]:
            value = (value ^ parts.keys[parts.ids[part]]) * PRIME
            i += parts.sizes[parts.ids[part]]
            part += 1
        else:
            value = (value ^ np.uint64(points[i])) * PRIME
            i += 1
    return value


@inner
def _paragraphs(
    points: Array, low: int, high: int, first: int, n: int, parts: Parts, lines: Lines, s: Scratch, row: Array
) -> None:
    """Parts between two or more newlines, white space at the text's ends left out: runs of lines that are not empty.

    low, high: where the text begins and ends without that white space.
    """
    count, begin, end, value = 0, low, low, SEED
    for k in range(first, first + n):
        size = lines.sizes[k]
        left, right = max(lines.begins[k], low), min(lines.begins[k] + size, high)
        if right > left:
            key = lines.hashes[k]
            if right - left < size:  # cut at the text's end
                key = _hash_between(points, left, right, lines.parts[k], parts)
            begin = left if value == SEED else begin
            value = (value ^ key) * PRIME
            end = right
        elif value != SEED:
            s.keys[count], s.sizes[count] = value, end - begin
            count, value = count + 1, SEED
    if value != SEED:
        s.keys[count], s.sizes[count] = value, end - begin
        count += 1
    repeated, characters = _repeated(count, s.keys, s.sizes, s)
    row[LINE.duplicate_paragraphs] = repeated / max(count, 1)
    row[LINE.duplicate_paragraph_characters] = characters


@inner
def _few_or_long_words(points: Array, first: int, last: int, table: Array, parts: Parts) -> bool:
    """Whether C4 deletes a line for fewer than three words, or for one of more than 1,000 characters."""
    words = 0
    for part in range(first, last):
        k = parts.ids[part]
        if not parts.some[k] & UNSPACED and parts.sizes[k] <= LONGEST_C4_WORD:
            words += 1
            continue
        word = 0
        for i in range(parts.starts[part], parts.starts[part] + parts.sizes[k]):
            if table[points[i]] & UNSPACED:  # such letters are words, here as everywhere
                words, word = words + 1, 0
            else:
                words += word == 0
                word += 1
                if word > LONGEST_C4_WORD:
                    return True
    return words < FEWEST_C4_WORDS


@inner
def _sentences(first: int, last: int, parts: Parts, sentences: Array) -> int:
    """Sentences of a line's parts: the first, and those that begin after the end of another."""
    count, ended = 1, 0
    for part in range(first, last):
        bits = sentences[parts.ids[part]]
        count += (bits >> SENTENCES_SHIFT) + int(ended > 0 and bits & BEGINS > 0)
        ended = bits & ENDS | (ended if bits & IS_SIGNS else 0)
    return count


@inner
def _broken_lines(
    points: Array, table: Array, first: int, last: int, last_part: int, high: int, parts: Parts, lines: Lines,
    sentences: Array, terminals: Array, row: Array,
) -> None:  # fmt: skip
    """Lines between any breaks: Gopher's bullets and ellipses, C4's line and document rules."""
    if lines.row_begins[last - 1] == high:  # as str.splitlines
        last -= 1
    bullets, ellipses, kept = 0, 0, 0
    for k in range(first, last):
        part, end_part = lines.row_parts[k], lines.row_parts[k + 1] if k + 1 < last else last_part
        if part == end_part:
            continue
        final = end_part - 1
        begin, end = parts.starts[part], parts.starts[final] + parts.sizes[parts.ids[final]]
        dots = _ends_in_dots(points, begin, end)
        bullets += points[begin] == _BULLET or points[begin] == _DASH
        ellipses += dots or points[end - 1] == _ELLIPSIS
        if _few_or_long_words(points, part, end_part, table, parts):
            continue
        terminal = False
        for sign in terminals:
            terminal |= points[end - 1] == sign
        terminal &= not dots
        mark = lines.marks[k]
        if mark & LOREM_IPSUM:
            row[LINE.lorem_ipsum] += 1
            row[LINE.c4_terminal_lorem_ipsum] += terminal
        elif mark & JAVASCRIPT:
            continue
        elif mark & CURLY:
            row[LINE.curly_brackets] += 1
            row[LINE.c4_terminal_curly_brackets] += terminal
        elif not mark & POLICY:
            count = _sentences(part, end_part, parts, sentences)
            kept += 1
            row[LINE.c4_sentences] += count
            row[LINE.c4_terminal_sentences] += count if terminal else 0
    count = max(last - first, 1)
    row[LINE.bullet_lines], row[LINE.ellipsis_lines] = bullets / count, ellipses / count
    row[LINE.c4_lines] = kept / count


@kernel(**UNCOUNTED, error_model="numpy")
def _measure_lines(
    points: Array, ends: Array, table: Array, parts: Parts, lines: Lines, sentences: Array, terminals: Array,
    s: Scratch, out: Array,
) -> None:  # fmt: skip
    low, part, line, first = 0, 0, 0, 0
    for document in range(ends.size):
        high, row, last_part, n = ends[document], out[document], parts.ends[document], lines.ends[document] - line
        _newline_lines(points, low, high, table, line, n, last_part, parts, lines, s, row)
        if last_part > part:
            begin, final = parts.starts[part], parts.ids[last_part - 1]
            end = parts.starts[last_part - 1] + parts.sizes[final]
            _paragraphs(points, begin, end, line, n, parts, lines, s, row)
            row[LINE.duplicate_paragraph_characters] /= high - low
        last = lines.row_ends[document]
        _broken_lines(points, table, first, last, last_part, high, parts, lines, sentences, terminals, row)
        low, part, line, first = high, last_part, lines.ends[document], last
