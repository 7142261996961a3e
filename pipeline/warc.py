"""Read WARC, ARC and WET archives: every response, conversion and resource, whatever the file's state.

FastWARC reads first (about 5,000 records/s a core). Where it stops with an error or finds nothing (ARC), warcio
goes on from the last record that was delivered. Requests, metadata, revisits and warcinfo are counted, not
delivered; what no reader could get is entered in the tally with its offset. One record is in memory at a time,
cut at `max_bytes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import fsspec
from fastwarc.warc import ArchiveIterator
from warcio.archiveiterator import ArchiveIterator as WarcioIterator
from warcio.exceptions import ArchiveLoadFailed

from pipeline.http import Response, parse_content_type, parse_response

_DELIVERED = {"response", "conversion", "resource"}
DEFAULT_MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class Record:
    """One archived page. `charset` is what the HTTP header declares; `truncated` says max_bytes cut the body."""

    url: str
    id: str
    offset: int
    date: str
    media_type: str
    charset: str | None
    body: bytes
    status: int
    truncated: bool


@dataclass
class Tally:
    """What a reading did not deliver: records by type, and damage as (offset, message)."""

    skipped: Counter[str] = field(default_factory=Counter)
    damage: list[tuple[int, str]] = field(default_factory=list)


def read_records(path: str, *, max_bytes: int = DEFAULT_MAX_BYTES, tally: Tally | None = None) -> Iterator[Record]:
    """Records of an archive (local path or any fsspec URL), in file order.

    Compression (gzip members, zstd, lz4, none) is detected. Raises FileNotFoundError and other OSErrors of
    opening; damage inside the file is entered in `tally` and ends or skips, it never raises.
    """
    tally = tally if tally is not None else Tally()
    reached = -1
    delivered = 0
    try:
        with fsspec.open(path, "rb") as stream:
            for record in ArchiveIterator(stream, parse_http=False, quirks_mode=True):
                reached = record.stream_pos
                delivered += 1
                found = _from_fastwarc(record, max_bytes, tally)
                if found:
                    yield found
    except FileNotFoundError:
        raise
    except (OSError, ValueError, UnicodeDecodeError) as error:
        fault = str(error)
    else:
        fault = "" if delivered else "no WARC record found"
    if fault:
        yield from _read_rest(path, reached, fault, max_bytes, tally)


def _read_rest(path: str, reached: int, fault: str, max_bytes: int, tally: Tally) -> Iterator[Record]:
    """Go on with warcio behind the record at offset `reached` (-1: from the start)."""
    got = 0
    with fsspec.open(path, "rb") as stream:
        stream.seek(max(reached, 0))
        try:
            iterator = WarcioIterator(stream, arc2warc=True, no_record_parse=True)
            for record in iterator:
                offset = max(reached, 0) + iterator.get_record_offset()
                if offset <= reached:
                    continue
                got += 1
                found = _from_warcio(record, offset, max_bytes, tally)
                if found:
                    yield found
        except (ArchiveLoadFailed, OSError, ValueError, EOFError) as error:
            tally.damage.append((reached, f"{fault}; {error}"))
            return
    if not got:
        tally.damage.append((reached, fault))


def _from_fastwarc(record: Any, max_bytes: int, tally: Tally) -> Record | None:
    kind = str(record.record_type)
    if kind not in _DELIVERED:
        tally.skipped[kind] += 1
        return None
    return _make(kind, record.headers.asdict(), record.stream_pos, record.reader, max_bytes)


def _from_warcio(record: Any, offset: int, max_bytes: int, tally: Tally) -> Record | None:
    if record.rec_type not in _DELIVERED:
        tally.skipped[record.rec_type] += 1
        return None
    return _make(record.rec_type, dict(record.rec_headers.headers), offset, record.raw_stream, max_bytes)


def _make(kind: str, raw_headers: dict[str, str], offset: int, reader: IO[bytes], max_bytes: int) -> Record:
    headers = {key.lower(): value for key, value in raw_headers.items()}
    # Headers of a response come on top of its body; a compressed body is cut after decoding.
    block = reader.read(max_bytes + 65_536)
    declared = headers.get("content-type", "")
    if kind == "response" and (declared.startswith("application/http") or block.startswith(b"HTTP/")):
        response = parse_response(block, max_bytes)
        declared = response.headers.get("content-type", "")
    else:
        response = Response(200, {}, block[:max_bytes], len(block) > max_bytes)
    media_type, charset = parse_content_type(declared)
    return Record(
        url=headers.get("warc-target-uri", "").strip("<>"),
        id=headers.get("warc-record-id", "").strip("<>"),
        offset=offset,
        date=headers.get("warc-date", ""),
        media_type=media_type,
        charset="utf-8" if kind == "conversion" else charset,
        body=response.body,
        status=response.status,
        truncated=response.truncated,
    )
