"""MDS shards, the format of mosaicml-streaming, written and read without importing it.

Importing streaming loads torch, torchvision, transformers and the clouds' clients: seconds and a gigabyte a process.
Tests compare bytes with `MDSWriter` and values with `MDSReader`, and `StreamingDataset` opens the folders. Differences:
gzip files carry no time stamp, so the same samples give the same bytes; pickled columns are refused, since reading them
runs code; images stay the bytes that are stored.

A shard is: uint32 number of samples, uint32 offsets (one more than samples), JSON of the columns, samples. A sample
is: uint32 size of each column of no fixed size, then the columns. An array is: a byte for its type, a byte
(dimensions << 2 | log2 of the bytes of a length) with the lengths, the values; type and lengths are left out where the
encoding names them.

A sample of an uncompressed shard is one read of its file (a mapped file that shrinks would end the process); a
compressed shard is unpacked in memory.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from common.files import new_hash

Sample = Mapping[str, np.ndarray[Any, Any]]
# What reading a damaged shard raises.
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, ArithmeticError)
LEVELS = {"zstd": 3, "br": 11, "bz2": 9, "gz": 9, "snappy": 0}  # MDSWriter's default levels
_LENGTHS = (np.uint8, np.uint16, np.uint32, np.uint64)
_TYPES = {
    8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32",
    64: "uint64", 65: "int64", 66: "float64",
}  # fmt: skip


def write_shards(
    folder: Path, samples: Iterable[Sample], columns: Mapping[str, np.dtype[Any]],
    *, compression: str | None = None, hashes: Iterable[str] = (), size_limit: int,
) -> list[Path]:  # fmt: skip
    """Write samples of arrays to `folder`, index.json included. Returns the files.

    columns: element type of each array; size_limit: largest shard in bytes before compression; compression: `zstd`,
    `br`, `bz2`, `gz` (with `:LEVEL`) or `snappy`; hashes: names of hashlib and xxhash.
    """
    shutil.rmtree(folder, ignore_errors=True)  # what a killed task left
    folder.mkdir(parents=True)
    names = sorted(columns)
    config: dict[str, Any] = {
        "version": 2,
        "format": "mds",
        "compression": compression,
        "hashes": list(hashes),
        "size_limit": size_limit,
        "column_names": names,
        "column_encodings": [f"ndarray:{columns[name]}" for name in names],
        "column_sizes": [None] * len(names),
    }
    head = json.dumps(config, sort_keys=True).encode()
    shards: list[dict[str, Any]] = []
    files: list[Path] = []

    def flush() -> None:
        entry, path = _write_shard(folder, len(shards), head, held, config)
        shards.append(config | entry)
        files.append(path)

    held: list[bytes] = []
    size = 8 + len(head)
    for sample in samples:
        encoded = _encode_sample(sample, names, columns)
        if size + len(encoded) + 4 > size_limit and held:
            flush()
            held, size = [], 8 + len(head)
        held.append(encoded)
        size += len(encoded) + 4
    if held:
        flush()
    index = folder / "index.json"
    index.write_text(json.dumps({"version": 2, "shards": shards}, sort_keys=True), "utf-8")
    return [*files, index]


def _write_shard(
    folder: Path, number: int, head: bytes, samples: list[bytes], config: dict[str, Any]
) -> tuple[dict[str, Any], Path]:
    """(entry of index.json without the configuration, file)."""
    offsets = np.cumsum([4 + 4 * (len(samples) + 1) + len(head), *map(len, samples)]).astype(np.uint32)
    raw = b"".join([np.uint32(len(samples)).tobytes(), offsets.tobytes(), head, *samples])
    path = folder / f"shard.{number:05d}.mds"
    entry = {"samples": len(samples), "raw_data": _describe(path, raw, config["hashes"]), "zip_data": None}
    if config["compression"]:
        raw = compress(config["compression"], raw)
        path = path.with_name(f"{path.name}.{config['compression'].partition(':')[0]}")
        entry["zip_data"] = _describe(path, raw, config["hashes"])
    path.write_bytes(raw)
    return entry, path


def _describe(path: Path, data: bytes, hashes: list[str]) -> dict[str, Any]:
    return {"basename": path.name, "bytes": len(data), "hashes": {name: digest(name, data) for name in hashes}}


def digest(algorithm: str, data: bytes) -> str:
    """Hash in hexadecimal digits by the name that index.json gives it. Raises ValueError for an unknown name."""
    state = new_hash(algorithm)
    state.update(data)
    return str(state.hexdigest())


def _encode_sample(sample: Sample, names: list[str], columns: Mapping[str, np.dtype[Any]]) -> bytes:
    parts = [_encode_array(sample[name], columns[name]) for name in names]
    return b"".join([np.array([len(part) for part in parts], np.uint32).tobytes(), *parts])


def _encode_array(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bytes:
    if array.dtype != dtype or not array.size:
        raise ValueError(f"an array of {array.size} {array.dtype}, expected {dtype}, at least one")
    kind = next(k for k in range(4) if max(array.shape) < 1 << (8 << k))
    shape = np.array(array.shape, _LENGTHS[kind]).tobytes()
    return bytes([array.ndim << 2 | kind]) + shape + array.tobytes()


class Shard:
    """The samples of one entry of index.json."""

    def __init__(self, folder: Path, entry: Mapping[str, Any], unpacked: Path | None = None) -> None:
        """unpacked: a file of the shard's bytes without compression, where there is one.

        Raises one of BROKEN where entry or file are not what MDS prescribes.
        """
        self.columns = read_columns(entry)
        self.free = [size for _, size in self.columns.values()].count(None)  # columns of no fixed size
        packed, size = entry["zip_data"], entry["raw_data"]["bytes"]
        if packed and unpacked is None:
            data = decompress(entry["compression"], (folder / packed["basename"]).read_bytes(), size)
            self.read: Callable[[int, int], bytes] = lambda start, end: data[start:end]
            stored = len(data)
        else:
            file = os.open(unpacked or folder / entry["raw_data"]["basename"], os.O_RDONLY)
            weakref.finalize(self, os.close, file)
            self.read = lambda start, end: os.pread(file, end - start, start)
            stored = os.fstat(file).st_size
        if stored != size:
            raise ValueError(f"{stored} bytes, index.json lists {size}")
        count = int.from_bytes(self.read(0, 4), "little")
        if count != entry["samples"]:
            raise ValueError(f"{count} samples, index.json lists {entry['samples']}")
        self.offsets = np.frombuffer(self.read(4, 8 + 4 * count), np.uint32)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Column name to value; arrays are read-only. Raises one of BROKEN."""
        if not 0 <= number < len(self):
            raise IndexError(f"no sample {number} of {len(self)}")
        start, end = self.offsets[number : number + 2].tolist()
        data = memoryview(self.read(start, end))
        if len(data) != end - start:
            raise ValueError(f"the file ends within sample {number}")
        sizes = iter(np.frombuffer(data, np.uint32, self.free).tolist())
        sample, at = {}, 4 * self.free
        for name, (decode, fixed) in self.columns.items():
            size = fixed or next(sizes)
            sample[name] = decode(data[at : at + size])
            at += size
        if at != len(data):
            raise ValueError(f"sample {number} has {len(data)} bytes, but its columns have {at}")
        return sample


