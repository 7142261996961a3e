"""Shards on this machine: those that are open, and those fetched from a remote folder or unpacked, bounded in size.

A remote shards folder (any address that fsspec opens: `s3://`, `gs://`, `hf://`, `https://`) is mirrored under the
run's cache folder: its small files at once, a shard when it is first read. The sampler visits a shard during one block
and then not again in that epoch, so a cache that holds two blocks fetches every shard once an epoch. `Prefetcher`
walks the sampler ahead of the training as far as the cache allows. To make room, the least recently opened file that
no coming step needs is deleted first.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from common.errors import TrainerError
from common.files import replacing
from common.mds import Shard
from common.remote import retry

if TYPE_CHECKING:
    from trainer.dataset import MdsDataset
    from trainer.sampler import Sampler

T = TypeVar("T")
OPEN = 256  # most shards that are open at a time; each holds a file descriptor
# What listings of object stores call the version of a file.
VERSION = ("size", "ETag", "etag", "md5Hash", "crc32c", "blob_id", "LastModified", "last_modified", "updated", "mtime")


class Cache:
    """Shard files below a folder, at most `limit` bytes of them, and the shards that are open."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Files of an earlier run count from the start."""
        self.folder, self.limit = folder, limit
        self.needed: frozenset[Path] = frozenset()
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Shard] = OrderedDict()
        files = sorted(filter(Path.is_file, folder.rglob("*.mds")), key=lambda path: path.stat().st_mtime)
        self._sizes = OrderedDict((path, path.stat().st_size) for path in files)

    def add(self, path: Path) -> None:
        """Count a file that was just written or opened, and make room for it."""
        with self._lock:
            self._sizes[path] = path.stat().st_size
            self._sizes.move_to_end(path)
            while sum(self._sizes.values()) > self.limit and len(self._sizes) > 1:
                others = [other for other in self._sizes if other != path]
                victim = next((other for other in others if other not in self.needed), others[0])
                victim.unlink(missing_ok=True)
                del self._sizes[victim]
                self._open.pop(victim, None)

    def shard(self, path: Path) -> Shard | None:
        with self._lock:
            shard = self._open.get(path)
            if shard is not None:
                self._open.move_to_end(path)
            return shard

    def keep_open(self, path: Path, shard: Shard) -> None:
        """Keep a shard open until OPEN others were used after it, or its file is deleted."""
        with self._lock:
            self._open[path] = shard
            if len(self._open) > OPEN:
                self._open.popitem(last=False)


class Remote:
    def __init__(self, location: str, mirror: Path) -> None:
        """Raises TrainerError where fsspec knows no such kind of address."""
        self.location, self.mirror = location.rstrip("/"), mirror
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.location)
        except (ValueError, ImportError) as error:
            raise TrainerError(f"{location} cannot be opened: {error}") from None

    def names(self) -> list[str]:
        """Every file below the folder, by its path relative to it."""
        entries = self._tried(self.location, lambda: dict(self.files.find(self.root, detail=True)))
        self._entries = {name[len(self.root) :].lstrip("/"): entry for name, entry in entries.items()}
        return list(self._entries)

    def listed(self, name: str) -> str:
        """Size, version and time of a file, as far as the listing (`names`) has them."""
        entry = self._entries.get(name, {})
        return json.dumps({key: str(entry[key]) for key in VERSION if key in entry})

    def fetch(self, name: str) -> Path:
        """Copy a file into the mirror, where it appears complete or not at all. Raises TrainerError."""
        path = self.mirror / name
        with replacing(path, f"{os.getpid()}.{threading.get_ident()}.partial") as partial:
            self._tried(f"{self.location}/{name}", lambda: self.files.get_file(f"{self.root}/{name}", str(partial)))
        return path

    def _tried(self, what: str, call: Callable[[], T]) -> T:
        try:
            return retry(what, call)
        except FileNotFoundError:
            raise TrainerError(f"{what} does not exist; copy or build the shards again") from None
        except PermissionError as error:
            raise TrainerError(f"{what} cannot be read: {error}; check the credentials") from None
        except OSError as error:
            raise TrainerError(
                f"{error}. Once that is repaired, the same command resumes from the last checkpoint"
            ) from error


class Prefetcher:
    """Fetches the shards from which a sampler draws, `sets` being its streams, in a thread."""

    def __init__(self, cache: Cache, sets: Sequence[MdsDataset], sampler: Sampler) -> None:
        self.cache, self.sets, self.sampler = cache, sets, sampler
        self.step = 0
        self._wanted: dict[tuple[int, int], tuple[int, int, Path]] = {}  # last step that needs it, bytes, file
        self._moved = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def start(self, step: int) -> None:
        """Begin before `step` is read."""
        self.step = step
        self._thread.start()

    def advance(self, step: int) -> None:
        """Training now reads `step`."""
        with self._moved:
            self.step = step
            self._moved.notify()

    def close(self) -> None:
        """End the thread, after the file that it is fetching."""
        with self._moved:
            self._ended = True
            self._moved.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        ahead = self.step
        while True:
            drawn = {(of, self.sets[of].shard_of(sample)) for of, sample in self.sampler.batch(ahead).tolist()}
            shards = {key: self.sets[key[0]].shard_bytes(key[1]) for key in sorted(drawn)}
            with self._moved:
                while not self._ended and not self._fits(shards):
                    self._moved.wait()
                if self._ended:
                    return
            for (stream, number), size in shards.items():
                try:
                    path = self.sets[stream].open(number)
                except TrainerError:
                    return  # training meets the same error and reports it
                self._wanted[stream, number] = (ahead, size, path)
                self.cache.needed = frozenset(path for _, _, path in self._wanted.values())
            ahead += 1

    def _fits(self, shards: Mapping[tuple[int, int], int]) -> bool:
        """Whether a step's shards fit into the cache with those of the steps before it; forgets steps already read."""
        self._wanted = {key: value for key, value in self._wanted.items() if value[0] >= self.step}
        self.cache.needed = frozenset(path for _, _, path in self._wanted.values())
        new = sum(size for key, size in shards.items() if key not in self._wanted)
        return not self._wanted or new + sum(size for _, size, _ in self._wanted.values()) <= self.cache.limit
