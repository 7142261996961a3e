"""Source `commoncrawl`: a crawl's archives as Common Crawl serves them, whole or record by record from its index.

    {name: web, type: commoncrawl, crawl: CC-MAIN-2026-21, paths: ["*-0000?.warc.gz"]}
    {name: law, type: commoncrawl, crawl: CC-MAIN-2026-21, paths: ["*"], select: {hosts: [bund.de], languages: [deu]}}

Layout: `crawl-data/<crawl>/warc.paths.gz` and `cc-index-table.paths.gz` list one path a line. Without `select`, `paths`
are patterns on the first list and an input is an archive. With it they are patterns on the second (its part for pages)
and an input is a file of the columnar index, sorted by host backwards: row groups without a wanted host are not read,
and of the others five columns; then each selected record is fetched by its byte range.

Everything fetched lands in the folder `fetch.store` first and is read from there: an archive goes on at the byte, a
selection at the record at which a process died, and a second run asks for nothing. Archives leave the store once they
are read unless `fetch.keep` says otherwise; selections stay. Ids: of an archive as of any; of a selected record the
index file and the row, so that another selection does not change them. Costs the transfer, and a record's request.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.errors import PipelineError
from common.files import dump_json
from pipeline.config import Select, Source

if TYPE_CHECKING:
    from pipeline.read.polite import Server

ARCHIVE_BYTES = 1_000_000_000  # about; the list does not say, and asking takes a request each
_PAGES = "/subset=warc/"  # the index has other parts for robots.txt and failures
_TRAITS = ["url_host_name", "content_mime_detected", "content_languages"]
_PLACE = ["warc_filename", "warc_record_offset", "warc_record_length"]


class Record(NamedTuple):
    """A record that a selection fetched, or could not (`fault`).

    row: in the index file; start, end: in the stored file; file, offset: where the crawl has it.
    """

    row: int
    start: int
    end: int
    file: str
    offset: int
    fault: str | None = None


def list_crawl(source: Source, base: Path) -> dict[str, Path]:
    """{path on the server: where the store has what is fetched of it} of the inputs, sorted. Raises PipelineError."""
    name = "cc-index-table.paths.gz" if source.select else "warc.paths.gz"
    listing = f"crawl-data/{source.crawl}/{name}"
    store = base / source.fetch.store
    try:
        text = gzip.decompress(_fetch_file(_server(source, store), listing, store / listing).read_bytes()).decode()
    except FileNotFoundError as error:
        raise PipelineError(f"source `{source.name}`: {error}; is there a crawl `{source.crawl}`?") from error
    except (OSError, EOFError, ValueError) as error:
        raise PipelineError(f"source `{source.name}`: cannot list crawl `{source.crawl}`: {error}") from error
    lines = [line for line in text.split() if not source.select or _PAGES in line]
    for pattern in source.paths:
        if not any(fnmatchcase(line, pattern) for line in lines):
            raise PipelineError(
                f"source `{source.name}`: `{pattern}` matches none of the {len(lines)} paths in {listing}"
                f" (the first: {', '.join(lines[:1])}); correct `paths`"
            )
    matched = sorted(line for line in lines if any(fnmatchcase(line, pattern) for pattern in source.paths))
    if outside := [line for line in matched if line.startswith("/") or ".." in line.split("/")]:
        raise PipelineError(f"source `{source.name}`: {listing} names a path outside the store: {outside[0]}")
    mark = ""
    if source.select:  # what decides which records are stored
        decisive = dump_json([source.select.model_dump(), source.sample, source.limit])
        mark = f".{hashlib.blake2b(decisive.encode(), digest_size=6).hexdigest()}.warc.gz"
    return {line: store / f"{line}{mark}" for line in matched}


@contextmanager
def fetched(source: Source, path: str, stored: Path, wanted: Callable[[int], bool]) -> Iterator[list[Record]]:
    """Fetch an input into the store, unless it is there. Gives the records of a selection, none for a whole archive.

    path: on the server; stored: in the store, an archive that can be read within the block; wanted: whether a row of
    the index is in the source's sample. Raises OSError.
    """
    server = _server(source, stored.parents[path.count("/")])
    if source.select:
        rows = (row for row in _selected(server, path, source.select) if wanted(row[0]))
        yield _fetch_records(server, islice(rows, source.limit), stored)
        return
    _fetch_file(server, path, stored)
    yield []
    if not source.fetch.keep:
        stored.unlink(missing_ok=True)


def record_at(records: list[Record], offset: int) -> Record:
    """The record that holds an offset of the stored file."""
    return records[max(bisect_right(records, offset, key=lambda record: record.start) - 1, 0)]


def _server(source: Source, store: Path) -> Server:
    from pipeline.read.polite import Server  # its library takes a tenth of a second to load

    fetch = source.fetch
    agent = f"pretrain (a corpus builder; {fetch.contact or 'no contact given'})"
    return Server(fetch.server, store / ".turns", fetch.parallel, agent)


def _fetch_file(server: Server, path: str, stored: Path) -> Path:
    """Fetch a whole file, from the byte on that an earlier try reached."""
    stored.parent.mkdir(parents=True, exist_ok=True)
    partial = stored.with_name(f"{stored.name}.partial")
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another run may share the store
        if not stored.exists():
            for piece in server.read(path, file.tell()):
                file.write(piece)
            file.flush()
            partial.rename(stored)
    partial.unlink(missing_ok=True)
    return stored


def _fetch_records(server: Server, rows: Iterator[tuple[int, str, int, int]], stored: Path) -> list[Record]:
    """Fetch records one after the other into one file; the journal beside it has a line for each, and a last one."""
    stored.parent.mkdir(parents=True, exist_ok=True)
    with stored.open("ab") as data, stored.with_name(f"{stored.name}.journal").open("a+b") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        records, is_complete = _resume(data, journal)
        if is_complete:
            return records
        last = records[-1].row if records else -1
        for row, file, offset, length in rows:
            if row <= last:
                continue
            start, fault = data.tell(), None
            try:
                for piece in server.read(file, offset, offset + length):
                    data.write(piece)
            except FileNotFoundError as error:
                fault = str(error)
            data.flush()
            records.append(Record(row, start, data.tell(), file, offset, fault))
            _enter(journal, list(records[-1]))
        _enter(journal, None)
        return records


def _resume(data: IO[bytes], journal: IO[bytes]) -> tuple[list[Record], bool]:
    """(records of the journal, whether they are all), with what came after the last complete one cut off."""
    journal.seek(0)
    lines = journal.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        journal.truncate(sum(map(len, lines[:-1])))
        lines.pop()
    entries = [json.loads(line) for line in lines]
    records = [Record(*entry) for entry in entries if entry is not None]
    data.truncate(records[-1].end if records else 0)
    data.seek(0, 2)
    return records, entries[-1:] == [None]


def _enter(journal: IO[bytes], entry: list[Any] | None) -> None:
    journal.write(json.dumps(entry).encode() + b"\n")
    journal.flush()


def _selected(server: Server, path: str, select: Select) -> Iterator[tuple[int, str, int, int]]:
    """(row, archive, offset, length) of the records that an index file has of a selection."""
    first = 0
    with server.open(path) as file, pq.ParquetFile(file) as index:
        for number in range(index.num_row_groups):
            group = index.metadata.row_group(number)
            if _may_hold(group, select.hosts):
                table = index.read_row_group(number, columns=[*_TRAITS, *_PLACE])
                chosen = pc.indices_nonzero(_matches(table, select))
                places = (column.to_pylist() for column in table.select(_PLACE).take(chosen).columns)
                yield from zip((row.as_py() + first for row in chosen), *places, strict=True)
            first += group.num_rows


def _may_hold(group: pq.RowGroupMetaData, hosts: list[str]) -> bool:
    """Whether a row group's range of keys, hosts backwards (`org,example)/page`), has room for one of the hosts."""
    columns = (group.column(i) for i in range(group.num_columns))
    keys = next((column.statistics for column in columns if column.path_in_schema == "url_surtkey"), None)
    if not hosts or keys is None or not keys.has_min_max:
        return True
    backwards = (",".join(reversed(host.removeprefix("www.").split("."))) for host in hosts)
    return any(keys.min <= f"{host},\U0010ffff" and keys.max >= f"{host})" for host in backwards)


def _matches(table: pa.Table, select: Select) -> pa.ChunkedArray:
    """Which rows a selection takes: hosts with what lies below them, the first language, the type by content."""
    host, media_type, languages = (table[name] for name in _TRAITS)
    mask = pa.chunked_array([pa.array([True] * table.num_rows)])
    if select.hosts:
        any_host = pc.is_in(host, pa.array(select.hosts))
        for name in select.hosts:
            any_host = pc.or_(any_host, pc.ends_with(host, f".{name}"))
        mask = pc.and_(mask, any_host)
    if select.languages:
        mask = pc.and_(mask, pc.is_in(pc.utf8_slice_codeunits(languages, 0, 3), pa.array(select.languages)))
    if select.media_types:
        mask = pc.and_(mask, pc.is_in(media_type, pa.array(select.media_types)))
    return pc.fill_null(mask, False)
