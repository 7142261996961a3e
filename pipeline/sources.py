"""Find a recipe's input files, cut them into tasks, and read them as raw documents.

The cut follows from the files' names and sizes alone: files in sorted order are put together until a task
holds `task_bytes`. A remote file's content is represented by what its server says (etag, size, time); a local
one is hashed, and the hash is kept beside size and modification time so that a second run need not read it.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from fsspec.core import url_to_fs

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.storage import hash_file, read_json, write_json
from pipeline.warc import Tally, read_records

_SUFFIXES = {
    "html": (".html", ".htm", ".xhtml"),
    "text": (".txt", ".text"),
    "markdown": (".md", ".markdown", ".rst"),
}
_MEDIA_TYPES = {"html": "text/html", "text": "text/plain", "markdown": "text/markdown"}


@dataclass(frozen=True)
class Input:
    """One input file. `key` names it independently of where it lies: `<source>/<path below the glob's root>`."""

    source: Source
    path: str
    key: str
    size: int


@dataclass(frozen=True)
class RawDocument:
    """A document as read: `body` bytes to decode and extract, or ready `text`.

    `fault` is set, and everything else nearly empty, where bytes could not be read as a document.
    """

    offset: int
    url: str = ""
    date: str = ""
    media_type: str = ""
    charset: str | None = None
    status: int = 200
    body: bytes = b""
    text: str | None = None
    truncated: bool = False
    fault: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def list_inputs(sources: list[Source], base: Path) -> list[Input]:
    """Every input file, by source in the recipe's order, then by key.

    Raises PipelineError naming the source and pattern that matches nothing.
    """
    return [found for source in sources for found in _list_source(source, base)]


def input_hashes(inputs: list[Input], cache: Path) -> dict[str, str]:
    """{key: content hash} of local files, or what identifies a remote one. `cache` is a JSON file."""
    known = read_json(cache) if cache.is_file() else {}
    hashes: dict[str, str] = {}
    fresh: dict[str, Any] = {}
    for item in inputs:
        path = Path(item.path)
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


def read_documents(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    """Documents of one input file, in file order, at most the source's `limit`."""
    readers = {"warc": _read_warc, "jsonl": _read_jsonl, "parquet": _read_parquet, "hf": _read_hf}
    reader = readers.get(item.source.type, _read_file)
    for number, document in enumerate(reader(item, max_bytes)):
        if item.source.limit is not None and number >= item.source.limit:
            return
        yield document


def _list_source(source: Source, base: Path) -> list[Input]:
    if source.type == "hf":
        return [Input(source, name, f"{source.name}/{name}", 1) for name in source.paths]
    found: dict[str, Input] = {}
    for pattern in source.paths:
        full = pattern if "://" in pattern else str(base / pattern)
        filesystem, path = url_to_fs(full)
        if filesystem.isdir(path):
            path = path.rstrip("/") + "/**"
        root = _fixed_root(path)
        matches = filesystem.glob(path, detail=True) if any(c in path for c in "*?[") else {}
        if not matches and filesystem.isfile(path):
            matches = {path: filesystem.info(path)}
        suffixes = _SUFFIXES.get(source.type, ("",))
        files = {name: info for name, info in matches.items() if info["type"] == "file" and name.endswith(suffixes)}
        if not files:
            raise PipelineError(
                f"source `{source.name}`: `{pattern}` matches no file (looked for {full}); correct `paths`"
            )
        for name, info in files.items():
            address = filesystem.unstrip_protocol(name) if "://" in pattern else name
            key = f"{source.name}/{name.removeprefix(root).lstrip('/')}"
            found[key] = Input(source, address, key, int(info["size"] or 1))
    return [found[key] for key in sorted(found)]


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


def _read_warc(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    tally = Tally()
    for record in read_records(item.path, max_bytes=max_bytes, tally=tally):
        yield RawDocument(
            offset=record.offset,
            url=record.url,
            date=record.date,
            media_type=record.media_type,
            charset=record.charset,
            status=record.status,
            body=record.body,
            truncated=record.truncated,
        )
    for offset, message in tally.damage:
        yield RawDocument(offset=offset, fault=message)


def _read_file(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    with fsspec.open(item.path, "rb") as file:
        body = file.read(max_bytes + 1)
    media_type = _MEDIA_TYPES[item.source.type]
    yield RawDocument(
        offset=0,
        url=f"file:{item.key}",
        media_type=media_type,
        body=body[:max_bytes],
        truncated=len(body) > max_bytes,
    )


def _read_jsonl(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    try:
        with fsspec.open(item.path, "rb") as raw, _decompressed(raw, item.path) as lines:
            for number, line in enumerate(lines):
                if line.strip():
                    yield _json_document(item, number, line)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        yield RawDocument(offset=-1, fault=f"{item.key}: cannot read on: {error}")


def _json_document(item: Input, number: int, line: bytes) -> RawDocument:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return RawDocument(offset=number, fault=f"line {number + 1} is not JSON: {error}")
    if not isinstance(row, dict):
        return RawDocument(offset=number, fault=f"line {number + 1} is not a JSON object")
    return _row_document(item, number, row)


def _row_document(item: Input, number: int, row: dict[str, Any]) -> RawDocument:
    source = item.source
    text = row.get(source.text_key)
    if not isinstance(text, str):
        return RawDocument(
            offset=number, fault=f"row {number + 1} has no text under `{source.text_key}`, only {sorted(row)}"
        )
    url = row.get(source.url_key or "") or row.get(source.id_key or "") or f"file:{item.key}#{number}"
    metadata = {key: value for key, value in row.items() if key not in (source.text_key, source.url_key)}
    return RawDocument(
        offset=number,
        url=str(url),
        media_type="text/plain",
        # Surrogates cannot be stored as UTF-8; JSON may smuggle them in as escapes.
        text=text.encode("utf-8", "replace").decode("utf-8"),
        metadata=metadata,
    )


def _read_parquet(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    try:
        with fsspec.open(item.path, "rb") as raw, pq.ParquetFile(raw) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    yield _row_document(item, number, row)
                    number += 1
    except (pa.ArrowInvalid, OSError) as error:
        yield RawDocument(offset=-1, fault=f"{item.key}: cannot read on: {error}")


def _read_hf(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise PipelineError(
            f"source `{item.source.name}`: type `hf` needs the `datasets` library: pip install datasets"
        ) from error
    rows = load_dataset(item.path, split=item.source.split, streaming=True)
    for number, row in enumerate(rows):
        yield _row_document(item, number, row)


def _decompressed(raw: IO[bytes], path: str) -> IO[bytes]:
    """`raw` behind its decompressor, chosen by the file's name."""
    if path.endswith(".gz"):
        return gzip.open(raw)  # type: ignore[return-value]
    if path.endswith((".zst", ".zstd")):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw))
    return raw
