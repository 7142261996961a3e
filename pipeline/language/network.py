"""A fastText classifier's file as arrays that a numba kernel can read.

Any supervised model of format 12: dense (.bin, mapped into memory, so that worker processes share one copy) or
quantized (.ftz, unfolded to float32), with or without pruned n-grams, and any loss. The layout is that of fastText's
sources (fasttext.cc, dictionary.cc, quantmatrix.cc, productquantizer.cc, loss.cc).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numba import njit

from pipeline.errors import PipelineError

Array = np.ndarray[Any, Any]
MAGIC, VERSION, SUPERVISED = 793712314, 12, 3
HIERARCHICAL, SOFTMAX = 1, 3  # losses; the others (negative sampling, one-vs-all) score each label by itself
CENTROIDS = 256  # of a quantized part of a row
LABEL = b"__label__"


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


def read_network(path: Path) -> tuple[Network, list[str]]:
    """(arrays, labels in the model's order). Raises PipelineError where the file is no such model."""
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except (struct.error, ValueError, EOFError) as error:
        raise PipelineError(f"{path}: no fastText classifier that can be read ({error})") from error


def _read(file: IO[bytes], path: Path) -> tuple[Network, list[str]]:
    magic, version, *arguments = struct.unpack("<2i12id", file.read(64))
    if (magic, version, arguments[7]) != (MAGIC, VERSION, SUPERVISED):
        raise ValueError(f"magic number, version and kind of model are {magic}, {version} and {arguments[7]}, expected"
                         f" {MAGIC}, {VERSION} and {SUPERVISED}")  # fmt: skip
    word_ngrams, loss, _, buckets, shortest, longest = arguments[5:11]
    entries, words, labels, _, prunes = struct.unpack("<3i2q", file.read(28))
    names, counts = _read_entries(file, entries)
    pruned = np.zeros(0, np.int32)
    if prunes >= 0:
        pairs = np.frombuffer(file.read(8 * prunes), np.int32).reshape(-1, 2)
        pruned = np.full(buckets, -1, np.int32)
        pruned[pairs[:, 0]] = pairs[:, 1]
    quantized = file.read(1) == b"\1"
    rows = _read_quantized(file) if quantized else _read_dense(file, path)
    outputs = _read_quantized(file) if file.read(1) == b"\1" and quantized else _read_dense(file, path)
    spelling, ends, slots = _word_table(names[:words])
    settings = np.array([shortest, longest, word_ngrams, buckets, words, loss], np.int64)
    children = _label_tree(counts[words:]) if loss == HIERARCHICAL else np.zeros((0, 2), np.int32)
    network = Network(settings, rows, outputs, slots, spelling, ends, pruned, children)
    return network, [name.decode("utf-8", "replace") for name in names[words : words + labels]]


def _read_entries(file: IO[bytes], count: int) -> tuple[list[bytes], list[int]]:
    """Names and counts of words and labels (words first): zero-terminated name, int64, int8."""
    start = file.tell()
    data = file.read(64 * count)
    names, counts, at = [], [], 0
    for _ in range(count):
        while (end := data.find(b"\0", at)) < 0 or end + 10 > len(data):
            more = file.read(1 << 20)
            if not more:
                raise EOFError("the dictionary is cut off")
            data += more
        names.append(data[at:end])
        counts.append(int.from_bytes(data[end + 1 : end + 9], "little", signed=True))
        at = end + 10
    file.seek(start + at)
    return names, counts


def _read_dense(file: IO[bytes], path: Path) -> Array:
    height, width = struct.unpack("<2q", file.read(16))
    rows = np.memmap(path, np.float32, "r", file.tell(), (height, width))
    file.seek(rows.nbytes, 1)
    return np.asarray(rows)


def _read_quantized(file: IO[bytes]) -> Array:
    """Rows of a product-quantized matrix: for each part of a row the centroid that its code names, times the norm."""
    normed, height, width, size = struct.unpack("<?2qi", file.read(21))
    codes = np.frombuffer(file.read(size), np.uint8).reshape(height, -1)
    rows = _unfold(file, codes, width)
    if normed:
        rows *= _unfold(file, np.frombuffer(file.read(height), np.uint8).reshape(height, 1), 1)
    return rows


def _unfold(file: IO[bytes], codes: Array, width: int) -> Array:
    dim, parts, part, _ = struct.unpack("<4i", file.read(16))
    if (dim, parts) != (width, codes.shape[1]):
        raise ValueError(f"a quantizer of {dim} columns in {parts} parts for {width} in {codes.shape[1]}")
    centroids = np.frombuffer(file.read(4 * dim * CENTROIDS), np.float32)
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


@njit(cache=True)
def hash_byte(value: np.uint32, byte: int) -> np.uint32:
    """A step of fastText's hash: 32-bit FNV-1a over bytes taken as signed numbers."""
    return np.uint32((value ^ np.uint32(np.int8(byte))) * np.uint32(16777619))


@njit(cache=True)
def _fill_slots(spelling: Array, ends: Array, slots: Array) -> None:
    start = 0
    for number in range(len(ends)):
        value = np.uint32(2166136261)
        for at in range(start, ends[number]):
            value = hash_byte(value, spelling[at])
        slot = np.int64(value) & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = number
        start = ends[number]


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
