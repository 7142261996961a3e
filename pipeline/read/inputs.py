"""Find a recipe's input files, identify their contents, and cut them into tasks.

The cut follows from the files' names and sizes alone: files in sorted order are put together until a task holds
`task_bytes`. A remote file is identified by its server's etag, size and time; a local one is hashed, and the hash is
cached with size and modification time so that a second run need not read the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from common.errors import PipelineError
from common.files import dump_json, hash_file, read_json, write_json
from pipeline.config import Source

_SUFFIXES = {
    "html": (".html", ".htm", ".xhtml"),
    "text": (".txt", ".text"),
    "markdown": (".md", ".markdown", ".rst"),
}


@dataclass(frozen=True)
class Input:
    """One input file. key: `<source>/<path below the glob's root>`, independent of the file's location."""

    source: Source
    path: str
    key: str
    size: int


def list_inputs(sources: list[Source], base: Path) -> list[Input]:
    """Every input file, by source in the recipe's order, then by key.

    Raises PipelineError naming the source and pattern that matches nothing.
    """
    return [item for source in sources for item in _list_source(source, base)]


def input_hashes(inputs: list[Input], cache: Path) -> dict[str, str]:
    """{key: content hash, or identity of a remote file}. cache: JSON file."""
    known = read_json(cache) if cache.is_file() else {}
    hashes: dict[str, str] = {}
    fresh: dict[str, Any] = {}
    for item in inputs:
        path = Path(item.path)
        if path.is_dir():  # a Hugging Face dataset on disk
            files = {str(file.relative_to(path)): hash_file(file) for file in path.rglob("*") if file.is_file()}
            hashes[item.key] = dump_json(files)
            continue
        if not path.is_file():
            hashes[item.key] = _remote_identity(item.path)
            continue
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        entry = known.get(item.path)
        digest = entry[2] if entry and entry[:2] == stamp else hash_file(path)
        fresh[item.path] = [*stamp, digest]
        hashes[item.key] = digest
    write_json(cache, fresh)
    return hashes


def plan_tasks(inputs: list[Input], task_bytes: int) -> list[list[Input]]:
    """Inputs in order, cut into tasks of at least `task_bytes` stored bytes; a task stays within a source."""
    tasks: list[list[Input]] = []
    filled = 0
    for item in inputs:
        if not tasks or filled >= task_bytes or tasks[-1][0].source != item.source:
            tasks.append([])
            filled = 0
        tasks[-1].append(item)
        filled += item.size
    return tasks


def _list_source(source: Source, base: Path) -> list[Input]:
    if source.type == "hf":
        folders = {name: base / name for name in source.paths}
        return [
            Input(source, str(folder if folder.is_dir() else name), f"{source.name}/{name}", 1)
            for name, folder in sorted(folders.items())
        ]
    inputs: dict[str, Input] = {}
    for pattern in source.paths:
        full = pattern if "://" in pattern else str(base / pattern)
        try:
            filesystem, root, matches = _matches(full)
        except Exception as error:  # whatever the store's client raises: not installed, no credentials, no network
            raise PipelineError(
                f"source `{source.name}`: cannot look into {full}: {error} ({type(error).__name__}){_hint(full)}"
            ) from error
        suffixes = _SUFFIXES.get(source.type, ("",))
        files = {name: info for name, info in matches.items() if info["type"] == "file" and name.endswith(suffixes)}
        if not files:
            raise PipelineError(
                f"source `{source.name}`: `{pattern}` matches no file (looked for {full}); correct `paths`"
            )
        for name, info in files.items():
            address = filesystem.unstrip_protocol(name) if "://" in pattern else name
            key = f"{source.name}/{name.removeprefix(root).lstrip('/')}"
            inputs[key] = Input(source, address, key, int(info["size"] or 1))
    return [inputs[key] for key in sorted(inputs)]


def _matches(full: str) -> tuple[Any, str, dict[str, Any]]:
    """(file system, folder before the first wildcard, {name: info}) of a path or glob."""
    filesystem, path = url_to_fs(full)
    if filesystem.isdir(path):
        path = path.rstrip("/") + "/**"
    matches = filesystem.glob(path, detail=True) if any(c in path for c in "*?[") else {}
    if not matches and filesystem.isfile(path):
        matches = {path: filesystem.info(path)}
    return filesystem, _fixed_root(path), matches


def _hint(full: str) -> str:
    """The client library that an address needs."""
    clients = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub"}
    client = clients.get(full.partition("://")[0])
    return f"; it needs `pip install {client}`, and credentials where that package looks for them" if client else ""


def _fixed_root(path: str) -> str:
    """The folder part of a glob that holds no wildcard."""
    parts = path.split("/")
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts) - 1)
    return "/".join(parts[:fixed])


def _remote_identity(address: str) -> str:
    if "://" not in address:  # a Hugging Face data set name: its revision is pinned by the library's cache
        return address
    filesystem, path = url_to_fs(address)
    info = filesystem.info(path)
    return json.dumps({key: str(info[key]) for key in ("ETag", "etag", "size", "mtime", "LastModified") if key in info})
