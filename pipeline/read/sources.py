"""Read input files as raw documents, in file order, whatever their format.

Rows that are no document (broken JSON, no text) and archives' damage come as documents with a `fault`, so that they are
recorded. A source's `sample` keeps a share of the documents by a hash of file and offset: the same ones in every run,
and with a larger share all of them and more.

Of a Hugging Face data set on disk, the `datasets` library says which files make up a split; JSON lines and parquet are
then read here, row by row, and other formats by the library, to which one bad row is the end of the file.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from common.errors import PipelineError
from common.remote import open_input
from pipeline.config import Source
from pipeline.documents import TEXTS, document_id, storable
from pipeline.read.archives import Documents, RawDocument, Tally, read_records
from pipeline.read.commoncrawl import fetched, record_at
from pipeline.read.inputs import Input, files_below
from pipeline.read.messages import PIECE, decode_members

_CHUNK = 1 << 20
_ESCAPED = 6  # bytes that a character of one byte may take in JSON
_MEDIA_TYPES = {"html": "text/html", "text": "text/plain", "markdown": "text/markdown"}


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
    if item.source.type in ("warc", "commoncrawl"):
        read = _read_warc if item.source.type == "warc" else _read_crawl
        documents = read(item, max_bytes, Counter() if skipped is None else skipped)
    else:
        readers = {"jsonl": _read_jsonl, "parquet": _read_parquet, "hf": _read_hf}
        documents = readers.get(item.source.type, _read_file)(item, max_bytes)
    if watch:
        documents = watch(item, documents)
    yield from islice((document for document in documents if _is_sampled(item, document.offset)), item.source.limit)


def _is_sampled(item: Input, offset: int) -> bool:
    share = item.source.sample
    return share >= 1 or int(document_id(item.key, offset)[:16], 16) < share * 2**64


def _read_crawl(item: Input, max_bytes: int, skipped: Counter[str]) -> Documents:
    path = item.key.removeprefix(f"{item.source.name}/")
    with fetched(item.source, path, Path(item.path), lambda row: _is_sampled(item, row)) as records:
        is_empty = item.source.select is not None and not any(record.end for record in records)
        for document in () if is_empty else _read_warc(item, max_bytes, skipped):
            if records:
                record = record_at(records, document.offset)
                origin = {"warc_filename": record.file, "warc_record_offset": record.offset}
                document = replace(document, offset=record.row, metadata=origin)
            yield document
        for record in records:
            if record.fault:
                yield RawDocument(offset=record.row, fault=record.fault)


def _read_warc(item: Input, max_bytes: int, skipped: Counter[str]) -> Documents:
    tally = Tally(skipped)
    yield from read_records(item.path, max_bytes=max_bytes, tally=tally)
    for offset, message in tally.damage:
        yield RawDocument(offset=offset, fault=message)


def _read_file(item: Input, max_bytes: int) -> Documents:
    with open_input(item.path) as file:
        body = file.read(max_bytes + 1)
    media_type, is_cut = _MEDIA_TYPES[item.source.type], len(body) > max_bytes
    yield RawDocument(0, f"file:{item.key}", media_type=media_type, body=body[:max_bytes], truncated=is_cut)


def _read_jsonl(item: Input, max_bytes: int) -> Documents:
    number = -1
    try:
        with open_input(item.path) as raw:
            for number, (line, cut) in enumerate(_lines(_decompressed(raw, item.path), _ESCAPED * max_bytes)):
                if cut:
                    yield _too_large(item, number, line[:max_bytes])
                elif line.strip():
                    yield _json_document(item, number, line, max_bytes)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        yield _unreadable(item, f"cannot read beyond line {number + 1}: {error}")


def _unreadable(item: Input, message: str) -> RawDocument:
    """What is left of a file that cannot be read any further."""
    return RawDocument(offset=-1, fault=f"{item.key}: {message}")


def _lines(chunks: Iterator[bytes], limit: int) -> Iterator[tuple[bytes, bool]]:
    """(line without its end, whether it was cut at `limit` bytes): a compressed line may have any size."""
    parts: list[bytes] = []
    room, cut = limit, False
    for chunk in chunks:
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
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            raise
        except ValueError:  # more digits than Python reads as a number, or bytes that are no UTF-8
            row = json.loads(line, parse_int=Decimal)
    except (ValueError, RecursionError) as error:
        return RawDocument(offset=number, fault=f"line {number + 1} is not JSON: {error}")
    if not isinstance(row, dict):
        return RawDocument(offset=number, fault=f"line {number + 1} is not a JSON object")
    return _row_document(item, number, row, max_bytes)


def _row_document(item: Input, number: int, row: dict[str, Any], max_bytes: int) -> RawDocument:
    source = item.source
    text = row.get(source.text_key)
    if isinstance(text, bytes):  # as Spark and Impala write it
        with suppress(UnicodeDecodeError):
            text = text.decode()
    if not isinstance(text, str):
        there = f"a value that is no UTF-8 text under `{source.text_key}`"
        if row.get(source.text_key) is None:
            there = f"no text under `{source.text_key}`, only {shorten(str(sorted(map(str, row))), 500)}"
        return RawDocument(offset=number, fault=f"row {number + 1} has {there}")
    text = storable(text)
    data = text.encode()
    if len(data) > max_bytes:
        return _too_large(item, number, data[:max_bytes])
    url = row.get(source.url_key or "") or row.get(source.id_key or "") or f"file:{item.key}#{number}"
    others = row if source.columns is None else source.columns
    metadata = {key: row[key] for key in others if key in row and key not in (source.text_key, source.url_key)}
    return RawDocument(offset=number, url=storable(str(url)), media_type="text/plain", text=text, metadata=metadata)


def _read_parquet(item: Input, max_bytes: int) -> Documents:
    number = 0
    try:
        with open_input(item.path) as raw, pq.ParquetFile(raw) as file:
            if TEXTS in (file.schema_arrow.metadata or {}):
                yield _unreadable(
                    item, "its texts are in an earlier stage; `--to STAGE` of its recipe writes them here"
                )
                return
            for batch in file.iter_batches(batch_size=1000, columns=_wanted(item.source, file.schema_arrow.names)):
                for row in _python_rows(batch):
                    yield _row_document(item, number, row, max_bytes)
                    number += 1
    except Exception as error:  # noqa: BLE001 - in a damaged file Arrow meets anything, names that are no UTF-8 too
        yield _unreadable(item, f"cannot read beyond row {number}: {error}")


def _python_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table; a value that Python cannot hold, such as a date after the year 9999, as Arrow prints it."""
    try:
        yield from batch.to_pylist()
    except Exception:  # noqa: BLE001 - Arrow's types raise what they like, KeyError for a time zone among them
        columns = list(zip(batch.schema.names, batch.columns, strict=True))
        for number in range(batch.num_rows):
            yield {name: _python_value(column.slice(number, 1)) for name, column in columns}


