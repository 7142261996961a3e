"""Read input files as raw documents, in file order, whatever their format.

Rows that are no document (broken JSON, no text) and archives' damage come as documents with a `fault`, so that they are
recorded. A source's `sample` keeps a share of the documents by a hash of file and offset: the same ones in every run,
and with a larger share all of them and more.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from common.errors import PipelineError
from common.remote import open_input
from pipeline.config import Source
from pipeline.documents import document_id
from pipeline.read.archives import Tally, read_records
from pipeline.read.inputs import Input

_CHUNK = 1 << 20
_ESCAPED = 6  # bytes that a character of one byte may take in JSON
_MEDIA_TYPES = {"html": "text/html", "text": "text/plain", "markdown": "text/markdown"}


@dataclass(frozen=True)
class RawDocument:
    """A document as read: `body` bytes to decode and extract, or ready `text`.

    `fault`: why bytes could not be read as a document; the other fields are nearly empty then. `crashed`: why the
    document is left out although it can be read.
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
    crashed: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


Documents = Iterator[RawDocument]


def read_documents(
    item: Input,
    max_bytes: int,
    *,
    skipped: Counter[str] | None = None,
    watch: Callable[[Input, Documents], Documents] | None = None,
) -> Documents:
    """Documents of one input file, in file order, at most the source's `limit`.

    An archive's records that are no page (requests, revisits, metadata) are added to `skipped` by type. watch: wraps
    the documents before those outside the source's `sample` and `limit` are passed over.
    """
    if item.source.type == "warc":
        documents = _read_warc(item, max_bytes, Counter() if skipped is None else skipped)
    else:
        readers = {"jsonl": _read_jsonl, "parquet": _read_parquet, "hf": _read_hf}
        documents = readers.get(item.source.type, _read_file)(item, max_bytes)
    if watch:
        documents = watch(item, documents)
    yield from islice((document for document in documents if _is_sampled(item, document)), item.source.limit)


def _is_sampled(item: Input, document: RawDocument) -> bool:
    share = item.source.sample
    return share >= 1 or int(document_id(item.key, document.offset)[:16], 16) < share * 2**64


def _read_warc(item: Input, max_bytes: int, skipped: Counter[str]) -> Iterator[RawDocument]:
    tally = Tally(skipped)
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
    with open_input(item.path) as file:
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
        with open_input(item.path) as raw, _decompressed(raw, item.path) as lines:
            for number, (line, cut) in enumerate(_lines(lines, _ESCAPED * max_bytes)):
                if cut:
                    yield _too_large(item, number, line[:max_bytes])
                elif line.strip():
                    yield _json_document(item, number, line, max_bytes)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        yield RawDocument(offset=-1, fault=f"{item.key}: cannot read any further: {error}")


def _lines(file: IO[bytes], limit: int) -> Iterator[tuple[bytes, bool]]:
    """(line without its end, whether it was cut at `limit` bytes): a compressed line may have any size."""
    parts: list[bytes] = []
    room, cut = limit, False
    while chunk := file.read(_CHUNK):
        *ends, tail = chunk.split(b"\n")
        for end in ends:
            yield b"".join([*parts, end[:room]]), cut or len(end) > room
            parts, room, cut = [], limit, False
        parts.append(tail[:room])
        cut = cut or len(tail) > room
        room -= len(parts[-1])
    yield b"".join(parts), cut


def _too_large(item: Input, number: int, head: bytes) -> RawDocument:
    url = f"file:{item.key}#{number}"
    return RawDocument(offset=number, url=url, media_type="text/plain", body=head, truncated=True)


def _json_document(item: Input, number: int, line: bytes, max_bytes: int) -> RawDocument:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        return RawDocument(offset=number, fault=f"line {number + 1} is not JSON: {error}")
    if not isinstance(row, dict):
        return RawDocument(offset=number, fault=f"line {number + 1} is not a JSON object")
    return _row_document(item, number, row, max_bytes)


def _row_document(item: Input, number: int, row: dict[str, Any], max_bytes: int) -> RawDocument:
    source = item.source
    text = row.get(source.text_key)
    if not isinstance(text, str):
        return RawDocument(
            offset=number, fault=f"row {number + 1} has no text under `{source.text_key}`, only {sorted(row)}"
        )
    # Surrogates cannot be stored as UTF-8; JSON may smuggle them in as escapes.
    data = text.encode("utf-8", "replace")
    if len(data) > max_bytes:
        return _too_large(item, number, data[:max_bytes])
    url = row.get(source.url_key or "") or row.get(source.id_key or "") or f"file:{item.key}#{number}"
    others = row if source.columns is None else source.columns
    metadata = {key: row[key] for key in others if key in row and key not in (source.text_key, source.url_key)}
    return RawDocument(
        offset=number,
        url=str(url),
        media_type="text/plain",
        text=data.decode("utf-8"),
        metadata=metadata,
    )


def _read_parquet(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    try:
        with open_input(item.path) as raw, pq.ParquetFile(raw) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1000, columns=_wanted(item.source, file.schema_arrow.names)):
                for row in batch.to_pylist():
                    yield _row_document(item, number, row, max_bytes)
                    number += 1
    except (pa.ArrowInvalid, OSError) as error:
        yield RawDocument(offset=-1, fault=f"{item.key}: cannot read any further: {error}")


def _wanted(source: Source, names: list[str]) -> list[str] | None:
    """Columns to read, None for all."""
    if source.columns is None:
        return None
    wanted = {source.text_key, source.url_key, source.id_key, *source.columns}
    return [name for name in names if name in wanted]


def _read_hf(item: Input, max_bytes: int) -> Iterator[RawDocument]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise PipelineError(
            f"source `{item.source.name}`: type `hf` needs the `datasets` library: pip install datasets"
        ) from error
    rows = load_dataset(item.path, split=item.source.split, streaming=True)
    for number, row in enumerate(rows):
        yield _row_document(item, number, row, max_bytes)


def _decompressed(raw: IO[bytes], path: str) -> IO[bytes]:
    """The decompressed bytes of `raw`; the format follows from the file's name."""
    if path.endswith(".gz"):
        return gzip.open(raw)  # type: ignore[return-value]
    if path.endswith((".zst", ".zstd")):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw))
    return raw
