"""A run folder in object storage, worked on by machines that share nothing else (docs/scaling.md).

The storage has the files of a local run folder under the same names. What counts are published stages, and of a stage
that is being built the files that a receipt names: a task stores its files, then its receipt. The controller has the
storage copy them to their published names, so that no byte passes through it, and stores the manifest last.

A task works in a scratch folder of its machine. It brings the files that it reads (`Pass.reads`) and compares each with
its hash in the pass's inventory, which the controller wrote from manifests and receipts. Paths of the run folder are
relative, so they hold in every scratch folder. What the passes of one stage hand on stays there for other tasks of that
machine; documents and shards leave with the task.

The controller has a folder of its own, made anew at each start: small files, and of each other one an outline, a sparse
file of the same size, with its footer where documents are in it. So planning works as in a local run, with some
kilobytes of disk and no memory for each file.

A controller holds a lock object, which it rewrites every BEAT seconds. One that stays the same for LEASE seconds, or
whose process is gone from this machine, is a dead one's and is taken over.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from common.errors import PipelineError, PretrainError
from common.files import LOCK, MANIFEST, describe, hash_file, list_names, read_json, swap_in, write_json
from common.remote import retry
from pipeline.crashes import INPUTS
from pipeline.documents import text_source

if TYPE_CHECKING:
    from pipeline.task import Pass

BEAT, LEASE = 10.0, 35.0
_TAIL = 1 << 16  # bytes that hold most parquet footers
_AT_A_TIME = 16  # requests


def scratch_folder() -> Path:
    """Where tasks work on this machine: below TMPDIR, or /tmp."""
    folder = Path(tempfile.gettempdir()) / f"pretrain-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PipelineError(f"{folder} belongs to another user; set TMPDIR to a folder of your own")
    return folder


@dataclass
class Depot:
    """The run folder at `address` (any fsspec URL), whose files have paths below `run`, a relative path, here.

    inventory: of the pass at hand; lost: the controller that took over.
    """

    address: str
    run: Path
    inventory: Path | None = None
    lost: str | None = field(default=None, compare=False)

    @cached_property
    def files(self) -> Any:
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.address, use_listings_cache=False)[0]
        except (ImportError, ValueError) as error:
            raise PipelineError(f"runs: cannot open {self.address}: {error}") from error

    def key(self, path: Path) -> str:
        """Name in the storage of a path in the run folder."""
        root = str(self.files._strip_protocol(self.address))
        return "/".join([root, *path.relative_to(self.run).parts])

    def names(self, folder: Path) -> list[Path]:
        """All files below a folder."""
        prefix = self.key(folder)
        return [folder / name[len(prefix) + 1 :] for name in self._tried(self.files.find, prefix)]

    def children(self, folder: Path) -> list[Path]:
        """Files and folders in a folder."""
        with suppress(FileNotFoundError):
            names = self._tried(lambda key: self.files.ls(key, detail=False), self.key(folder))
            return [folder / name.rstrip("/").rpartition("/")[2] for name in names]
        return []

    def get(self, paths: Iterable[Path]) -> None:
        """Bring files. Raises FileNotFoundError."""

        def bring(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
            try:
                self._tried(lambda key: self.files.get_file(key, str(part)), self.key(path))
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

        _each(bring, paths)

    def _get_checked(self, path: Path, mark: str) -> None:
        """Bring a file with this hash, unless it is here. Raises PipelineError where the storage has another."""
        if not path.is_file() or hash_file(path) != mark:
            self.get([path])
        if hash_file(path) != mark:
            name = path.relative_to(self.run)
            raise PipelineError(f"{self.address}/{name}: the file was changed; delete its folder to rebuild it")

    def put(self, paths: Iterable[Path], key: Callable[[Path], str] | None = None) -> None:
        """Store files. key: gives their names in the storage, if others."""
        name = key or self.key
        _each(lambda path: self._tried(lambda key: self.files.put_file(str(path), key), name(path), "stored"), paths)

    def remove(self, *paths: Path) -> None:
        """Remove files from the storage, where they are there."""
        keys = [self.key(path) for path in paths]
        if keys:
            with suppress(FileNotFoundError):
                self._tried(lambda key: self.files.rm(keys), keys[0], "removed")

    def forget(self, folder: Path) -> None:
        """Remove a folder here and in the storage."""
        shutil.rmtree(folder, ignore_errors=True)
        self.remove(*self.names(folder))

    def move(self, folder: Path, target: Path) -> None:
        """Rename a folder of the storage; receipts come after the files that they name."""
        names = self.names(folder)
        for last in (False, True):
            chosen = [path for path in names if (path.parent.name == ".receipts") is last]
            self._copy((path, target / path.relative_to(folder)) for path in chosen)
        self.remove(*names)

    def _copy(self, pairs: Iterable[tuple[Path, Path]]) -> None:
        def copy(pair: tuple[Path, Path]) -> None:
            source, target = map(self.key, pair)
            self._tried(lambda key: self.files.cp_file(source, key), target, "stored")

        _each(copy, pairs)

    def _tried(self, call: Callable[[str], Any], key: str, deed: str = "read") -> Any:
        return retry(self.files.unstrip_protocol(key), lambda: call(key), deed)

    # What the controller does.

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock until the end of the block. Raises PretrainError where a live controller has it."""
        self._wait_for_the_dead()
        mine, stop = f"{uuid4().hex} {platform.node()} {os.getpid()}", threading.Event()

        def write(number: int) -> None:
            self._tried(lambda key: self.files.pipe_file(key, f"{mine} {number}".encode()), self._lock, "stored")

        def beat() -> None:
            for number in count(1):
                if stop.wait(BEAT):
                    return
                with suppress(OSError):
                    if (other := self._holder()) and not other.startswith(mine):
                        self.lost = other
                        return
                    write(number)

        write(0)
        keeper = threading.Thread(target=beat, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()
            if (self._holder() or "").startswith(mine):
                self.files.rm_file(self._lock)

    def holder(self) -> str | None:
        """The process that holds the lock, if any."""
        holder = self._holder()
        old = holder and time.time() - self.files.modified(self._lock).timestamp() > LEASE
        return _named(holder) if holder and not old else None

    @property
    def _lock(self) -> str:
        return self.key(self.run / LOCK)

    def _holder(self) -> str | None:
        with suppress(FileNotFoundError):
            return str(self._tried(self.files.cat_file, self._lock).decode())
        return None

    def _wait_for_the_dead(self) -> None:
        """Return once no live controller holds the lock. Raises PretrainError where one does."""
        seen, start = self._holder(), time.monotonic()
        if seen and seen.split()[1] == platform.node() and not _is_alive(int(seen.split()[2])):
            return
        while seen and time.monotonic() < start + LEASE:
            time.sleep(1)
            now, seen = seen, self._holder()
            if seen and seen != now:
                raise PretrainError(
                    f"{self.address}: another controller ({_named(seen)}) is at work there; wait for it, or give this"
                    " run another `name`"
                )

    def _check_lock(self) -> None:
        if self.lost:
            raise PretrainError(f"{self.address}: another controller ({_named(self.lost)}) took over; this one stops")

    def begin(self, stages: Sequence[Path]) -> None:
        """Make the controller's folder anew, with the published ones of `stages`; others are removed."""
        for path in self.run.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.children(self.run / "corpus"):
            if path not in stages and not path.name.startswith("."):
                self.forget(path)
        for name in ("forgotten.json", "log.jsonl"):
            with suppress(FileNotFoundError):
                self.get([self.run / name])
        for folder in stages:
            with suppress(FileNotFoundError):
                self.get([folder / "stats.json", folder / MANIFEST])
                self._outline(folder, read_json(folder / MANIFEST)["files"])

    def sync(self, workdir: Path) -> None:
        """Bring what tasks said since the last time, and outlines of what they wrote."""
        notes = [name for kind in (".receipts", ".failures", ".crashed") for name in self.names(workdir / kind)]
        new = [name for name in notes if not name.exists()]
        self.get(new)
        for path in new:
            if path.parent.name == ".receipts":
                self._outline(workdir, read_json(path)["files"])

    def sync_progress(self, workdir: Path) -> None:
        """Bring the progress of tasks that have ended."""
        self.get(name for name in self.names(workdir / ".progress") if not name.exists())

    def _outline(self, folder: Path, files: dict[str, Any]) -> None:
        """Make outlines of files that are not here. A tokenizer is brought as it is."""

        def outline(name: str) -> None:
            path, size = folder / name, int(files[name]["bytes"])
            if name == "tokenizer.json":
                self.get([path])
                return
            tail = self._footer(path, size) if name.startswith(("data/", "dropped/")) else b""
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(size)
                file.seek(size - len(tail))
                file.write(tail)

        _each(outline, (name for name in files if not (folder / name).exists()))

    def _footer(self, path: Path, size: int) -> bytes:
        """The end of a parquet file, from its footer on or before."""

        def end(length: int) -> bytes:
            start = max(size - length, 0)
            return bytes(self._tried(lambda key: self.files.cat_file(key, start=start, end=size), self.key(path)))

        tail = end(_TAIL)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        return tail if length <= len(tail) else end(length)

    def fill(self, paths: Iterable[Path]) -> None:
        """Bring tables of published stages, of which outlines are here."""

        def bring(path: Path) -> None:
            files = read_json(path.parents[1] / MANIFEST)["files"]
            self._get_checked(path, files[f"data/{path.name}"]["xxh3"])

        _each(bring, paths)

    def take_stock(self, pass_: Pass) -> Depot:
        """The depot for the tasks of a pass: writes its inventory, a line for each file that they may read."""
        self._check_lock()
        path = pass_.workdir / f".inventory/{pass_.name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as inventory:

            def enter(folder: Path, files: dict[str, Any]) -> None:
                inside = folder.relative_to(self.run)
                inventory.writelines(f"{entry['xxh3']} {inside / name}\n" for name, entry in files.items())

            for manifest in self.run.glob(f"corpus/[0-9]*/{MANIFEST}"):
                files = read_json(manifest)["files"].items()
                enter(manifest.parent, {name: entry for name, entry in files if name.startswith("data/")})
            for receipt in pass_.workdir.glob(".receipts/*.json"):
                enter(pass_.workdir, read_json(receipt)["files"] | {f".receipts/{receipt.name}": describe(receipt)})
            shortened = pass_.workdir.glob(f"{INPUTS}/*")
            enter(pass_.workdir, {str(INPUTS / file.name): describe(file) for file in shortened})
        self.put([path])
        return replace(self, inventory=path)

    def publish(self, workdir: Path, published: Path, manifest: dict[str, Any]) -> None:
        """Give the files of a finished stage their published names, then store the manifest."""
        self._check_lock()
        written: dict[str, Any] = {}
        for receipt in workdir.glob(".receipts/*.json"):
            files = read_json(receipt)["files"].items()
            written |= {name: entry for name, entry in files if not name.startswith(".")}
        own = [name for name in list_names(workdir) if name not in written]
        files = written | {name: describe(workdir / name) for name in own}
        self.remove(published / MANIFEST)
        self.remove(*(path for path in self.names(published) if str(path.relative_to(published)) not in files))
        self._copy((workdir / name, published / name) for name in written)
        self.put([workdir / name for name in own], lambda path: self.key(published / path.relative_to(workdir)))
        for scratch in workdir.glob(".*"):
            shutil.rmtree(scratch)
        write_json(workdir / MANIFEST, manifest | {"files": files})
        swap_in(workdir, published, durable=False)
        self.put([published / MANIFEST])
        self.forget(workdir)

    # What a task does.

    @contextmanager
    def task(self, pass_: Pass, rank: int, log: Path) -> Iterator[Path]:
        """Run the block in the scratch folder, with all that the task reads, and store what it leaves.

        log: of its error, if it ends with one.
        """
        scratch, before = scratch_folder(), Path.cwd()
        os.chdir(scratch)
        try:
            passes = (*pass_.ahead, pass_)
            for folder in (*self.run.glob("corpus/.*"), *self.run.glob(".shards.*")):
                if folder not in {each.workdir for each in passes}:
                    shutil.rmtree(folder, ignore_errors=True)
            for each in passes:
                each.receipt_path(rank).unlink(missing_ok=True)
            touched = self._bring(pass_.reads(rank))
            try:
                yield scratch
            finally:
                for each in passes:
                    if (receipt := each.receipt_path(rank)).is_file():
                        written = [each.workdir / name for name in read_json(receipt)["files"]]
                        self.put(written)
                        self.put(path for path in (each.progress_path(rank),) if path.is_file())
                        self.put([receipt])
                        touched += written
                failures = (pass_.workdir / ".failures").glob(f"{pass_.name}-{rank:05d}.*")
                self.put([*failures, *([log] if log.is_file() else [])])
                for path in touched:
                    if not self._is_handed_on(path):
                        path.unlink(missing_ok=True)
        finally:
            os.chdir(before)

    def _bring(self, wanted: Sequence[Path]) -> list[Path]:
        """Bring files, patterns resolved, and those that have their texts; paths outside the run folder are as here."""
        assert self.inventory is not None
        text = self._tried(self.files.cat_file, self.key(self.inventory)).decode()
        known = {name: mark for mark, _, name in (line.partition(" ") for line in text.splitlines())}
        inside = [str(path.relative_to(self.run)) for path in wanted if path.is_relative_to(self.run)]
        names = [name for each in inside for name in (_matching(known, each) if "*" in each else [each])]

        def bring(name: str) -> None:
            if name not in known:
                raise PipelineError(f"{self.address}/{name}: no finished task wrote this file; run the recipe again")
            self._get_checked(self.run / name, known[name])

        _each(bring, names)
        documents = [self.run / name for name in names if name.endswith(".parquet") and "/data/" in name]
        sources = [source for source in map(text_source, documents) if source]
        return [self.run / name for name in names] + (self._bring(sources) if sources else [])

    def _is_handed_on(self, path: Path) -> bool:
        """Whether other tasks of the stage may read a file: it is in a hidden folder, or small."""
        hidden = [part for part in path.relative_to(self.run).parts if part.startswith(".")]
        return len(hidden) > 1 or path.suffix in (".json", ".npy")


def _each(call: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Call with each item, some at a time. Raises the first error."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for _ in pool.map(call, items):
            pass


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a pattern matches, in which only `*` has a meaning: any text, `/` included."""
    expression = re.compile(".*".join(map(re.escape, pattern.split("*"))))
    return [name for name in names if expression.fullmatch(name)]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _named(holder: str) -> str:
    _, host, process, *_ = holder.split()
    return f"pid {process} on {host}"
