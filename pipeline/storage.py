"""Publish files and folders atomically, and prove later that they are what was published.

A file is written beside its place, flushed to the disk and renamed over it; a folder is built under a hidden
name and renamed as a whole once its manifest, written last, lists every file with size and xxh3-128. A crash
leaves either the old state or the new one. Hashing runs at memory speed (xxh3, over 5 GB/s); `verify` reads
everything once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import xxhash

from pipeline.errors import PipelineError

MANIFEST = "manifest.json"
_CHUNK = 1 << 22


def dump_json(value: Any) -> str:
    """Canonical JSON text: sorted keys, UTF-8 kept, final newline. NaN is refused with ValueError."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Binary file that appears at `path` complete and durable, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON atomically."""
    with atomic_file(path) as file:
        file.write(dump_json(value).encode())


def read_json(path: Path) -> Any:
    """Read JSON. Raises PipelineError that names a file which is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: damaged JSON ({error}); delete the folder it is in to rebuild it") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """xxh3-128 of a file's content as 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def list_names(folder: Path) -> list[str]:
    """Relative paths of every file below `folder` but its manifest and hidden ones, sorted."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return sorted(str(name) for name in names if not any(part.startswith(".") for part in name.parts))


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below `folder` but its manifest and hidden ones: {relative path: {bytes, xxh3}}, sorted."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "xxh3": hash_file(folder / name)} for name in list_names(folder)
    }


def publish_folder(building: Path, place: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest` (with the file list) into `building`, then swap it in at `place`.

    A crash between the two renames leaves the finished folder under its hidden name;
    `recover_folder` completes the swap.
    """
    files = list_files(building)
    for name in files:
        with (building / name).open("rb") as file:
            os.fsync(file.fileno())
    write_json(building / MANIFEST, manifest | {"files": files})
    swap_in(building, place)


def swap_in(building: Path, place: Path) -> None:
    """Rename a finished folder into place; what stood there is removed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        old = place.with_name(f".{place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        building.rename(place)
        shutil.rmtree(old)
    else:
        building.rename(place)
    sync_folder(place.parent)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, or None where the folder is absent or unfinished."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest: dict[str, Any] = read_json(path)
    return manifest


def changed_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Names of listed files that are missing or whose content differs from the manifest."""
    return [
        name
        for name, entry in manifest["files"].items()
        if not (folder / name).is_file()
        or (folder / name).stat().st_size != entry["bytes"]
        or hash_file(folder / name) != entry["xxh3"]
    ]
