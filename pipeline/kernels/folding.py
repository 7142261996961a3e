"""Texts with case and white space folded and characters composed, as exact deduplication compares them.

In Python that is `normalize("NFC", " ".join(text.casefold().split()))`, 10 us for a text of 200 words. The kernel does
the same for texts of characters of which it knows that folding and composing leave them as they are, and of ASCII: at
4 GB/s where white space is single. Others are named, for Python to fold.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

from pipeline.kernels.compiled import Array, inner, item, kernel
from pipeline.kernels.hashing import decode

_SIZE = 0x3100  # the table ends with kana; the two ranges above have no case, and compose with nothing but what it bars
_BLOCK = 32  # bytes folded at a time, in vectors if all numbers are of eight bits
_8 = np.uint8
_JAMO = (0x1100, 0x11FF)  # compose by rule


def fold(data: Array, ends: Array) -> list[bytes | memoryview]:
    """Each text of `data` (as Arrow has it: text i is data[ends[i] : ends[i + 1]]) folded, UTF-8."""
    out, bounds = np.empty(int(ends[-1] - ends[0]), np.uint8), np.zeros(len(ends), np.int64)
    plain = np.zeros(len(ends) - 1, bool)
    _fold(data, ends, _stable(), out, bounds, plain)
    joined, limits, starts = out.data, bounds.tolist(), ends.tolist()
    return [
        joined[limits[i] : limits[i + 1]] if known else fold_text(data[starts[i] : starts[i + 1]].tobytes().decode())
        for i, known in enumerate(plain.tolist())
    ]


def fold_text(text: str) -> bytes:
    """The same of one text, in Python."""
    return unicodedata.normalize("NFC", " ".join(text.casefold().split())).encode("utf-8", "replace")


@cache
def _stable() -> Array:
    """bool (_SIZE,): characters that are their own folded and composed form whatever stands beside them."""
    stable, second = np.zeros(_SIZE, bool), set()
    for point in range(0x80, _SIZE):
        text = chr(point)
        parts = unicodedata.decomposition(text)
        if parts and parts[0] != "<":
            second |= {int(part, 16) for part in parts.split()[1:]}
        same = text.casefold() == text == unicodedata.normalize("NFC", text)
        stable[point] = same and not text.isspace() and not unicodedata.combining(text)
    stable[[point for point in second if point < _SIZE]] = False
    stable[_JAMO[0] : _JAMO[1] + 1] = False
    return stable


@inner
def _space(byte: np.uint8) -> bool:
    """ASCII white space, as Python has it."""
    return bool((byte == _8(32)) | (_8(byte - _8(9)) < _8(5)) | (_8(byte - _8(28)) < _8(4)))


@inner
def _small(byte: np.uint8) -> np.uint8:
    """A byte of ASCII folded: a capital as a small letter, white space as a blank."""
    return _8(32) if _space(byte) else _8(byte + (_8(byte - _8(65)) < _8(26)) * _8(32))


@inner
def _alone(data: Array, i: int) -> bool:
    """Whether each byte of the block is ASCII, which is folded by itself: not of white space before white space."""
    other = _8(0)
    for k in range(_BLOCK):
        byte = item(data, i + k)
        space = _space(byte)
        barred = (byte > _8(127)) | ((byte < _8(32)) & (not space)) | (space & _space(item(data, i + k + 1)))
        other = _8(other | _8(barred))
    return not other


@kernel()
def _fold(data: Array, ends: Array, stable: Array, out: Array, bounds: Array, plain: Array) -> None:
    at = np.uint64(0)
    for text in range(plain.size):
        i, end, start, known = ends[text], ends[text + 1], at, True
        while i < end and known:
            stop = i + _BLOCK
            if at > start and stop < end and _alone(data, i):
                for k in range(_BLOCK):
                    out[at + np.uint64(k)] = _small(item(data, i + k))
                at += np.uint64(_BLOCK)
                i = stop
                continue
            while i < min(stop, end) and known:
                byte = item(data, i)
                if byte > 32 and byte < 0x80:
                    out[at] = _small(byte)
                    at += np.uint64(1)
                    i += 1
                elif _space(byte):
                    while i < end and _space(item(data, i)):
                        i += 1
                    if at > start and i < end:
                        out[at] = 32
                        at += np.uint64(1)
                else:
                    point, size = decode(data, i)
                    known = stable[point] if point < _SIZE else 0x4E00 <= point <= 0x9FFF or 0xAC00 <= point <= 0xD7A3
                    for k in range(size):
                        out[at] = item(data, i + k)
                        at += np.uint64(1)
                    i += size
        if not known:
            at = start
        plain[text] = known
        bounds[text + 1] = at
