"""Remote shards: each fetched once an epoch into a bounded cache, checked, and the same training as from a folder."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import common.remote
from common.errors import TrainerError
from tests.trainer.conftest import small_run
from tests.trainer.corpus import PROSE, write_shards
from tests.trainer.test_loop import hashes
from trainer.cache import Prefetcher
from trainer.config import DataConfig
from trainer.loop import train
from trainer.sampler import Phase, Sampler
from trainer.shards import open_shards


class Unreliable(MemoryFileSystem):
    """A file system in memory that counts what is fetched, and fails every `every`-th time with an I/O error."""

    protocol = "unreliable"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fetched: ClassVar[Counter[str]] = Counter()
    every = 0
    calls = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("unreliable://", "memory://"))

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        Unreliable.calls += 1
        if self.every and self.calls % self.every == 0:
            raise OSError(errno.EIO, "Input/output error")
        super().get_file(rpath, lpath, **options)
        self.fetched[rpath] += rpath.endswith((".mds", ".zstd"))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Unreliable]]:
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    monkeypatch.setattr(common.remote, "FIRST_PAUSE", 0.001)
    Unreliable.every = Unreliable.calls = 0
    Unreliable.fetched = Counter()
    yield Unreliable
    Unreliable.store.clear()


def upload(folder: Path, address: str) -> str:
    files = fsspec.filesystem("unreliable")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"unreliable:/{address}"


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_each_shard_is_fetched_once_an_epoch(remote: type[Unreliable], tmp_path: Path, compression: str | None) -> None:
    """Through a cache of a fraction of the data set, with everything that is read from it right."""
    parts = [part for part in PROSE.split("\n\n") if part.strip()]
    folder = write_shards(tmp_path / "shards", {"train/a": (parts * 6, 1.0)}, compression=compression)
    local = open_shards(folder, tmp_path / "local")
    limit = 5 * 4096  # five full shards
    shards = open_shards(upload(folder, f"/{compression}"), tmp_path / "cache", DataConfig(cache_gb=limit / 1e9))
    data = shards.train[0].data
    total = sum(data.shard_bytes(number) for number in range(len(data.shards)))
    assert total > 3 * limit
    steps = len(data) // 4
    sampler = Sampler([data.shard_sizes], [Phase(0, [1.0])], 4, seed=1, block=2 * data.shard_sizes[0])
    prefetcher = Prefetcher(shards.cache, [stream.data for stream in shards.train], sampler)
    prefetcher.start(0)
    for step in range(steps):
        prefetcher.advance(step)
        ids = sampler.batch(step)
        assert (shards.read(shards.train, ids).tokens == local.read(local.train, ids).tokens).all()
        assert (
            len(list((tmp_path / "cache").rglob("*.mds"))) <= 5 + 3
        )  # the last shard is small; each thread may bring one in
    prefetcher.close()
    counts = [count for count in remote.fetched.values() if count]
    assert len(counts) == len(data.shards)
    assert sum(count - 1 for count in counts) <= 5  # those of the next epoch that were fetched ahead


def test_training_from_a_remote_folder_with_read_errors(remote: type[Unreliable], shards: Path, tmp_path: Path) -> None:
    train(small_run(), shards, tmp_path / "local")
    address = upload(shards, "/shards")
    remote.every = 3
    train(small_run(), address, tmp_path / "remote")
    assert hashes(tmp_path / "remote") == hashes(tmp_path / "local")
    assert (tmp_path / "remote/metrics.jsonl").read_bytes() == (tmp_path / "local/metrics.jsonl").read_bytes()


def test_a_remote_that_stays_away_ends_the_run_and_the_same_call_resumes(
    remote: type[Unreliable], shards: Path, tmp_path: Path
) -> None:
    address = upload(shards, "/shards")
    train(small_run(steps=4), address, tmp_path / "out")
    for path in (tmp_path / "out/shards-cache").rglob("*.mds"):
        path.unlink()
    remote.every = 1
    with pytest.raises(
        TrainerError, match=r"cannot be read, tried 4 times.*Input/output error.*the same command resumes"
    ):
        train(small_run(), address, tmp_path / "out")
    remote.every = 0
    assert train(small_run(), address, tmp_path / "out").step == 12


def test_what_is_wrong_with_a_remote_is_named(remote: type[Unreliable], shards: Path, tmp_path: Path) -> None:
    address = upload(shards, "/shards")
    name = next(name for name in remote.store if name.endswith(".zstd") and "train/first" in name)
    data = bytearray(remote.store[name].getvalue())
    data[50] ^= 1
    fsspec.filesystem("unreliable").pipe_file(name, bytes(data))
    opened = open_shards(address, tmp_path / "cache")
    stream = opened.train[0].data
    with pytest.raises(TrainerError, match=rf"{name.rsplit('/', 1)[1]} is corrupted: its xxh3_128"):
        [stream.sample(index) for index in range(len(stream))]
    with pytest.raises(TrainerError, match=r"neither manifest.json nor an index.json"):
        open_shards("unreliable://nothing/here", tmp_path / "other")
    with pytest.raises(TrainerError, match="cannot be opened"):
        open_shards("nosuch://place", tmp_path / "other")
