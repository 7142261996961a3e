"""Read WARC, ARC and WET archives: every response, conversion and resource, whatever the file's state.

FastWARC reads first (about 5,000 records/s a core). Where it fails or knows no type (ARC, odd headers), warcio resumes
at that record; where both fail, reading resumes at the next member or record that begins after the damage. Requests,
metadata, revisits and warcinfo are counted, not delivered; what no reader could get is entered in the tally with its
offset. One record is in memory at a time, cut at `max_bytes`; a compressed record that claims SKIPPED_BYTES more than
that is not decompressed any further, and neither is the rest of its gzip member.

Lengths in archives are often wrong. One that reaches into the next record is cut there; bytes between two records of an
uncompressed archive are entered. An archive that is compressed as a whole is read like one that is not compressed.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from fastwarc.warc import ArchiveIterator

from common.remote import open_input
from pipeline.read.messages import (
    PIECE,
    Response,
    decode_members,
    is_message,
    parse_content_type,
    parse_response,
    sniff,
)

DEFAULT_MAX_BYTES = 10_000_000
SKIPPED_BYTES = 200_000_000
HEAD_BYTES = 65_536  # room for HTTP headers on top of a body of max_bytes
_DELIVERED = {"response", "conversion", "resource"}
_TYPES = _DELIVERED | {"warcinfo", "request", "metadata", "revisit", "continuation"}
_GZIP = b"\x1f\x8b\x08"
_STARTS = re.compile(rb"\x1f\x8b\x08|\x28\xb5\x2f\xfd|WARC/")  # of a record: gzip or zstd member, plain header
_WINDOW = 1 << 20
_PADDING = b"\0\r\n\t "
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# A record's header within a block, whole or cut off by the block's end; and what follows a block of the right length.
_WITHIN = re.compile(rb"\r?\n\r?\n(?=WARC/\d\.\d\s|W(?:A(?:R(?:C(?:/(?:\d(?:\.\d?)?)?)?)?)?)?\Z)")
_BOUNDARY = re.compile(rb"[\r\n]*(?:WARC/\d|\Z)")
_ADDRESS = re.compile(r"<?[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x1f\x7f]*\Z")


# First bytes of compressed members: what decodes one.
_PACKED: dict[bytes, Callable[[], Any]] = {
    _GZIP: lambda: zlib.decompressobj(31),
    b"\x28\xb5\x2f\xfd": zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj,
    b"\x04\x22\x4d\x18": lz4.frame.LZ4FrameDecompressor,
}
_BROKEN = (EOFError, zlib.error, zstandard.ZstdError, RuntimeError)  # RuntimeError: lz4
# Raised by the readers on bytes that are no archive; warcio does not catch errors of its own parsing.
_FAULTS = (OSError, ValueError, EOFError, AttributeError, IndexError, zlib.error)


@dataclass(frozen=True)
class RawDocument:
    """A document as read: `body` bytes to decode and extract, or ready `text`.

    charset: declared by an HTTP header; status: of an HTTP response; truncated: max_bytes cut the body. id, type: of an
    archive's record (response, resource or conversion). `fault`: why bytes could not be read as a document; the other
    fields are nearly empty then. `crashed`: why the document is left out although it can be read.
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
    id: str = ""
    type: str = ""


Documents = Iterator[RawDocument]


@dataclass
class Tally:
    """What was read but not delivered: records by type, and damage as (offset, message)."""

    skipped: Counter[str] = field(default_factory=Counter)
    damage: list[tuple[int, str]] = field(default_factory=list)


def read_records(
    path: str | Path, *, max_bytes: int = DEFAULT_MAX_BYTES, tally: Tally | None = None, start: int = 0
) -> Documents:
    """Records of an archive (local path or any fsspec URL), in file order.

    Compression (gzip members, zstd, lz4, none) is detected. start: `offset` of the record to begin with, in files whose
    records are compressed one by one, or not at all. Raises FileNotFoundError and other OSErrors of opening; damage
    inside the file is entered in `tally` and never raises.
    """
    reading = _Reading(str(path), max_bytes, tally if tally is not None else Tally())
    position: int | None = start
    while position is not None:
        yield from reading.read_from(position)
        position = reading.resume_offset()


