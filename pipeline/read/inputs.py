"""Find a recipe's input files, identify their contents, and cut them into tasks.

The cut follows from the files' names and sizes alone: files in sorted order are put together until a task holds
`task_bytes`. A remote file is identified by its server's etag, size and time; a local one is hashed, and the hash is
cached with size and modification time so that a second run need not read the file.
"""

from __future__ import annotations

import glob
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common.errors import PipelineError
from common.files import dump_json, hash_file, read_json, taken_literally, write_json
from pipeline.config import Source
from pipeline.read.commoncrawl import ARCHIVE_BYTES, list_crawl

_SUFFIXES = {
    "html": (".html", ".htm", ".xhtml"),
    "text": (".txt", ".text"),
    "markdown": (".md", ".markdown", ".rst"),
}


@dataclass(frozen=True)
class Input:
    """One input file. key: `<source>/<path below the glob's root>`, independent of the file's location.

    Of `commoncrawl` the key has the path on the server, and `path` is where the store will have the file.
    """

    source: Source
    path: str
    key: str
    size: int


def list_inputs(sources: list[Source], base: Path, unread: list[str] | None = None) -> list[Input]:
    """Every input file, by source in the recipe's order, then by key.

    unread: gets the files that a pattern matches and that have no suffix of their source's type. Raises PipelineError
    naming the source and the pattern that matches nothing, or a link that leads nowhere or in a circle.
    """
    return [item for source in sources for item in _list_source(source, base, unread)]


def input_hashes(inputs: list[Input], cache: Path) -> dict[str, str]:
    """{key: content hash, or identity of a remote file}. cache: JSON file."""
    known = read_json(cache) if cache.is_file() else {}
    hashes: dict[str, str] = {}
    fresh: dict[str, Any] = {}
    for item in inputs:
        path = Path(item.path)
        if item.source.type == "commoncrawl":
            hashes[item.key] = "as published"  # a crawl's files never change
            continue
        if path.is_dir():  # a Hugging Face dataset on disk
            files = {name: hash_file(file) for name, file in sorted(files_below(path).items())}
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


def _list_source(source: Source, base: Path, unread: list[str] | None) -> list[Input]:
    if source.type == "commoncrawl":
        crawl = list_crawl(source, base)
        return [Input(source, str(stored), f"{source.name}/{path}", ARCHIVE_BYTES) for path, stored in crawl.items()]
    if source.type == "hf":
        folders = {name: base / name for name in source.paths}
        return [
            Input(source, str(folder if folder.is_dir() else name), f"{source.name}/{name}", 1)
            for name, folder in sorted(folders.items())
        ]
    inputs: dict[str, Input] = {}
    for pattern in source.paths:
        pattern = pattern.removeprefix("file://")
        full = pattern if "://" in pattern else os.path.abspath(base / pattern)  # noqa: PTH100 - no links followed
        try:
            root, sizes = (_match_remote if "://" in pattern else _match_local)(full)
        except PipelineError as error:
            raise PipelineError(f"source `{source.name}`: {error}") from error
        except Exception as error:  # whatever the store's client raises: not installed, no credentials, no network
            raise PipelineError(
                f"source `{source.name}`: cannot look into {full}: {error} ({type(error).__name__}){_hint(full)}"
            ) from error
        files = {path: size for path, size in sizes.items() if path.lower().endswith(_SUFFIXES.get(source.type, ""))}
        if unread is not None:
            unread += [f"{source.name}/{path.removeprefix(root).lstrip('/')}" for path in sizes.keys() - files]
        if not files:
            raise PipelineError(
                f"source `{source.name}`: `{pattern}` matches no file (looked for {full}); correct `paths`"
            )
        for path, size in files.items():
            name = path.removeprefix(root).lstrip("/")
            # A name that is no UTF-8 keeps its odd bytes, spelt out.
            key = f"{source.name}/{name}".encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            inputs[key] = Input(source, path, key, size or 1)
    return [inputs[key] for key in sorted(inputs)]


def files_below(folder: Path) -> dict[str, Path]:
    """Every file in a folder by its path below it, links followed. Raises PipelineError as `list_inputs`."""
    root, sizes = _match_local(str(folder))
    return {path.removeprefix(root).lstrip("/"): Path(path) for path in sizes}


def _match_local(pattern: str) -> tuple[str, dict[str, int]]:
    """(folder before the first wildcard, {path: size}) of files, links followed. A folder means all that is in it."""
    escaped = taken_literally(pattern)
    if Path(pattern).is_dir():
        escaped += "/**"
    sizes: dict[str, int] = {}
    for name in glob.iglob(escaped, recursive=True, include_hidden=True):  # noqa: PTH207 - Path.glob follows no links
        path = Path(name)
        _check_links(path.parent)
        if path.is_file():
            sizes[name] = path.stat().st_size
        elif not path.exists():
            raise PipelineError(f"{name} is a link to {path.readlink()}, where there is no file")
    root = Path(pattern)
    while not root.is_dir():
        root = root.parent
    return str(root), sizes


@cache
def _check_links(folder: Path) -> None:
    """Raise PipelineError if a link on the way to a folder leads back to a folder that it lies in."""
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        raise PipelineError(f"{folder} is a link to a folder that it lies in; remove it or name other `paths`")
    if folder.parent != folder:
        _check_links(folder.parent)


def _match_remote(address: str) -> tuple[str, dict[str, int]]:
    """Like `_match_local`, for any fsspec URL; a file of that very name is taken before the pattern."""
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(address)
    is_folder = filesystem.isdir(path)
    if is_folder:
        found = filesystem.find(path, detail=True)
    elif filesystem.isfile(path):
        found = {path: filesystem.info(path)}
    else:
        found = filesystem.glob(path, detail=True) if glob.has_magic(path) else {}
    files = {filesystem.unstrip_protocol(n): int(i["size"] or 0) for n, i in found.items() if i["type"] == "file"}
    parts = path.rstrip("/").split("/")
    wild = next((n for n, part in enumerate(parts) if glob.has_magic(part) and not found.get(path)), len(parts) - 1)
    root = path.rstrip("/") if is_folder else "/".join(parts[:wild])
    return filesystem.unstrip_protocol(root), files


def _hint(full: str) -> str:
    """The client library that an address needs."""
    clients = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub"}
    client = clients.get(full.partition("://")[0])
    return f"; it needs `pip install {client}`, and credentials where that package looks for them" if client else ""


def _remote_identity(address: str) -> str:
    if "://" not in address:  # a Hugging Face data set name: its revision is pinned by the library's cache
        return address
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(address)
    info = filesystem.info(path)
    return json.dumps({key: str(info[key]) for key in ("ETag", "etag", "size", "mtime", "LastModified") if key in info})
