"""fastText classification: a classifier's file as arrays, and its prediction as a numba kernel.

Reads any supervised model of format 12: dense (.bin; its rows stay in the buffer, which may be a memory map that worker
processes share) or quantized (.ftz, unfolded to float32), with or without pruned n-grams, and any loss. The layout is
that of fastText's sources (fasttext.cc, dictionary.cc, quantmatrix.cc, productquantizer.cc, loss.cc).

`predict` gives the best label of each text, as fastText's `predict` on a text whose line ends are spaces: words between
ASCII white space, each with its character n-grams, the mean of their rows, and the loss's best label (a spelt-out
`</s>`, at which fastText stops reading, is a word like others here). Words repeat, so a word's sum of rows is kept in a
cache, which changes no result. Cost: benchmarks/language.py.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compiled import Array, inner, kernel
from pipeline.kernels.hashing import FNV32, FNV64, PRIME, fnv32

MAGIC, VERSION, SUPERVISED = 793712314, 12, 3
HIERARCHICAL, SOFTMAX = 1, 3  # losses; the others (negative sampling, one-vs-all) score each label by itself
CENTROIDS = 256  # of a quantized part of a row
CACHE_SLOTS = 1 << 14
_EPSILON = 1e-5  # fastText adds it in each logarithm
_END = b"</s>"
_LABEL = np.frombuffer(b"__label__", np.uint8)


class Network(NamedTuple):
    """Arrays of a model.

    settings: int64 (shortest n-gram, longest n-gram, words in a word n-gram, buckets, words, loss); rows: float32
    (words + n-grams, dim); outputs: float32 (labels or inner nodes, dim); slots: int32 open-addressing table of word
    numbers (-1 free) by FNV hash; spelling, spelling_ends: the words' bytes; pruned: int32 row behind the words of each
    bucket (-1 none), empty where nothing is pruned; children: int32 (nodes, 2) of the label tree (-1 in a leaf).
    """

    settings: Array
    rows: Array
    outputs: Array
    slots: Array
    spelling: Array
    spelling_ends: Array
    pruned: Array
    children: Array


class Cache(NamedTuple):
    """Words seen, by slot of their hash: hash (0: free), number of rows, sum of rows (float32, dim)."""

    keys: Array
    counts: Array
    sums: Array


class _Reader:
    """Values of a model's file in order."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data, self.at = data, 0

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def array(self, kind: type[np.generic], count: int) -> Array:
        array = np.frombuffer(self.data, kind, count, self.at) if count else np.empty(0, kind)
        self.at += array.nbytes
        return array


def read_network(data: bytes | mmap.mmap) -> tuple[Network, list[str]]:
    """(arrays, labels in the model's order) of a model's file. Raises ValueError where it is no such model."""
    try:
        return _read(_Reader(data))
    except struct.error as error:
        raise ValueError("the file is cut off") from error


def _read(file: _Reader) -> tuple[Network, list[str]]:
    magic, version, *arguments = file.unpack("<2i12id")
    if (magic, version, arguments[7]) != (MAGIC, VERSION, SUPERVISED):
        raise ValueError(f"magic number, version and kind of model are {magic}, {version} and {arguments[7]}, expected"
                         f" {MAGIC}, {VERSION} and {SUPERVISED}")  # fmt: skip
    word_ngrams, loss, _, buckets, shortest, longest = arguments[5:11]
    entries, words, labels, _, prunes = file.unpack("<3i2q")
    names, counts = _read_entries(file, entries)
    pruned = np.zeros(0, np.int32)
    if prunes >= 0:
        pairs = file.array(np.int32, 2 * prunes).reshape(-1, 2)
        pruned = np.full(buckets, -1, np.int32)
        pruned[pairs[:, 0]] = pairs[:, 1]
    (quantized,) = file.unpack("<?")
    rows = _read_quantized(file) if quantized else _read_dense(file)
    outputs = _read_quantized(file) if file.unpack("<?")[0] and quantized else _read_dense(file)
    spelling, ends, slots = _word_table(names[:words])
    settings = np.array([shortest, longest, word_ngrams, buckets, words, loss], np.int64)
    children = _label_tree(counts[words:]) if loss == HIERARCHICAL else np.zeros((0, 2), np.int32)
    network = Network(settings, rows, outputs, slots, spelling, ends, pruned, children)
    return network, [name.decode("utf-8", "replace") for name in names[words : words + labels]]


