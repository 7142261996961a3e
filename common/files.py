"""Publish files and folders atomically, lock folders for one process, and check later what was published.

A file is written under a hidden name, flushed to the disk and renamed; a folder is built under a hidden name and
renamed once its manifest, written last, lists every file with size and xxh3-128. A crash leaves either the old state or
the new one. Hashing runs at memory speed (xxh3, over 5 GB/s) in pieces of 8 MB.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import xxhash

from common.errors import PretrainError

MANIFEST = "manifest.json"
LOCK = ".lock"
_PIECE = 8 << 20


def dump_json(value: Any) -> str:
    """Canonical JSON text: sorted keys, UTF-8 kept, final newline. NaN is refused with ValueError."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_json(value: Any) -> bytes:
    """Indented JSON in the order given, final newline; floats keep every bit, NaN is allowed."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


@contextmanager
def replacing(path: Path, mark: str = "partial", *, durable: bool = True) -> Iterator[Path]:
    """A hidden path to fill with a file or a folder, which replaces `path` at the end of the `with` block.

    An error or a crash leaves the old file or folder as it was; so does a machine that loses power, if `durable`.
    """
    building = path.with_name(f".{path.name}.{mark}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(building)
    try:
        yield building
        for part in [building, *building.rglob("*")] if durable else ():
            sync(part)
        swap_in(building, path, durable=durable)
    finally:
        _remove(building)


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` complete, or not at all.

    durable: flushed to the disk; needless for a task's files, which its receipt's hashes and `publish_folder` protect.
    """
    with replacing(path, f"{os.getpid()}.tmp", durable=durable) as building, building.open("wb") as file:
        yield file


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path`; a crash leaves the old bytes or the new ones, never a part."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, dump_json(value).encode())


def read_json(path: Path) -> Any:
    """Read JSON. Raises PretrainError that names a file which is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PretrainError(f"{path}: damaged JSON ({error}); delete the folder it is in to rebuild it") from error


def sync(path: Path) -> None:
    """Flush a file's bytes, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_hash(algorithm: str) -> Any:
    """An empty hash of xxhash or hashlib. Raises ValueError for a name that neither knows."""
    return getattr(xxhash, algorithm)() if algorithm in xxhash.algorithms_available else hashlib.new(algorithm)


def hash_file(path: Path, algorithm: str = "xxh3_128") -> str:
    """Hash of a file's content in hexadecimal digits; manifests and shards are checked by xxh3-128."""
    state = new_hash(algorithm)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            state.update(piece)
    return str(state.hexdigest())


def sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits; checkpoints and tokenizers are identified by it."""
    return hash_file(path, "sha256")


def list_names(folder: Path) -> list[str]:
    """Relative paths of every file below `folder`, sorted, without its manifest and hidden files."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return sorted(str(name) for name in names if not any(part.startswith(".") for part in name.parts))


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """{relative path: {bytes, xxh3}} of the files that `list_names` lists."""
    return {name: describe(folder / name) for name in list_names(folder)}


def describe(path: Path) -> dict[str, Any]:
    """{bytes, xxh3} of a file, as manifests and receipts list it."""
    return {"bytes": path.stat().st_size, "xxh3": hash_file(path)}


def publish_folder(building: Path, published: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest` (with the file list) into `building`, then swap it in as `published`.

    After a crash between the two renames the finished folder is still hidden; the next run finds its manifest there
    and calls `swap_in`.
    """
    files = list_files(building)
    for name in files:
        sync(building / name)
    write_json(building / MANIFEST, manifest | {"files": files})
    swap_in(building, published)


def swap_in(building: Path, published: Path, *, durable: bool = True) -> None:
    """Rename a finished file or folder to its published name; an earlier one of that name is removed."""
    published.parent.mkdir(parents=True, exist_ok=True)
    if published.is_dir():
        old = published.with_name(f".{published.name}.old")
        _remove(old)
        published.rename(old)
        building.rename(published)
        _remove(old)
    else:
        building.replace(published)
    if durable:
        sync(published.parent)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, or None where the folder is absent or unfinished."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest: dict[str, Any] = read_json(path)
    return manifest


def changed_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Names of listed files that are missing or whose content differs from the manifest."""
    missing = set(missing_files(folder, manifest))
    files = manifest["files"].items()
    return [name for name, entry in files if name in missing or hash_file(folder / name) != entry["xxh3"]]


def missing_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Names of listed files that are missing or have another size."""
    files = manifest["files"].items()
    return [n for n, of in files if not (folder / n).is_file() or (folder / n).stat().st_size != of["bytes"]]


@contextmanager
def locked(folder: Path, advice: str) -> Iterator[None]:
    """Lock a folder for this process until the `with` block or the process ends.

    advice: what to do instead of waiting. Raises PretrainError that names the process which holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise PretrainError(
                f"{folder}: another process ({holder}) is working in this folder; wait for it, or {advice}"
            ) from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def lock_holder(folder: Path) -> str | None:
    """The process that holds the lock of a folder (`locked`), if any."""
    path = folder / LOCK
    if not path.is_file():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown process"
    return None


def taken_literally(pattern: str) -> str:
    """A glob in which each part that exists by that very name stands for itself alone."""
    taken = ""
    for part in pattern.replace("/", "\0/\0").split("\0"):
        taken += exact if any(glob.iglob(taken + (exact := glob.escape(part)))) else part  # noqa: PTH207 - no path yet
    return taken
