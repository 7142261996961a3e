"""Random access to one MDS data set: sample number to arrays, from shard files that were checked.

`streaming`'s own reader decodes the samples; what it leaves out is added here. A shard file is hashed when it is
first touched (against docs/format.md's manifest, else against the hashes that its writer put into index.json),
and a compressed one is decompressed once into a cache folder, under a name made of both hashes, so that a later
run neither trusts nor repeats that work. Costs: one pass over each file per run and process, then
one open and two reads a sample.
"""

from __future__ import annotations

import bisect
import json
import os
import zlib
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import xxhash
import zstd  # type: ignore[import-untyped]
from streaming.base.compression import decompress
from streaming.base.format import reader_from_json
from streaming.base.format.mds.reader import MDSReader
from streaming.base.hashing import get_hash, is_hash

from trainer.errors import TrainerError
from trainer.files import sync, xxh3

Array = np.ndarray[Any, np.dtype[Any]]
BROKEN_STREAM = (OSError, EOFError, ValueError, zlib.error, zstd.Error, brotli.error)


class MdsDataset:
    """The samples of one folder with an index.json.

    Raises TrainerError, naming the file, where the index is missing or malformed, a column is missing or would
    run code, a shard is missing or not what its hash says, or there are no samples.
    """

    def __init__(self, folder: Path, cache: Path, hashes: Mapping[str, str]) -> None:
        """`hashes`: XXH3-128 by file path relative to `folder`, for the files that have one; `cache`: a folder."""
        self.folder, self.cache, self.hashes = folder, cache, hashes
        self.shards = [self._shard(number, entry) for number, entry in enumerate(read_index(folder))]
        self.ends = list(accumulate(len(shard) for shard in self.shards))
        if not self.ends or not self.ends[-1]:
            raise TrainerError(f"{folder}: the data set has no samples; nothing can be trained on it")
        self.opened: set[int] = set()

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard, in order."""
        return [len(shard) for shard in self.shards]

    @property
    def columns(self) -> dict[str, str]:
        """Column name to MDS encoding."""
        first = self.shards[0]
        return dict(zip(first.column_names, first.column_encodings, strict=True))

    def sample(self, index: int) -> dict[str, Any]:
        """Sample `index`, 0 <= index < len(self): column name to value; arrays are read-only."""
        number = bisect.bisect_right(self.ends, index)
        shard = self.shards[number]
        if number not in self.opened:
            self._open(shard)
            self.opened.add(number)
        sample: dict[str, Any] = shard.get_item(index - self.ends[number] + len(shard))
        return sample

    def _shard(self, number: int, entry: dict[str, Any]) -> MDSReader:
        place = f"{self.folder / 'index.json'}: shard {number}"
        try:
            shard = reader_from_json(str(self.folder), None, entry)
            shard.validate(allow_unsafe_types=False)
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise TrainerError(f"{place} cannot be read as MDS: {error!r}") from None
        if not isinstance(shard, MDSReader):
            raise TrainerError(f"{place} has format {entry.get('format')!r}; only MDS shards can be trained on")
        if "tokens" not in shard.column_names:
            raise TrainerError(
                f"{place} has columns {', '.join(shard.column_names)}; a `tokens` column of token ids is needed"
            )
        stored = shard.zip_data or shard.raw_data
        path = self.folder / stored.basename
        size = path.stat().st_size if path.is_file() else None
        if size != stored.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise TrainerError(
                f"{path} {found}, but index.json lists it with {stored.bytes} bytes; copy or build the shards again"
            )
        return shard

    def _open(self, shard: MDSReader) -> None:
        """Check the shard's file and leave the reader pointing at uncompressed bytes."""
        if shard.zip_data is None:
            self._verify(shard.raw_data.basename, shard.raw_data.hashes)
            return
        stored = self.folder / shard.zip_data.basename
        digest = self.hashes.get(shard.zip_data.basename) or xxh3(stored)
        raw = self._cached(digest) or self._decompress(shard, digest)
        shard.dirname, shard.raw_data.basename = str(raw.parent), raw.name

    def _cached(self, digest: str) -> Path | None:
        """The decompressed shard from an earlier run, if its bytes are still what its name says."""
        for path in sorted(self.cache.glob(f"{digest}-*.mds")):
            if xxh3(path) == path.stem.partition("-")[2]:
                return path
            path.unlink()
        return None

    def _decompress(self, shard: MDSReader, digest: str) -> Path:
        self._verify(shard.zip_data.basename, shard.zip_data.hashes)
        stored = self.folder / shard.zip_data.basename
        try:
            data = decompress(shard.compression, stored.read_bytes())
        except BROKEN_STREAM as error:
            raise TrainerError(f"{stored} cannot be decompressed ({error}); copy or build the shards again") from None
        if len(data) != shard.raw_data.bytes:
            raise TrainerError(
                f"{stored} holds {len(data)} bytes, but index.json lists {shard.raw_data.bytes}; "
                "copy or build the shards again"
            )
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / f"{digest}-{xxhash.xxh3_128_hexdigest(data)}.mds"
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(data)
        sync(partial)
        partial.replace(path)
        return path

    def _verify(self, name: str, written: Mapping[str, str]) -> None:
        """Compare a shard file with its hash from the manifest, else with those its writer left in the index."""
        path = self.folder / name
        if name in self.hashes:
            check_hash(path, self.hashes[name])
            return
        for algorithm, expected in written.items():
            if is_hash(algorithm) and (found := get_hash(algorithm, path.read_bytes())) != expected:
                raise corrupted(path, algorithm, found, expected)


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The shard entries of `folder/index.json`. Raises TrainerError where it is not an MDS index."""
    path = folder / "index.json"
    try:
        index = json.loads(path.read_bytes())
        entries = index["shards"]
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist: {folder} is not an MDS data set") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{path} is not an MDS index ({error!r}); copy or build the shards again") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TrainerError(f"{path} is not an MDS index: `shards` must be a list of objects")
    return entries


def check_hash(path: Path, expected: str) -> None:
    """Raise TrainerError where the file's XXH3-128 is another."""
    if (found := xxh3(path)) != expected:
        raise corrupted(path, "xxh3-128", found, expected)


def corrupted(path: Path, algorithm: str, found: str, expected: str) -> TrainerError:
    """The error for a file whose content changed after it was written."""
    return TrainerError(
        f"{path} is corrupted: its {algorithm} is {found}, but {expected} was recorded when it was written; "
        "copy or build the shards again"
    )
