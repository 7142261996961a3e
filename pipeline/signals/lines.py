"""Statistics of lines and paragraphs: Gopher's, C4's and FineWeb's, each with the reference's idea of a line.

Gopher's repetition splits at runs of newlines, its quality rules and C4 at every line break that str.splitlines
knows, FineWeb at newlines and ignores blank lines. Repeated lines and paragraphs are found by 64-bit hashes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.signals import characters as c
from pipeline.signals.numbering import number
from pipeline.signals.words import IS_PUNCTUATION, IS_TERMINAL

Array = np.ndarray[Any, Any]

BUILT_ON = {"numbering": "a7fef715", "characters": "31663ff6", "words": "de36fe42"}  # see numbering

COLUMNS = (
    "newlines",
    "duplicate_lines",
    "duplicate_line_characters",
    "repeated_line_characters",
    "punctuated_lines",
    "short_lines",
    "longest_line",
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",
    "bullet_lines",
    "ellipsis_lines",
    "c4_sentences",
    "curly_brackets",
    "lorem_ipsum",
    "c4_terminal_sentences",
    "c4_terminal_curly_brackets",
    "c4_terminal_lorem_ipsum",
    "c4_lines",
)
SHORT_LINE = 30  # characters (FineWeb)
LONGEST_C4_WORD = 1000  # characters (C4)
FEWEST_C4_WORDS = 3  # words a line (C4)
LOREM_IPSUM, JAVASCRIPT, POLICY, CURLY = 1, 2, 4, 8
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
C4_ENDS = ".?!\"'"

_SPACE, _BREAK, _TERMINAL, _NOTICE, _UNSPACED = c.SPACE, c.BREAK, c.TERMINAL, c.NOTICE, c.UNSPACED
_LONGEST_NOTICE = max(map(len, NOTICES))
_PHRASES = np.array([[ord(x) for x in phrase.ljust(_LONGEST_NOTICE, "\0")] for phrase in NOTICES], np.uint32)
_MEANINGS = np.array(list(NOTICES.values()), np.int64)
_SECONDS = np.zeros(32, np.uint32)  # the second letter of a notice by its first one's place in the alphabet
for _phrase in NOTICES:
    _SECONDS[ord(_phrase[0]) & 31] = ord(_phrase[1])
_ENDS = np.array([ord(sign) for sign in C4_ENDS], np.uint32)
_NEWLINE, _RETURN, _DOT, _ELLIPSIS, _CURLY, _BULLET, _DASH = 10, 13, ord("."), 0x2026, ord("{"), 0x2022, ord("-")
_SEED = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0x100000001B3)


def measure(points: Array, ends: Array, tokens: tuple[Array, Array, Array, Array, Array]) -> Array:
    """float64 (documents, len(COLUMNS)); shares are of lines, paragraphs or characters, the rest are counts."""
    starts, kinds, token_ends = tokens[0], tokens[2], tokens[4]
    out = np.zeros((len(ends), len(COLUMNS)))
    _measure(points, ends, c.character_table(), starts, kinds, token_ends, _PHRASES, _MEANINGS, _SECONDS, _ENDS, out)
    return out


@njit(cache=True, inline="always")
def _bits(point: np.uint32, table: Array) -> int:
    return int(table[point])


@njit(cache=True)
def _ends_in_ellipsis(points: Array, low: int, high: int) -> bool:
    if high > low and points[high - 1] == _ELLIPSIS:
        return True
    return bool(_ends_in_dots(points, low, high))


@njit(cache=True)
def _ends_in_dots(points: Array, low: int, high: int) -> bool:
    return bool(high - low > 2 and points[high - 1] == points[high - 2] == points[high - 3] == _DOT)


@njit(cache=True)
def _notice(points: Array, at: int, high: int, phrases: Array, meanings: Array) -> int:
    """What begins at `at`: LOREM_IPSUM, JAVASCRIPT, POLICY or 0."""
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
            return int(meanings[k])
    return 0


@njit(cache=True)
def _repeated(keys: Array, sizes: Array, blanks: Array) -> tuple[int, int, int]:
    """(parts seen before, their characters, the characters of those of them that are not blank)."""
    ids, counts = np.empty(keys.size, np.int32), np.empty(keys.size, np.int32)
    number(keys, ids, counts)
    seen, characters, filled_characters = 0, 0, 0
    for i in range(keys.size):
        if ids[i] == seen:
            seen += 1
        else:
            characters += sizes[i]
            filled_characters += 0 if blanks[i] else sizes[i]
    return keys.size - seen, characters, filled_characters


@njit(cache=True)
def _scan(
    points: Array, low: int, high: int, table: Array, every_break: bool, phrases: Array, meanings: Array,
    seconds: Array, keys: Array, begins: Array, sizes: Array, blanks: Array, marks: Array,
) -> tuple[int, bool]:  # fmt: skip
    """Write the lines between newlines, or between all breaks: hash, begin, size, whether blank, notices and `{` in it.

    Returns their number (an empty last one counted), and whether there are breaks other than newlines.
    """
    n, begin, value, every, some, mark = 0, low, _SEED, _SPACE, 0, 0
    i = low
    while i < high:
        point = points[i]
        bits = _bits(point, table)
        if point == _NEWLINE or (every_break and bits & _BREAK):
            keys[n], begins[n], sizes[n], blanks[n], marks[n] = value, begin, i - begin, every & _SPACE > 0, mark
            n += 1
            if every_break and point == _RETURN and i + 1 < high and points[i + 1] == _NEWLINE:
                i += 1
            begin, value, every, mark = i + 1, _SEED, _SPACE, 0
        else:
            value = (value ^ np.uint64(point)) * _PRIME
            every &= bits
            some |= bits
            if point == _CURLY:
                mark |= CURLY
            following = points[i + 1] if i + 1 < high else point
            # One branch that is seldom taken, not two of which the first often is.
            if (bits & _NOTICE > 0) & (following | 32 == seconds[point & 31]):
                mark |= _notice(points, i, high, phrases, meanings)
        i += 1
    keys[n], begins[n], sizes[n], blanks[n], marks[n] = value, begin, high - begin, every & _SPACE > 0, mark
    return n + 1, some & _BREAK > 0


@njit(cache=True)
def _newline_lines(
    points: Array, low: int, high: int, table: Array, n: int, keys: Array, begins: Array, sizes: Array, blanks: Array,
    row: Array,
) -> None:  # fmt: skip
    """Lines between newlines: repetition, FineWeb's shares, the longest."""
    punctuated, short, longest, empty, visible = 0, 0, 0, 0, 0
    for k in range(n):
        longest = max(longest, sizes[k])
        empty += sizes[k] == 0
        if not blanks[k]:
            visible += 1
            punctuated += _bits(points[begins[k] + sizes[k] - 1], table) & _TERMINAL > 0
            short += sizes[k] <= SHORT_LINE
    repeated, characters, filled_characters = _repeated(keys[:n], sizes[:n], blanks[:n])
    # Gopher's split at runs of newlines leaves an empty line only at either end that has one.
    edges = 0
    if high > low:
        edges = int(points[low] == _NEWLINE) + int(points[high - 1] == _NEWLINE)
    repeated -= max(empty - 1, 0)
    row[0] = n - 1
    row[1] = (repeated + (edges == 2)) / max(n - empty + edges, 1)
    row[2] = characters / max(high - low, 1)
    row[3] = filled_characters / max(high - low - (n - 1), 1)
    row[4] = punctuated / max(visible, 1)
    row[5] = short / max(visible, 1)
    row[6] = longest