class _Reading:
    """One file in the course of reading.

    reached: offset of the last record begun, or at which to resume; claimed: its length by its header; fault: why
    reading stopped; imprecise: the last damage entered is somewhere after the complete record at its offset; resume:
    offset of a record that the one before claims; packed: compressed as a whole, so that offsets are those of the
    decompressed archive.
    """

    def __init__(self, path: str, max_bytes: int, tally: Tally) -> None:
        self.path, self.max_bytes, self.tally = path, max_bytes, tally
        self.reached = -1
        self.fault = ""
        self.records = 0
        self.claimed = 0
        self.plain = False
        self.imprecise = False
        self.resume: int | None = None
        with open_input(path) as stream:
            self.packed = _packed_as_one(stream)

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with open_input(self.path) as stream:
            yield io.BufferedReader(_Unpacked(stream, self.packed)) if self.packed else stream

    def _read_at(self, offset: int, size: int) -> bytes:
        with self._open() as stream:
            stream.seek(offset)
            return stream.read(size)

    def read_from(self, start: int) -> Documents:
        """Records from `start` on, by FastWARC and then, where it stops, by warcio."""
        self.fault, self.records, self.resume = "", 0, None
        with self._open() as stream:
            try:
                yield from self._fastwarc(stream, start)
            except _FAULTS as error:
                self.fault = str(error) or type(error).__name__
            broken = getattr(getattr(stream, "raw", None), "fault", "")
        if self.resume is not None:
            return
        if broken and self.reached not in [offset for offset, _ in self.tally.damage]:
            self.tally.damage.append((max(self.reached, 0), broken))
        if self.records and not self.fault:
            self._enter_end()
        if not self.records and not self.fault:
            self.fault = "holds no WARC record"
        if self.fault and not self.fault.startswith(_TOO_LARGE):
            from warcio.exceptions import ArchiveLoadFailed  # it takes 0.07 s, and most archives are intact

            logging.getLogger("warcio").setLevel(logging.ERROR)  # it prints damaged bytes as warnings
            with self._open() as stream:
                try:
                    yield from self._warcio(stream, self.reached if self.records else start)
                except (*_FAULTS, ArchiveLoadFailed) as error:
                    self.fault = f"{self.fault}; {error}"

    def resume_offset(self) -> int | None:
        """Enter the fault in the tally, if there is one. Returns where to resume, None at the end."""
        if self.resume is not None:
            return self.resume
        if not self.fault:
            return None
        if self.imprecise and not self.records:
            self.tally.damage.pop()  # the same damage, whose offset is now known
        self.imprecise = self.records > 0
        self.tally.damage.append((max(self.reached, 0), self.fault))
        with self._open() as stream:
            self.reached = _next_start(stream, max(self.reached, 0) + 1)
        return None if self.reached < 0 else self.reached

    def _fastwarc(self, stream: IO[bytes], start: int) -> Documents:
        self.plain = plain = self.packed is not None or not self._read_at(start, 4).startswith(tuple(_PACKED))
        stream.seek(start)
        end = start
        for record in ArchiveIterator(stream, parse_http=False, quirks_mode=True):
            kind = str(record.record_type).rpartition(".")[2]
            if kind in ("no_type", "unknown") and _declared_type(record) in _TYPES:
                raise ValueError(_UNREAD)  # it may have silently skipped others before this one
            if plain and record.stream_pos > end:  # what FastWARC passed over in silence
                gap = self._end() if self.records else start
                if self._read_at(gap, min(max(record.stream_pos - gap, 0), _WINDOW)).strip(_PADDING):
                    self.tally.damage.append((gap, f"{record.stream_pos - gap} bytes that belong to no record"))
            headers, claimed = record.headers.asdict(), record.content_length
            self.reached, self.claimed = record.stream_pos, claimed
            self.records += 1
            if plain:
                end = self.reached + claimed + sum(len(name) + len(value) + 4 for name, value in headers.items()) + 16
            block = record.reader.read(self.max_bytes + HEAD_BYTES)
            if swallowed := self._swallowed(block):
                length, self.resume = swallowed
                message = f"record ends after {length} of {claimed} bytes, where another begins"
                self.tally.damage.append((self.reached, message))
                block, claimed = block[:length], length
            if kind in _DELIVERED:
                yield self._make(kind, headers, self.reached, block, claimed)
            else:
                self.tally.skipped[kind] += 1
            if self.resume is not None:
                return
            if claimed > self.max_bytes + SKIPPED_BYTES and not plain:
                raise ValueError(f"{_TOO_LARGE}: {claimed} bytes claimed")

    def _block_offset(self) -> int:
        """Offset of the block of the record at `reached`."""
        head = self._read_at(self.reached, HEAD_BYTES)
        blank = _BLANK_LINE.search(head)
        return self.reached + (blank.end() if blank else len(head))

    def _end(self) -> int:
        return self._block_offset() + self.claimed

    def _enter_end(self) -> None:
        """Enter what FastWARC passed over in silence after the last record."""
        with self._open() as stream:
            cut = _next_start(stream, self.reached + 1)
        if cut >= 0:
            self.tally.damage.append((cut, "record cut off in its header"))
        elif self.plain and (rest := self._read_at(begin := self._end(), _WINDOW)).strip(_PADDING):
            self.tally.damage.append((begin, f"{len(rest)} bytes that belong to no record"))

    def _swallowed(self, block: bytes) -> tuple[int, int] | None:
        """(length, offset of the next record) of a block whose claimed length reaches into the next record.

        A page may well hold another archive: its own length is believed where a record, or the file, ends there.
        """
        within = _WITHIN.search(block) if b"W" in block[-10:] or _names_archive(block) else None
        if within is None:
            return None
        if not self.plain:
            with self._open() as stream:
                stream.seek(self.reached)
                member, size = _read_member(stream, self.max_bytes + 2 * HEAD_BYTES)
            blank = _BLANK_LINE.search(member)
            length = len(member.rstrip(b"\r\n")) - (blank.end() if blank else 0)
            return (length, self.reached + size) if length < self.claimed - 4 else None
        begin = self._block_offset()
        is_short = len(block) < min(self.claimed, self.max_bytes + HEAD_BYTES)
        if not is_short and _BOUNDARY.match(self._read_at(begin + self.claimed, 16)):
            return None
        return within.start(), begin + within.end()

    def _warcio(self, stream: IO[bytes], start: int) -> Documents:
        """Resume at the record at `start`, or after it if it was delivered already."""
        from warcio.archiveiterator import ArchiveIterator as WarcioIterator

        stream.seek(start)
        again = self.records > 0
        iterator = WarcioIterator(stream, arc2warc=True, no_record_parse=True)
        count = 0
        for record in iterator:
            count += 1
            if again and count == 1:
                continue
            kind = (record.rec_type or "unknown").lower()
            headers = dict(record.rec_headers.headers)
            if kind in _DELIVERED and not _ADDRESS.match(headers.get("WARC-Target-URI", "urn:")):
                raise ValueError("no record where one should begin")  # warcio takes compressed bytes for an ARC header
            self.reached = iterator.offset
            self.records += 1
            if kind in _DELIVERED:
                block = record.raw_stream.read(self.max_bytes + HEAD_BYTES)
                yield self._make(kind, headers, iterator.offset, block, record.length or 0)
            else:
                self.tally.skipped[kind] += 1
        if count > int(again):
            self.fault = ""

    def _make(self, kind: str, raw_headers: dict[str, str], offset: int, block: bytes, claimed: int) -> RawDocument:
        headers = {key.lower(): value for key, value in raw_headers.items()}
        if len(block) < min(claimed, self.max_bytes + HEAD_BYTES):
            self.tally.damage.append((offset, f"record ends after {len(block)} of {claimed} bytes"))
        elif "content-length" not in headers:
            self.tally.damage.append((offset, "record header without a length"))
        declared = headers.get("content-type", "")
        if kind == "response" and (declared.startswith("application/http") or is_message(block)):
            response = parse_response(block, self.max_bytes)
            declared = response.headers.get("content-type", "")
        else:
            response = Response(200, {}, block[: self.max_bytes], len(block) > self.max_bytes)
        media_type, charset = parse_content_type(declared)
        return RawDocument(
            url=headers.get("warc-target-uri", "").strip("<>"),
            id=headers.get("warc-record-id", "").strip("<>"),
            offset=offset,
            date=headers.get("warc-date", ""),
            media_type=media_type or sniff(response.body),
            charset="utf-8" if kind == "conversion" else charset,
            body=response.body,
            status=response.status,
            truncated=response.truncated or claimed > self.max_bytes + HEAD_BYTES,
            type=kind,
        )


