"""fastText's prediction as a numba kernel: the best label of each of many texts, and its score.

Does what fastText's `predict` does with a text whose line ends are spaces: words between ASCII white space, each with
its character n-grams, the mean of their rows, and the loss's best label (a spelt-out `</s>`, at which fastText stops
reading, is a word like others here). A word's sum of rows is kept in a cache (words
repeat), and is the same whether it comes from there or not. Costs: benchmarks/language.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from pipeline.language.network import HIERARCHICAL, SOFTMAX, Network, hash_byte

Array = np.ndarray[Any, Any]
CACHE_SLOTS = 1 << 14
_EPSILON = 1e-5  # fastText adds it in each logarithm
_END = b"</s>"
_LABEL = np.frombuffer(b"__label__", np.uint8)


class Cache(NamedTuple):
    """Words seen, by slot of their hash: hash (0: free), number of rows, sum of rows (float32, dim)."""

    keys: Array
    counts: Array
    sums: Array


def empty_cache(network: Network) -> Cache:
    dim = network.rows.shape[1]
    return Cache(
        np.zeros(CACHE_SLOTS, np.uint64), np.zeros(CACHE_SLOTS, np.int64), np.zeros((CACHE_SLOTS, dim), np.float32)
    )


def predict(network: Network, cache: Cache, texts: list[str]) -> tuple[Array, Array]:
    """(label number, score) of each text; label -1 and score 0 where the model knows nothing of the text."""
    parts = [text.encode("utf-8", "replace") for text in texts]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    labels, scores = np.full(len(parts), -1, np.int64), np.zeros(len(parts), np.float64)
    data = b"".join([*parts, _END])  # each text ends with fastText's sign for a line's end
    _predict(network, cache, np.frombuffer(data, np.uint8), ends, labels, scores)
    return labels, scores


@njit(cache=True)
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13 or byte == 0


@njit(cache=True)
def _is_word(text: Array, start: int, end: int, spelling: Array, begin: int, stop: int) -> bool:
    if end - start != stop - begin:
        return False
    for i in range(end - start):  # noqa: SIM110  # a generator would not compile
        if text[start + i] != spelling[begin + i]:
            return False
    return True


@njit(cache=True)
def _find_word(text: Array, start: int, end: int, value: np.uint32, slots: Array, spelling: Array, ends: Array) -> int:
    """Number of a word of the vocabulary, -1 where it is none."""
    slot = np.int64(value) & (len(slots) - 1)
    while slots[slot] >= 0:
        number = slots[slot]
        if _is_word(text, start, end, spelling, ends[number - 1] if number > 0 else 0, ends[number]):
            return int(number)
        slot = (slot + 1) & (len(slots) - 1)
    return -1


@njit(cache=True)
def _add_ngrams(
    room: Array,
    size: int,
    shortest: int,
    longest: int,
    buckets: np.uint32,
    words: int,
    pruned: Array,
    rows: Array,
    total: Array,
) -> int:
    """Add the rows of the character n-grams of the word room[:size]; their number."""
    count = 0
    for first in range(size):
        if room[first] & 0xC0 == 0x80:
            continue
        at = first
        value = np.uint32(2166136261)
        length = 0
        while length < longest and at < size:
            value = hash_byte(value, room[at])
            at += 1
            while at < size and room[at] & 0xC0 == 0x80:
                value = hash_byte(value, room[at])
                at += 1
            length += 1
            if length < shortest or (length == 1 and (first == 0 or at == size)):
                continue
            row = np.int64(value % buckets)
            if len(pruned) > 0:
                row = np.int64(pruned[row])
                if row < 0:
                    continue
            row += words
            for d in range(len(total)):
                total[d] += rows[row, d]
            count += 1
    return count


@njit(cache=True)
def _predict(network: Network, cache: Cache, text: Array, ends: Array, labels: Array, scores: Array) -> None:
    # Arrays by themselves: a function that is handed a tuple of arrays counts references to all of them.
    keys, counts, sums = cache
    rows, slots, spelling, spelling_ends, pruned = (
        network.rows, network.slots, network.spelling, network.spelling_ends, network.pruned
    )  # fmt: skip
    shortest, longest, joined, buckets, words, _ = network.settings
    dim = rows.shape[1]
    total, word = np.zeros(dim, np.float32), np.zeros(dim, np.float32)
    most = len(_END)
    for i in range(len(ends)):
        most = max(most, ends[i] - (ends[i - 1] if i > 0 else 0))
    room = np.zeros(most + 2, np.uint8)
    hashes = np.zeros(most // 2 + 2 if joined > 1 else 0, np.int32)
    at = 0
    for i in range(len(ends)):
        total[:] = 0
        count = tokens = 0
        last = False
        while not last:
            while at < ends[i] and _is_space(text[at]):
                at += 1
            last = at == ends[i]
            start, stop = (len(text) - len(_END), len(text)) if last else (at, ends[i])
            value = np.uint32(2166136261)
            key = np.uint64(14695981039346656037)
            size = 1
            here = start
            while here < stop and not _is_space(text[here]):
                value = hash_byte(value, text[here])
                key = (key ^ np.uint64(text[here])) * np.uint64(1099511628211)
                room[size] = text[here]
                size += 1
                here += 1
            at = at if last else here
            if size > len(_LABEL) and _is_word(text, start, start + len(_LABEL), _LABEL, 0, len(_LABEL)):
                continue  # fastText takes it for a label
            slot = np.int64((key ^ (key >> np.uint64(32))) & np.uint64(len(keys) - 1))
            if keys[slot] != key:
                number = _find_word(text, start, here, value, slots, spelling, spelling_ends)
                word[:] = 0
                found = 0
                if number >= 0:
                    for d in range(dim):
                        word[d] = rows[number, d]
                    found = 1
                if not _is_word(text, start, here, text, len(text) - len(_END), len(text)):  # it has no n-grams
                    room[0], room[size] = 60, 62
                    found += _add_ngrams(
                        room, size + 1, shortest, longest, np.uint32(buckets), words, pruned, rows, word
                    )
                keys[slot], counts[slot] = key, found
                for d in range(dim):
                    sums[slot, d] = word[d]
            count += counts[slot]
            for d in range(dim):
                total[d] += sums[slot, d]
            if joined > 1:
                hashes[tokens] = np.int32(value)
                tokens += 1
        if joined > 1:
            count += _add_word_ngrams(hashes[:tokens], joined, np.uint64(buckets), words, pruned, rows, total)
        if count > 0:
            for d in range(dim):
                total[d] /= np.float32(count)
            labels[i], scores[i] = _best_label(network, total)


@njit(cache=True)
def _add_word_ngrams(
    hashes: Array, longest: int, buckets: np.uint64, words: int, pruned: Array, rows: Array, total: Array
) -> int:
    """Add the rows of the n-grams of two words and more; their number."""
    count = 0
    for first in range(len(hashes)):
        value = np.uint64(np.int64(hashes[first]))
        for other in range(first + 1, min(first + longest, len(hashes))):
            value = value * np.uint64(116049371) + np.uint64(np.int64(hashes[other]))
            row = np.int64(value % buckets)
            if len(pruned) > 0:
                row = np.int64(pruned[row])
                if row < 0:
                    continue
            for d in range(len(total)):
                total[d] += rows[words + row, d]
            count += 1
    return count


@njit(cache=True)
def _output(network: Network, row: int, mean: Array) -> np.float32:
    value = np.float32(0.0)
    for d in range(len(mean)):
        value += network.outputs[row, d] * mean[d]
    return value


@njit(cache=True)
def _best_label(network: Network, mean: Array) -> tuple[int, float]:
    best = 0
    top = -np.inf
    if network.settings[5] == HIERARCHICAL:
        size = len(network.children) // 2 + 1
        nodes, logs = np.zeros(len(network.children), np.int64), np.zeros(len(network.children), np.float64)
        nodes[0] = len(network.children) - 1
        depth = 1
        while depth > 0:
            depth -= 1
            node, log = nodes[depth], logs[depth]
            if log < top:
                continue
            if network.children[node, 0] < 0:
                best, top = node, log
                continue
            right = 1.0 / (1.0 + np.exp(-np.float64(_output(network, node - size, mean))))
            nodes[depth], logs[depth] = network.children[node, 1], log + np.log(right + _EPSILON)
            nodes[depth + 1], logs[depth + 1] = network.children[node, 0], log + np.log(1.0 - right + _EPSILON)
            depth += 2
        return best, min(np.exp(top), 1.0)
    scores = np.zeros(len(network.outputs), np.float64)
    for label in range(len(scores)):
        scores[label] = _output(network, label, mean)
        if network.settings[5] != SOFTMAX:
            scores[label] = _tabled_sigmoid(scores[label])
        if scores[label] >= top:  # of equal ones fastText's heap keeps the last
            best, top = label, scores[label]
    if network.settings[5] == SOFTMAX:
        top = 1.0 / np.sum(np.exp(scores - top))
    return best, min(top + _EPSILON, 1.0)


@njit(cache=True)
def _tabled_sigmoid(value: float) -> float:
    """As fastText has it: 512 steps from -8 to 8."""
    if value < -8 or value > 8:
        return 0.0 if value < 0 else 1.0
    return float(1.0 / (1.0 + np.exp(8 - np.floor((value + 8) * 32) / 32)))
