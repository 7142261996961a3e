"""MDS shards, the format of mosaicml-streaming, written and read without it.

Importing streaming takes torch, torchvision, transformers and the clouds' clients along: seconds and a gigabyte for
each process. What a shard of arrays needs of it is this page. A test compares every byte with what `MDSWriter` writes,
and `StreamingDataset` reads the folders. One difference: gzip files carry no time stamp, to be the same each time.

A shard is: uint32 number of samples, uint32 offsets (one more), JSON of the columns, samples. A sample is: uint32
size of each column, then the columns by name, each a byte (dimensions << 2 | log2 of the bytes of a length), the
lengths and the values.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pyarrow as pa
import xxhash
import zstandard

Sample = Mapping[str, np.ndarray[Any, Any]]
# What reading a damaged shard raises.
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zlib.error, zstandard.ZstdError, brotli.error)
_EXTENSIONS = {"zstd": 3, "br": 11, "bz2": 9, "gz": 9, "snappy": 0}  # with MDSWriter's default levels
_LENGTHS = (np.uint8, np.uint16, np.uint32, np.uint64)


def write_shards(
    folder: Path,
    samples: Iterable[Sample],
    columns: Mapping[str, np.dtype[Any]],
    *,
    compression: str | None = None,
    hashes: Iterable[str] = (),
    size_limit: int,
) -> list[Path]:
    """Write samples to `folder`, index.json included. Returns the files.

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
    """The samples of one entry of index.json, unpacked in memory."""

    def __init__(self, folder: Path, entry: dict[str, Any]) -> None:
        """Raises one of BROKEN where entry or file are not what MDS prescribes."""
        self.dtypes = dict(zip(entry["column_names"], map(_dtype, entry["column_encodings"]), strict=True))
        packed = entry["zip_data"]
        self.data = (folder / (packed or entry["raw_data"])["basename"]).read_bytes()
        if packed:
            self.data = decompress(entry["compression"], self.data, entry["raw_data"]["bytes"])
        if len(self.data) != entry["raw_data"]["bytes"]:
            raise ValueError(f"{len(self.data)} bytes, index.json lists {entry['raw_data']['bytes']}")
        count = int(np.frombuffer(self.data, np.uint32, 1)[0])
        if count != entry["samples"]:
            raise ValueError(f"{count} samples, index.json lists {entry['samples']}")
        self.offsets = np.frombuffer(self.data, np.uint32, count + 1, 4).tolist()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> dict[str, np.ndarray[Any, Any]]:
        """Column name to array, read-only. Raises one of BROKEN."""
        if not 0 <= number < len(self):
            raise IndexError(f"no sample {number} of {len(self)}")
        start, end = self.offsets[number : number + 2]
        sizes = np.frombuffer(self.data, np.uint32, len(self.dtypes), start).tolist()
        at = start + 4 * len(sizes)
        if at + sum(sizes) != end:
            raise ValueError(f"sample {number} has {end - at} bytes of columns, which list {sum(sizes)}")
        sample = {}
        for (name, dtype), size in zip(self.dtypes.items(), sizes, strict=True):
            sample[name] = _decode_array(self.data[at : at + size], dtype)
            at += size
        return sample


def _decode_array(data: bytes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    axes, kind = data[0] >> 2, _LENGTHS[data[0] & 3]
    shape = np.frombuffer(data, kind, axes, 1).tolist()
    return np.frombuffer(data, dtype, -1, 1 + axes * np.dtype(kind).itemsize).reshape(shape)


def _dtype(encoding: str) -> np.dtype[Any]:
    kind, _, name = encoding.partition(":")
    if kind != "ndarray" or not name or ":" in name:
        raise ValueError(f"a column of encoding {encoding!r}, expected ndarray:TYPE")
    return np.dtype(name)


def compress(compression: str, data: bytes) -> bytes:
    """Compress as MDSWriter does by the same name."""
    name, _, given = compression.partition(":")
    level = int(given) if given else _EXTENSIONS[name]
    if name == "zstd":
        return zstandard.ZstdCompressor(level).compress(data)
    if name == "br":
        return bytes(brotli.compress(data, quality=level))
    if name == "bz2":
        return bz2.compress(data, level)
    if name == "gz":
        return gzip.compress(data, level, mtime=0)
    return bytes(pa.compress(data, "snappy", asbytes=True))


def decompress(compression: str, data: bytes, size: int) -> bytes:
    """Unpack to `size` bytes. Raises one of BROKEN."""
    name = compression.partition(":")[0]
    if name == "zstd":
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    if name == "br":
        return bytes(brotli.decompress(data))
    if name == "bz2":
        return bz2.decompress(data)
    if name == "gz":
        return gzip.decompress(data)
    if name == "snappy":
        return bytes(pa.decompress(data, size, "snappy", asbytes=True))
    raise ValueError(f"a compression {compression!r}, expected one of {', '.join(_EXTENSIONS)}")


def digest(algorithm: str, data: bytes) -> str:
    """Hash in hexadecimal by the name that index.json gives it. Raises ValueError for an unknown name."""
    if algorithm in xxhash.algorithms_available:
        return str(getattr(xxhash, algorithm)(data).hexdigest())
    return hashlib.new(algorithm, data).hexdigest()
