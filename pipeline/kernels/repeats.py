"""Winnowed fingerprints of texts, and hashes and comparisons of their spans, for `pipeline.dedup.substrings`.

Winnowing (Schleimer et al. 2003): a window of `length` bytes holds `reach` k-grams; the leftmost of those with the
least hash is its anchor. Equal windows have equal anchors at equal places, so all windows that repeat are found among
anchors of equal hash. On ordinary text one byte in `reach` / 2 is an anchor, in text that repeats with a short period
one in each period. Within a run of one byte only every `length`-th window and the last have one: their bytes are all of
the run. Cost: two multiplications a byte for the rolling hash, and a search for the least every `reach` / 2 bytes.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compiled import Array, inner, item, kernel, word_at
from pipeline.kernels.hashing import PRIME, SEED, splitmix, spread

_BASE = np.uint64(0x2127599BF4325C37)  # odd
_ONE, _29 = np.uint64(1), np.uint64(29)


def reach_of(length: int) -> int:
    """Number of k-grams in a window: a power of two, about half of `length`."""
    return 1 << ((2 * length // 3).bit_length() - 1)


def winnow(data: Array, bounds: Array, length: int) -> tuple[Array, Array, Array, Array]:
    """Anchors of documents in order; one lies at bounds[i] to bounds[i + 1] - 1 of `data`, a byte before the next.

    Returns (hash of the anchor's k-gram, its place in `data`, least and greatest distance from the start of a window of
    this anchor to it): uint64, int64, int32, int32.
    """
    room = len(data)  # pages that are not written take no memory
    out = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)
    longest = int(np.diff(bounds).max(initial=0))
    count = _winnow(data, bounds, length, reach_of(length), np.empty(longest, np.uint64), *out)
    keys, places, least, greatest = (column[:count].copy() for column in out)
    return keys, places, least, greatest


@inner
def _enter(
    at: int, value: np.uint64, place: int, low: int, high: int, keys: Array, places: Array, least: Array,
    greatest: Array,
) -> int:  # fmt: skip
    """Write an anchor. Chosen hashes are small ones: `splitmix` spreads them over all keys."""
    keys[at], places[at], least[at], greatest[at] = splitmix(value), place, low, high
    return at + 1


@kernel()
def _winnow(
    data: Array, bounds: Array, length: int, reach: int, grams: Array, keys: Array, places: Array, least: Array,
    greatest: Array,
) -> int:  # fmt: skip
    size = length - reach + 1  # bytes of a k-gram
    leaving = _ONE
    for _ in range(size):
        leaving *= _BASE
    count = 0
    for document in range(len(bounds) - 1):
        begin = bounds[document]
        last = bounds[document + 1] - 1 - begin - size  # k-gram
        if last < reach - 1:
            continue
        value, best, anchor, first, run = np.uint64(0), 0, 0, 0, 1
        for i in range(size - 1):
            value = value * _BASE + np.uint64(item(data, begin + i)) + _ONE
            run = run + 1 if i and item(data, begin + i) == item(data, begin + i - 1) else 1
        for i in range(last + 1):
            value = value * _BASE + np.uint64(item(data, begin + i + size - 1)) + _ONE
            if i:
                value -= (np.uint64(item(data, begin + i - 1)) + _ONE) * leaving
            grams[i] = spread(value)
            window = i - reach + 1
            before = run  # equal bytes at the end of the last window
            run = run + 1 if item(data, begin + i + size - 1) == item(data, begin + i + size - 2) else 1
            if best < window:
                best = window
                for k in range(window + 1, i + 1):
                    if grams[k] < grams[best]:
                        best = k
            elif grams[i] < grams[best]:
                best = i
            if window <= 0:
                anchor = best
            elif best != anchor:
                low, high = anchor - window + 1, anchor - first
                if low < high or before < length or run == 1 or (before - length) % length == 0:
                    count = _enter(count, grams[anchor], begin + anchor, low, high, keys, places, least, greatest)
                anchor, first = best, window
        low, high = anchor - last + reach - 1, anchor - first
        count = _enter(count, grams[anchor], begin + anchor, low, high, keys, places, least, greatest)
    return count


@kernel()
def copy_spans(data: Array, starts: Array, into: Array, ends: Array, out: Array) -> None:
    """Copy the bytes of `data` from each start on to out[into[i]:ends[i]]."""
    for i in range(len(starts)):
        out[into[i] : ends[i]] = data[starts[i] : starts[i] + ends[i] - into[i]]


@kernel()
def hash_spans(data: Array, starts: Array, ends: Array) -> Array:
    """uint64 (spans,): a hash of each data[starts[i]:ends[i]]."""
    out = np.empty(len(starts), np.uint64)
    for i in range(len(starts)):
        value, at, end = SEED, starts[i], ends[i]
        while at + 8 <= end:
            value = (value ^ word_at(data, at)) * PRIME
            value ^= value >> _29
            at += 8
        while at < end:
            value = (value ^ np.uint64(data[at])) * PRIME
            at += 1
        out[i] = splitmix(value)
    return out


@kernel()
def equal_spans(left: Array, right: Array, bounds: Array) -> Array:
    """bool (spans,): whether left and right are equal from bounds[i] to bounds[i + 1]."""
    out = np.ones(len(bounds) - 1, np.bool_)
    for i in range(len(out)):
        for at in range(bounds[i], bounds[i + 1]):
            if left[at] != right[at]:
                out[i] = False
                break
    return out


@kernel()
def merge_spans(spans: Array) -> Array:
    """Spans (start, end, source) sorted by source - start, then start: those that touch at one distance made one."""
    out = np.empty_like(spans)
    count = 0
    for i in range(len(spans)):
        start, end, source = spans[i]
        if count and out[count - 1, 2] - out[count - 1, 0] == source - start and start <= out[count - 1, 1]:
            out[count - 1, 1] = max(out[count - 1, 1], end)
        else:
            out[count, 0], out[count, 1], out[count, 2] = start, end, source
            count += 1
    return out[:count]