Decoder = Callable[[memoryview], Any]


def read_columns(entry: Mapping[str, Any]) -> dict[str, tuple[Decoder, int | None]]:
    """Decoder and fixed size in bytes, if any, of each column of an index.json's entry.

    Raises ValueError, KeyError or TypeError where it is no MDS shard or a column cannot be read.
    """
    if (entry["format"], entry["version"]) != ("mds", 2):
        raise ValueError(f"format {entry['format']!r} of version {entry['version']!r}, expected 'mds' of version 2")
    decoders = [decoder(encoding) for encoding in entry["column_encodings"]]
    sizes = [int(size) if size else None for size in entry["column_sizes"]]
    return dict(zip(entry["column_names"], zip(decoders, sizes, strict=True), strict=True))


@cache
def decoder(encoding: str) -> Decoder:
    """From bytes to the value of a column; images come as their stored bytes. Raises ValueError for other encodings."""
    kind, _, rest = encoding.partition(":")
    if kind == "ndarray":
        dtype, _, shape = rest.partition(":")
        if not dtype or dtype in _TYPES.values():
            lengths = tuple(map(int, shape.split(","))) if shape else None
            return partial(_decode_array, dtype=np.dtype(dtype) if dtype else None, shape=lengths)
    if encoding in _TYPES.values():
        return lambda data: np.frombuffer(data, encoding)[0]
    if encoding == "pkl":
        raise ValueError("a column of encoding 'pkl', an unsafe type: reading it would run code")
    if encoding not in _DECODERS:
        known = ", ".join([*_DECODERS, *_TYPES.values()])
        raise ValueError(f"a column of encoding {encoding!r}; expected ndarray[:TYPE[:SHAPE]], {known}")
    return _DECODERS[encoding]


