"""Random access to one MDS data set: sample number to arrays, from shard files that were checked.

`streaming`'s own reader decodes the samples; what it leaves out is added here. A shard file is hashed when it is
first touched (against docs/format.md's manifest, else against the hashes that its writer put into index.json),
and a compressed one is decompressed once into a cache folder, under a name made of both hashes, so that a later
run neither trusts nor repeats that work. Shards of a remote folder are fetched when first touched (trainer.cache).
Costs: one pass over each file per run and process, then one open and two reads a sample.
"""

from __future__ import annotations

import bisect
import json
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import xxhash
import zstd
from streaming.base.compression import decompress
from streaming.base.format import reader_from_json
from streaming.base.format.mds.reader import MDSReader
from streaming.base.hashing import get_hash, is_hash

from common.errors import TrainerError
from common.files import hash_file, sync
from trainer.cache import Cache

Array = np.ndarray[Any, np.dtype[Any]]
BROKEN_STREAM = (OSError, EOFError, ValueError, zlib.error, zstd.Error, brotli.error)


class MdsDataset:
    """The samples of one folder with an index.json.

    Raises TrainerError, naming the file, where the index is missing or malformed, a column is missing or would
    run code, a shard is missing or not what its hash says, or there are no samples.
    """

    def __init__(
        self, folder: Path, unpacked: Path, hashes: Mapping[str, str], cache: Cache | None = None,
        fetch: Callable[[str], Path] | None = None,
    ) -> None:  # fmt: skip
        """hashes: XXH3-128 by file path relative to `folder`, for the files that have one; unpacked: folder for
        decompressed shards. cache bounds what lies there and, where `fetch` brings shards into `folder`, here.
        """
        self.folder, self.unpacked, self.hashes, self.cache, self.fetch = folder, unpacked, hashes, cache, fetch
        self.shards = [self._shard(number, entry) for number, entry in enumerate(read_index(folder))]
        self.ends = list(accumulate(len(shard) for shard in self.shards))
        if not self.ends or not self.ends[-1]:
            raise TrainerError(f"{folder}: the data set has no samples; nothing can be trained on it")
        self.opened: dict[int, Path] = {}
        self._locks = [threading.Lock() for _ in self.shards]

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
        number = self.shard_of(index)
        shard = self.shards[number]
        while True:
            self.open(number)
            try:
                sample: dict[str, Any] = shard.get_item(index - self.ends[number] + len(shard))
            except FileNotFoundError:  # another thread or process made room
                if self.cache is None:
                    raise
                continue
            return sample

    def shard_of(self, index: int) -> int:
        """The number of the shard that holds a sample."""
        return bisect.bisect_right(self.ends, index)

    def open(self, number: int) -> Path:
        """Bring a shard here, check it and unpack it, unless that was done; returns the file that samples come from."""
        with self._locks[number]:
            path = self.opened.get(number)
            if path is None or (self.cache is not None and not path.exists()):
                path = self.opened[number] = self._open(self.shards[number])
                if self.cache is not None and (self.fetch or self.shards[number].zip_data):
                    self.cache.add(path)
            return path

    def shard_bytes(self, number: int) -> int:
        """Size of a shard, unpacked."""
        return int(self.shards[number].raw_data.bytes)

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
        if self.fetch is not None:
            return shard
        stored = shard.zip_data or shard.raw_data
        path = self.folder / stored.basename
        size = path.stat().st_size if path.is_file() else None
        if size != stored.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise TrainerError(
                f"{path} {found}, but index.json lists it with {stored.bytes} bytes; copy or build the shards again"
            )
        return shard

    def _open(self, shard: MDSReader) -> Path:
        """Check the shard's file and leave the reader pointing at uncompressed bytes."""
        if shard.zip_data is None:
            self._verify(shard.raw_data)
            return self.folder / str(shard.raw_data.basename)
        digest = self.hashes.get(shard.zip_data.basename)
        if digest is None:
            self._verify(shard.zip_data)
            digest = hash_file(self.folder / shard.zip_data.basename)
        raw = self._cached(digest) or self._decompress(shard, digest)
        if self.fetch is not None:
            (self.folder / shard.zip_data.basename).unlink(missing_ok=True)
        shard.dirname, shard.raw_data.basename = str(raw.parent), raw.name
        return raw

    def _cached(self, digest: str) -> Path | None:
        """The decompressed shard from an earlier run, if its bytes are still what its name says."""
        for path in sorted(self.unpacked.glob(f"{digest}-*.mds")):
            if hash_file(path) == path.stem.partition("-")[2]:
                return path
            path.unlink()
        return None

    def _decompress(self, shard: MDSReader, digest: str) -> Path:
        self._verify(shard.zip_data)
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
        self.unpacked.mkdir(parents=True, exist_ok=True)
        path = self.unpacked / f"{digest}-{xxhash.xxh3_128_hexdigest(data)}.mds"
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(data)
        sync(partial)
        partial.replace(path)
        return path

    def _verify(self, stored: Any) -> None:
        """Compare a shard file with its hash from the manifest, else with those its writer left in the index.

        A remote one is fetched where it is not here, or not whole.
        """
        path = self.folder / stored.basename
        if self.fetch is not None and not (path.is_file() and self._mismatch(path, stored) is None):
            self.fetch(stored.basename)
        if (error := self._mismatch(path, stored)) is not None:
            raise error

    def _mismatch(self, path: Path, stored: Any) -> TrainerError | None:
        if (size := path.stat().st_size) != stored.bytes:
            return TrainerError(f"{path} has {size} bytes, but index.json lists it with {stored.bytes} bytes")
        if stored.basename in self.hashes:
            found, expected = hash_file(path), self.hashes[stored.basename]
            return None if found == expected else corrupted(path, "xxh3-128", found, expected)
        for algorithm, expected in stored.hashes.items():
            if is_hash(algorithm) and (found := get_hash(algorithm, path.read_bytes())) != expected:
                return corrupted(path, algorithm, found, expected)
        return None


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
    if (found := hash_file(path)) != expected:
        raise corrupted(path, "xxh3-128", found, expected)


def corrupted(path: Path, algorithm: str, found: str, expected: str) -> TrainerError:
    """The error for a file whose content changed after it was written."""
    return TrainerError(
        f"{path} is corrupted: its {algorithm} is {found}, but {expected} was recorded when it was written; "
        "copy or build the shards again"
    )