def _python_value(cell: pa.Array) -> Any:
    try:
        return cell[0].as_py()
    except UnicodeDecodeError:
        return cell.cast(pa.binary())[0].as_py()
    except Exception:  # noqa: BLE001 - see above
        return " ".join(cell.to_string().split())


def _wanted(source: Source, names: list[str]) -> list[str] | None:
    """Columns to read, None for all."""
    if source.columns is None:
        return None
    wanted = {source.text_key, source.url_key, source.id_key, *source.columns}
    return [name for name in names if name in wanted]


def _read_hf(item: Input, max_bytes: int) -> Documents:
    """A data set of the hub by its name, or a folder on disk."""
    try:
        from datasets import load_dataset, load_dataset_builder
    except ImportError as error:
        raise PipelineError(
            f"source `{item.source.name}`: type `hf` needs the `datasets` library: pip install datasets"
        ) from error
    number = 0
    with TemporaryDirectory(prefix="hf-") as copy:
        path = item.path
        if Path(path).is_dir():
            path = str(_linked(Path(item.path), Path(copy).resolve() / "data"))
            try:
                files = load_dataset_builder(path).config.data_files or {}
            except Exception as error:
                reason = str(error).replace(path, item.path)
                raise PipelineError(f"source `{item.source.name}`: {item.path} is no data set: {reason}") from error
            listed = [str(file) for file in files.get(item.source.split, ())]
            if listed and all(map(_row_reader, listed)):
                yield from _read_parts(item, {str(Path(file).relative_to(path)): file for file in listed}, max_bytes)
                return
        try:
            rows = load_dataset(path, split=item.source.split, streaming=True)
            for batch in rows.with_format("arrow").iter(1000):
                for row in _python_rows(batch):
                    yield _row_document(item, number, row, max_bytes)
                    number += 1
        except Exception as error:  # noqa: BLE001 - the library's readers of other people's formats raise anything
            yield _unreadable(item, f"cannot read beyond row {number}: {error} ({type(error).__name__})")


def _linked(folder: Path, copy: Path) -> Path:
    """A copy of a folder in links to its files: the library takes names with [] for patterns, and follows no links."""
    copy.mkdir()
    for name, file in files_below(folder).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).symlink_to(file.resolve())
    return copy


def _row_reader(file: str) -> Callable[[Input, int], Documents] | None:
    """The reader of a file of rows, by its name; None for other files."""
    name = file.lower()
    if re.search(r"\.(jsonl|ndjson)(\.(gz|zst|zstd))?$", name):
        return _read_jsonl
    return _read_parquet if name.endswith(".parquet") else None


def _read_parts(item: Input, files: Mapping[str, str], max_bytes: int) -> Documents:
    """Files of one data set, by name; their rows are numbered on. What is unreadable of a file has its own number."""
    number = 0
    for order, (name, file) in enumerate(files.items(), 1):
        first, reader = number, _row_reader(file)
        for document in reader(replace(item, path=file, key=f"{item.key}/{name}"), max_bytes) if reader else ():
            place = first + document.offset if document.offset >= 0 else -order
            number = max(number, place + 1)
            yield replace(document, offset=place, fault=document.fault and f"{name}: {document.fault}")


def _decompressed(raw: IO[bytes], path: str) -> Iterator[bytes]:
    """The decompressed bytes of `raw`, all that come before any damage; the format follows from the file's name.

    Raises EOFError if a compressed stream ends before its end.
    """
    name = path.lower()
    if name.endswith(".gz"):
        with gzip.open(raw) as file:
            yield from iter(lambda: file.read1(_CHUNK), b"")
    elif name.endswith((".zst", ".zstd")):
        make_decoder = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj
        yield from decode_members(iter(lambda: raw.read(PIECE), b""), make_decoder)
    else:
        yield from iter(lambda: raw.read(_CHUNK), b"")