_DECODERS: dict[str, Decoder] = {
    "str": lambda data: str(data, "utf-8"),
    "int": lambda data: int(np.frombuffer(data, np.int64)[0]),
    "json": lambda data: json.loads(bytes(data)),
    "str_int": lambda data: int(bytes(data)),
    "str_float": lambda data: float(bytes(data)),
    "str_decimal": lambda data: Decimal(str(data, "utf-8")),
} | dict.fromkeys(
    ("bytes", "pil", "jpeg", "png", "list[pil]", "list[jpeg]", "list[png]", "jpeg_array", "jpegarray"), bytes
)


def _decode_array(data: memoryview, dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    at = 0
    if dtype is None:
        dtype, at = np.dtype(_TYPES[data[0]]), 1
    if shape is None:
        axes, length = data[at] >> 2, np.dtype(_LENGTHS[data[at] & 3])
        shape = tuple(np.frombuffer(data, length, axes, at + 1).tolist())
        at += 1 + axes * length.itemsize
    return np.frombuffer(data, dtype, -1, at).reshape(shape)


def compress(compression: str, data: bytes) -> bytes:
    """Compress as MDSWriter does by the same name, with `:LEVEL` or its default level."""
    name, _, level = compression.partition(":")
    return _codec(name)[0](data, int(level or LEVELS[name]))


def decompress(compression: str, data: bytes, size: int) -> bytes:
    """Unpack to `size` bytes. Raises ValueError."""
    try:
        return _codec(compression.partition(":")[0])[1](data, size)
    except Exception as error:  # each library has its own
        raise ValueError(f"{compression}: {error}") from error


Codec = Callable[[bytes, int], bytes]


def _codec(name: str) -> tuple[Codec, Codec]:
    """Functions of (bytes, level) and of (bytes, size unpacked)."""
    if name == "zstd":
        import zstandard

        return (
            lambda data, level: zstandard.ZstdCompressor(level).compress(data),
            lambda data, size: zstandard.ZstdDecompressor().decompress(data, max_output_size=size),
        )
    if name == "br":
        import brotli

        return lambda data, level: brotli.compress(data, quality=level), lambda data, size: brotli.decompress(data)
    if name == "bz2":
        return bz2.compress, lambda data, size: bz2.decompress(data)
    if name == "gz":
        return lambda data, level: gzip.compress(data, level, mtime=0), lambda data, size: gzip.decompress(data)
    if name == "snappy":
        import pyarrow

        return (
            lambda data, level: bytes(pyarrow.compress(data, "snappy", asbytes=True)),
            lambda data, size: bytes(pyarrow.decompress(data, size, "snappy", asbytes=True)),
        )
    raise ValueError(f"a compression {name!r}, expected one of {', '.join(LEVELS)}")