def _read_entries(file: _Reader, count: int) -> tuple[list[bytes], list[int]]:
    """Names and counts of words and labels (words first): zero-terminated name, int64, int8."""
    names, counts = [], []
    for _ in range(count):
        end = file.data.find(b"\0", file.at)
        if end < 0:
            raise ValueError("the file is cut off")
        names.append(file.data[file.at : end])
        file.at = end + 1
        counts.append(file.unpack("<qb")[0])
    return names, counts


def _read_dense(file: _Reader) -> Array:
    height, width = file.unpack("<2q")
    return file.array(np.float32, height * width).reshape(height, width)


def _read_quantized(file: _Reader) -> Array:
    """Rows of a product-quantized matrix: for each part of a row the centroid that its code names, times the norm."""
    normed, height, width, size = file.unpack("<?2qi")
    rows = _unfold(file, file.array(np.uint8, size).reshape(height, -1), width)
    if normed:
        rows *= _unfold(file, file.array(np.uint8, height).reshape(height, 1), 1)
    return rows


def _unfold(file: _Reader, codes: Array, width: int) -> Array:
    dim, parts, part, _ = file.unpack("<4i")
    if (dim, parts) != (width, codes.shape[1]):
        raise ValueError(f"a quantizer of {dim} columns in {parts} parts for {width} in {codes.shape[1]}")
    centroids = file.array(np.float32, dim * CENTROIDS)
    rows = np.empty((len(codes), width), np.float32)
    for number in range(parts):
        start, end = number * part, min((number + 1) * part, width)
        table = centroids[start * CENTROIDS : end * CENTROIDS].reshape(CENTROIDS, end - start)
        rows[:, start:end] = table[codes[:, number]]
    return rows


def _word_table(words: list[bytes]) -> tuple[Array, Array, Array]:
    """(spelling, ends, slots) of Network."""
    spelling = np.frombuffer(b"".join(words), np.uint8)
    ends = np.cumsum([len(word) for word in words], dtype=np.int64)
    slots = np.full(1 << (2 * len(words)).bit_length(), -1, np.int32)
    _fill_slots(spelling, ends, slots)
    return spelling, ends, slots