def _names_archive(block: bytes) -> bool:
    """Whether `WARC/` occurs. From one W to the next Python's search is four times as fast as for the whole mark."""
    at = -1
    for _ in range(100):
        at = block.find(b"W", at + 1)
        if at < 0 or block.startswith(b"WARC/", at):
            return at >= 0
    return b"WARC/" in block[at:]


_TOO_LARGE, _UNREAD = "record too large to decompress", "record whose type FastWARC does not recognize"


def _declared_type(record: Any) -> str:
    """WARC-Type in lower case: the standard ignores the case of name and value, FastWARC does not."""
    return next((v.lower() for k, v in record.headers.asdict().items() if k.lower() == "warc-type"), "")


class _Unpacked(io.RawIOBase):
    """Content of an archive that is compressed as a whole, read forwards; it ends at damage, named by `fault`."""

    def __init__(self, stream: IO[bytes], make_decoder: Callable[[], Any]) -> None:
        self.pieces = decode_members(iter(lambda: stream.read(PIECE), b""), make_decoder)
        self.piece = memoryview(b"")
        self.position = 0
        self.fault = ""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        offset += self.position if whence == io.SEEK_CUR else 0
        while self.position < offset and self.read(min(offset - self.position, _WINDOW)):
            pass
        return self.position

    def readinto(self, buffer: Any) -> int:
        try:
            while not self.piece:
                self.piece = memoryview(next(self.pieces))
        except StopIteration:
            return 0
        except _BROKEN as error:
            self.fault = str(error)
            return 0
        size = min(len(buffer), len(self.piece))
        buffer[:size] = self.piece[:size]
        self.piece = self.piece[size:]
        self.position += size
        return size