@njit(cache=True)
def _paragraphs(
    points: Array, low: int, high: int, table: Array, keys: Array, begins: Array, sizes: Array, n: int, row: Array
) -> None:
    """Parts between two or more newlines, white space at the text's ends left out: runs of lines that are not empty."""
    size = high - low
    while low < high and _bits(points[low], table) & _SPACE:
        low += 1
    while high > low and _bits(points[high - 1], table) & _SPACE:
        high -= 1
    parts, characters = np.empty(n, np.uint64), np.empty(n, np.int64)
    count, begin, end, value = 0, low, low, _SEED
    for k in range(n):
        first, last = max(begins[k], low), min(begins[k] + sizes[k], high)
        if last > first:
            key = keys[k]
            if last - first < sizes[k]:  # cut at the text's end
                key = _SEED
                for i in range(first, last):
                    key = (key ^ np.uint64(points[i])) * _PRIME
            begin = first if value == _SEED else begin
            value = (value ^ key) * _PRIME
            end = last
        elif value != _SEED:
            parts[count], characters[count] = value, end - begin
            count, value = count + 1, _SEED
    if value != _SEED:
        parts[count], characters[count] = value, end - begin
        count += 1
    repeated, repeated_characters, _ = _repeated(parts[:count], characters[:count], characters[:count] < 0)
    row[7] = repeated / max(count, 1)
    row[8] = repeated_characters / max(size, 1)