def _label_tree(counts: list[int]) -> Array:
    """Huffman tree over labels, most frequent first: node i < len(counts) is the i-th label, the last one the root."""
    size = len(counts)
    weights = counts + [10**15] * (size - 1)
    children = np.full((2 * size - 1, 2), -1, np.int32)
    leaf, inner = size - 1, size
    for node in range(size, 2 * size - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[inner]:
                children[node, side], leaf = leaf, leaf - 1
            else:
                children[node, side], inner = inner, inner + 1
        weights[node] = weights[children[node, 0]] + weights[children[node, 1]]
    return children


def empty_cache(network: Network) -> Cache:
    dim = network.rows.shape[1]
    return Cache(
        np.zeros(CACHE_SLOTS, np.uint64), np.zeros(CACHE_SLOTS, np.int64), np.zeros((CACHE_SLOTS, dim), np.float32)
    )


def predict(network: Network, cache: Cache, texts: list[str], label: int = -1) -> tuple[Array, Array]:
    """(label number, score) of each text: of its best label, or of `label` if that is no -1.

    Label -1 and score 0 where no word or n-gram is known.
    """
    parts = [text.encode("utf-8", "replace") for text in texts]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    labels, scores = np.full(len(parts), -1, np.int64), np.zeros(len(parts), np.float64)
    data = b"".join([*parts, _END])  # each text ends with fastText's sign for a line's end
    _predict(network, cache, np.frombuffer(data, np.uint8), ends, label, labels, scores)
    return labels, scores


@inner
def _hash_byte(value: np.uint32, byte: int) -> Any:
    """A step of fastText's hash: FNV-1a over bytes taken as signed numbers."""
    return fnv32(value, np.int8(byte))


@kernel()
def _fill_slots(spelling: Array, ends: Array, slots: Array) -> None:
    start = 0
    for number in range(len(ends)):
        value = FNV32
        for at in range(start, ends[number]):
            value = _hash_byte(value, spelling[at])
        slot = np.int64(value) & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = number
        start = ends[number]


@inner
def _is_space(byte: int) -> bool:
    """fastText's white space."""
    return byte == 32 or 9 <= byte <= 13 or byte == 0


@inner
def _is_word(text: Array, start: int, end: int, spelling: Array, begin: int, stop: int) -> bool:
    if end - start != stop - begin:
        return False
    for i in range(end - start):  # noqa: SIM110  # a generator would not compile
        if text[start + i] != spelling[begin + i]:
            return False
    return True


@inner
def _find_word(text: Array, start: int, end: int, value: np.uint32, slots: Array, spelling: Array, ends: Array) -> int:
    """Number of a word of the vocabulary, or -1."""
    slot = np.int64(value) & (len(slots) - 1)
    while slots[slot] >= 0:
        number = slots[slot]
        if _is_word(text, start, end, spelling, ends[number - 1] if number > 0 else 0, ends[number]):
            return int(number)
        slot = (slot + 1) & (len(slots) - 1)
    return -1


@inner
def _add_ngrams(
    word: Array, size: int, shortest: int, longest: int, buckets: np.uint32, words: int, pruned: Array, rows: Array,
    total: Array,
) -> int:  # fmt: skip
    """Add the rows of the character n-grams of word[:size]. Returns their number."""
    count = 0
    for first in range(size):
        if word[first] & 0xC0 == 0x80:
            continue
        at = first
        value = FNV32
        length = 0
        while length < longest and at < size:
            value = _hash_byte(value, word[at])
            at += 1
            while at < size and word[at] & 0xC0 == 0x80:
                value = _hash_byte(value, word[at])
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


@inner
def _add_word_ngrams(
    hashes: Array, longest: int, buckets: np.uint64, words: int, pruned: Array, rows: Array, total: Array
) -> int:
    """Add the rows of the n-grams of two words and more. Returns their number."""
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


@kernel()
def _predict(
    network: Network, cache: Cache, text: Array, ends: Array, wanted: int, labels: Array, scores: Array
) -> None:
    # Arrays one by one: numba counts references to every array of a tuple that is passed on.
    settings, rows, _, slots, spelling, spelling_ends, pruned, _ = network
    keys, counts, sums = cache
    shortest, longest, joined, buckets, words, _ = settings
    dim = rows.shape[1]
    total, word = np.zeros(dim, np.float32), np.zeros(dim, np.float32)
    most = len(_END)
    for i in range(len(ends)):
        most = max(most, ends[i] - (ends[i - 1] if i > 0 else 0))
    framed = np.zeros(most + 2, np.uint8)  # a word with room for a byte at each end: n-grams see its borders
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
            value, key, size = FNV32, FNV64, 1
            end = start
            while end < stop and not _is_space(text[end]):
                value = _hash_byte(value, text[end])
                key = (key ^ np.uint64(text[end])) * PRIME
                framed[size] = text[end]
                size += 1
                end += 1
            at = at if last else end
            if size > len(_LABEL) and _is_word(text, start, start + len(_LABEL), _LABEL, 0, len(_LABEL)):
                continue  # fastText takes it for a label
            slot = np.int64((key ^ (key >> np.uint64(32))) & np.uint64(len(keys) - 1))
            if keys[slot] != key:
                number = _find_word(text, start, end, value, slots, spelling, spelling_ends)
                known = int(number >= 0)
                for d in range(dim):
                    word[d] = rows[number, d] if number >= 0 else np.float32(0)
                if not _is_word(text, start, end, text, len(text) - len(_END), len(text)):  # that has no n-grams
                    framed[0], framed[size] = 60, 62  # < >
                    known += _add_ngrams(
                        framed, size + 1, shortest, longest, np.uint32(buckets), words, pruned, rows, word
                    )
                keys[slot], counts[slot] = key, known
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
            labels[i], scores[i] = _best_label(network, total, wanted)


@inner
def _output(network: Network, row: int, mean: Array) -> np.float32:
    value = np.float32(0.0)
    for d in range(len(mean)):
        value += network.outputs[row, d] * mean[d]
    return value


@kernel()
def _best_label(network: Network, mean: Array, wanted: int) -> tuple[int, float]:
    """(label, score): the best one, or `wanted` if that is no -1."""
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
            if log < top and wanted < 0:
                continue
            if network.children[node, 0] < 0:
                if wanted < 0 or node == wanted:
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
    if wanted >= 0:
        best, top = wanted, scores[wanted]
    if network.settings[5] == SOFTMAX:
        top = 1.0 / np.sum(np.exp(scores - top))
    return best, min(top + _EPSILON, 1.0)


@kernel()
def _tabled_sigmoid(value: float) -> float:
    """The sigmoid in 512 steps from -8 to 8, as fastText's table has it."""
    if value < -8 or value > 8:
        return 0.0 if value < 0 else 1.0
    return float(1.0 / (1.0 + np.exp(8 - np.floor((value + 8) * 32) / 32)))
