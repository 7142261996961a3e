"""Random access to one MDS data set: sample number to arrays, from shard files that were checked.

A shard file is hashed when it is first touched (against docs/format.md's manifest, else against the hashes that its
writer put into index.json). A compressed one is unpacked once into a cache folder, under a name made of both hashes, so
that a later run neither trusts nor repeats that work. Shards of a remote folder are fetched when first touched
(trainer.cache). Costs: one pass over each file per run and process, then one read of the file a sample.
"""

from __future__ import annotations

import bisect
import json
import threading
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import xxhash

from common.errors import TrainerError
from common.files import hash_file, write_atomically
from common.mds import BROKEN, Shard, decompress, read_columns
from trainer.cache import Cache, Remote

Array = np.ndarray[Any, np.dtype[Any]]
Entry = dict[str, Any]  # a shard as index.json describes it; `raw_data` and `zip_data` describe its files
AGAIN = "copy or build the shards again"


class MdsDataset:
    """The samples of one folder with an index.json.

    Raises TrainerError, naming the file, where the index is missing or malformed, a column is missing, cannot be read
    or would run code, a shard is missing or differs from its hash, or there are no samples.
    """

    def __init__(
        self, folder: Path, cache: Cache, *, name: str = "", hashes: Mapping[str, str] | None = None,
        remote: Remote | None = None,
    ) -> None:  # fmt: skip
        """name: subfolder of the cache for unpacked shards, and of `remote`, from which shards are fetched into
        `folder`; hashes: XXH3-128 by file path relative to `folder`, for the files that have one.
        """
        self.folder, self.cache, self.name, self.hashes, self.remote = folder, cache, name, hashes or {}, remote
        self.shards = read_index(folder)
        for number, entry in enumerate(self.shards):
            self._check(number, entry)
        self.ends = list(accumulate(self.shard_sizes))
        if not self.ends or not self.ends[-1]:
            raise TrainerError(f"{folder}: the data set has no samples; nothing can be trained on it")
        self._paths: dict[int, Path] = {}  # checked, unpacked files by shard
        self._locks = [threading.Lock() for _ in self.shards]

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard, in order."""
        return [entry["samples"] for entry in self.shards]

    @property
    def columns(self) -> dict[str, str]:
        """Column name to MDS encoding."""
        first = self.shards[0]
        return dict(zip(first["column_names"], first["column_encodings"], strict=True))

    def sample(self, index: int) -> dict[str, Any]:
        """Sample `index`, 0 <= index < len(self): column name to value; arrays are read-only."""
        number = self.shard_of(index)
        try:
            return self._shard(number)[index - self.ends[number] + self.shards[number]["samples"]]
        except BROKEN as error:
            name = self.shards[number]["raw_data"]["basename"]
            raise TrainerError(f"{self.folder / name}: sample {index} cannot be decoded ({error}); {AGAIN}") from error

    def shard_of(self, index: int) -> int:
        return bisect.bisect_right(self.ends, index)

    def shard_bytes(self, number: int) -> int:
        """Size of a shard, unpacked."""
        return int(self.shards[number]["raw_data"]["bytes"])

    def open(self, number: int) -> Path:
        """Fetch, check and unpack a shard, unless that was done. Returns the file that its samples are read from."""
        with self._locks[number]:
            path = self._paths.get(number)
            if path is None or not path.exists():
                entry = self.shards[number]
                path = self._paths[number] = self._open(entry)
                if self.remote or entry["zip_data"]:
                    self.cache.add(path)
            return path

    def _shard(self, number: int) -> Shard:
        path = self._paths.get(number)
        shard = None if path is None else self.cache.shard(path)
        while shard is None:
            try:
                path = self.open(number)
                shard = Shard(self.folder, self.shards[number], path)
            except FileNotFoundError:  # another thread or process made room
                continue
            self.cache.keep_open(path, shard)
        return shard

    def _check(self, number: int, entry: Entry) -> None:
        """Check an entry of the index and, where the shard is a local file, its size."""
        where = f"{self.folder / 'index.json'}: shard {number}"
        try:
            columns, stored = read_columns(entry), entry["zip_data"] or entry["raw_data"]
            path, size = self.folder / stored["basename"], int(stored["bytes"])
            entry["samples"], entry["raw_data"]["bytes"] = int(entry["samples"]), int(entry["raw_data"]["bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainerError(f"{where} cannot be read as MDS: {error!r}") from None
        if "tokens" not in columns:
            raise TrainerError(f"{where} has columns {', '.join(columns)}; a `tokens` column of token ids is needed")
        if self.remote is None and (problem := _size_error(path, size)) is not None:
            raise problem

    def _open(self, entry: Entry) -> Path:
        packed, raw = entry["zip_data"], entry["raw_data"]
        if not packed:
            self._verify(raw)
            return self.folder / str(raw["basename"])
        digest = self.hashes.get(packed["basename"])
        if digest is None:
            self._verify(packed)
            digest = hash_file(self.folder / packed["basename"])
        path = self._cached(digest) or self._unpack(entry, digest)
        if self.remote is not None:
            (self.folder / packed["basename"]).unlink(missing_ok=True)
        return path

    def _cached(self, digest: str) -> Path | None:
        """The unpacked shard of an earlier run, if its bytes still have the hash in its name."""
        for path in sorted((self.cache.folder / self.name).glob(f"{digest}-*.mds")):
            if hash_file(path) == path.stem.partition("-")[2]:
                return path
            path.unlink()
        return None

    def _unpack(self, entry: Entry, digest: str) -> Path:
        self._verify(entry["zip_data"])
        stored, size = self.folder / entry["zip_data"]["basename"], entry["raw_data"]["bytes"]
        try:
            data = decompress(entry["compression"], stored.read_bytes(), size)
        except (OSError, ValueError) as error:
            raise TrainerError(f"{stored} cannot be decompressed ({error}); {AGAIN}") from None
        if len(data) != size:
            raise TrainerError(f"{stored} holds {len(data)} bytes, but index.json lists {size}; {AGAIN}")
        path = self.cache.folder / self.name / f"{digest}-{xxhash.xxh3_128_hexdigest(data)}.mds"
        write_atomically(path, data)
        return path

    def _verify(self, stored: Entry) -> None:
        """Compare a shard file with its hash from the manifest, else with those its writer left in the index.

        A remote one is fetched where it is missing or differs.
        """
        path = self.folder / stored["basename"]
        if self.remote is not None and self._difference(path, stored) is not None:
            self.remote.fetch((PurePosixPath(self.name) / stored["basename"]).as_posix())
        if (error := self._difference(path, stored)) is not None:
            raise error

    def _difference(self, path: Path, stored: Entry) -> TrainerError | None:
        if (error := _size_error(path, int(stored["bytes"]))) is not None:
            return error
        if (expected := self.hashes.get(stored["basename"])) is not None:
            return hash_error(path, expected)
        for algorithm, expected in stored["hashes"].items():
            try:
                error = hash_error(path, expected, algorithm)
            except (ValueError, TypeError):  # an algorithm that this Python does not have
                continue
            if error is not None:
                return error
        return None


def read_index(folder: Path) -> list[Entry]:
    """The shard entries of `folder/index.json`. Raises TrainerError where it is not an MDS index."""
    path = folder / "index.json"
    try:
        index = json.loads(path.read_bytes())
        entries = index["shards"]
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist: {folder} is not an MDS data set") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{path} is not an MDS index ({error!r}); {AGAIN}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TrainerError(f"{path} is not an MDS index: `shards` must be a list of objects")
    return entries


def hash_error(path: Path, expected: str, algorithm: str = "xxh3_128") -> TrainerError | None:
    """The error for a file whose hash is not the expected one; None where it is. Raises ValueError as `new_hash`."""
    if (actual := hash_file(path, algorithm)) == expected:
        return None
    return TrainerError(
        f"{path} is corrupted: its {algorithm} is {actual}, but {expected} was recorded when it was written; {AGAIN}"
    )


def _size_error(path: Path, expected: int) -> TrainerError | None:
    size = path.stat().st_size if path.is_file() else None
    if size == expected:
        return None
    state = "is missing" if size is None else f"has {size} bytes"
    return TrainerError(f"{path} {state}, but index.json lists it with {expected} bytes; {AGAIN}")