def _read_member(stream: IO[bytes], limit: int) -> tuple[bytes, int]:
    """(content, stored size) of the compressed member at the stream's position; content about to `limit` bytes."""
    data, content, size = stream.read(4), bytearray(), 0
    decoder = next((make() for mark, make in _PACKED.items() if data.startswith(mark)), None)
    try:
        while decoder and data and not decoder.eof and len(content) < limit:
            size += len(data)
            content += decoder.decompress(data)
            data = stream.read(PIECE)
    except _BROKEN:
        return bytes(content), size
    return bytes(content), size - len((decoder and decoder.unused_data) or b"")


def _packed_as_one(stream: IO[bytes]) -> Callable[[], Any] | None:
    """Decoder of an archive whose first compressed member holds several records, as its first megabyte shows."""
    magic = stream.read(4)
    stream.seek(0)
    make_decoder = next((make for mark, make in _PACKED.items() if magic.startswith(mark)), None)
    return make_decoder if make_decoder and _WITHIN.search(_read_member(stream, _WINDOW)[0]) else None


def _next_start(stream: IO[bytes], position: int) -> int:
    """Offset of the first byte from `position` on at which a record begins, -1 if there is none."""
    position = max(position - 4, 0)  # a plain header follows a blank line
    stream.seek(position)
    window = stream.read(_WINDOW)
    while window:
        for at in (start.start() for start in _STARTS.finditer(window)):
            if at >= 4 and _begins_record(window[at - 4 : at], window[at : at + 4096]):
                return position + at
        more = stream.read(_WINDOW)
        if not more:
            return -1
        kept = min(len(window), 4096)  # a start that the window's end cut off
        position += len(window) - kept
        window = window[-kept:] + more
    return -1


def _begins_record(before: bytes, data: bytes) -> bool:
    """Whether a record begins here: a plain header after a blank line, or a gzip or zstd member that holds one."""
    if data.startswith(b"WARC/"):
        return data[5:6].isdigit() and before.endswith((b"\n\n", b"\n\r\n"))
    try:
        content = next(make() for mark, make in _PACKED.items() if data.startswith(mark)).decompress(data)
        return not content or content.startswith((b"WARC/", b"filedesc:", b"http"))  # none yet: a large block
    except _BROKEN:
        return False