@njit(cache=True)
def _sentences(kinds: Array, first: int, last: int) -> int:
    """Sentences of a line's tokens: one begins with the first token that is no sign after a terminal one."""
    count, ended = 1, False
    for i in range(first, last):
        if ended and not kinds[i] & (IS_PUNCTUATION | IS_TERMINAL):
            count += 1
            ended = False
        elif kinds[i] & IS_TERMINAL:
            ended = True
    return count if last > first else 0


@njit(cache=True)
def _few_or_long_words(points: Array, low: int, high: int, table: Array) -> bool:
    """Whether C4 deletes a line for fewer than three words, or for one of more than 1,000 characters."""
    words, word = 0, 0
    for i in range(low, high):
        bits = _bits(points[i], table)
        if bits & _SPACE:
            word = 0
        elif bits & _UNSPACED:  # such letters are words, here as everywhere
            words, word = words + 1, 0
        else:
            words += word == 0
            word += 1
            if word > LONGEST_C4_WORD:
                return True
        if words == FEWEST_C4_WORDS and high - low <= LONGEST_C4_WORD:
            return False
    return words < FEWEST_C4_WORDS


@njit(cache=True)
def _broken_lines(
    points: Array, table: Array, n: int, begins: Array, sizes: Array, blanks: Array, marks: Array, starts: Array,
    kinds: Array, first: int, last: int, terminals: Array, row: Array,
) -> None:  # fmt: skip
    """Lines between any breaks: Gopher's bullets and ellipses, C4's line and document rules."""
    lines = n - 1 if sizes[n - 1] == 0 else n  # as str.splitlines
    bullets, ellipses, kept, token = 0, 0, 0, first
    for k in range(lines):
        if blanks[k]:
            continue
        begin, end = begins[k], begins[k] + sizes[k]
        while _bits(points[begin], table) & _SPACE:
            begin += 1
        while _bits(points[end - 1], table) & _SPACE:
            end -= 1
        bullets += points[begin] == _BULLET or points[begin] == _DASH
        ellipses += _ends_in_ellipsis(points, begin, end)
        line_token = token
        while token < last and starts[token] < end:
            token += 1
        if _few_or_long_words(points, begin, end, table):
            continue
        terminal = False
        for sign in terminals:
            terminal |= points[end - 1] == sign
        terminal &= not _ends_in_dots(points, begin, end)
        if marks[k] & LOREM_IPSUM:
            row[13] += 1
            row[16] += terminal
        elif marks[k] & JAVASCRIPT:
            continue
        elif marks[k] & CURLY:
            row[12] += 1
            row[15] += terminal
        elif not marks[k] & POLICY:
            sentences = _sentences(kinds, line_token, token)
            kept += 1
            row[11] += sentences
            row[14] += sentences if terminal else 0
    row[9] = bullets / max(lines, 1)
    row[10] = ellipses / max(lines, 1)
    row[17] = kept / max(lines, 1)


@njit(cache=True)
def _measure(
    points: Array, ends: Array, table: Array, starts: Array, kinds: Array, token_ends: Array, phrases: Array,
    meanings: Array, seconds: Array, terminals: Array, out: Array,
) -> None:  # fmt: skip
    low, first = 0, 0
    most = points.size + 1
    keys, begins, sizes = np.empty(most, np.uint64), np.empty(most, np.int32), np.empty(most, np.int32)
    blanks, marks = np.empty(most, np.bool_), np.empty(most, np.uint8)
    for document in range(ends.size):
        high, last, row = ends[document], token_ends[document], out[document]
        n, others = _scan(
            points, low, high, table, False, phrases, meanings, seconds, keys, begins, sizes, blanks, marks
        )
        _newline_lines(points, low, high, table, n, keys, begins, sizes, blanks, row)
        _paragraphs(points, low, high, table, keys, begins, sizes, n, row)
        if others:
            n, others = _scan(
                points, low, high, table, True, phrases, meanings, seconds, keys, begins, sizes, blanks, marks
            )
        _broken_lines(points, table, n, begins, sizes, blanks, marks, starts, kinds, first, last, terminals, row)
        low, first = high, last
