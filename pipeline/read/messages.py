"""HTTP messages as archives hold them and as browsers read them.

Headers are often wrong: they say `chunked` over a body that is not, `gzip` over plain bytes, or
promise a length that never comes. Each decoding is therefore tried and, where the bytes contradict the header, left
out. Output never exceeds `limit` bytes, whatever a small compressed body would expand to.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import brotli
import zstandard

PIECE = 2048  # fed to a decoder at a time: a hostile zstd frame unfolds it to 64 MB
MAX_ENCODINGS = 4  # nested content encodings that are undone; no server sends more
_STATUS = re.compile(rb"(?:HTTP(?:/\d(?:\.\d)?)?|H[23])[ \t]+(\d{3})", re.IGNORECASE)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"[\s\"']*({_TOKEN}/{_TOKEN})")
_CHARSET = re.compile(r"charset\s*[=:]\s*[\"']*\s*([\w.:-]+)", re.IGNORECASE)
# The MIME Sniffing Standard's patterns for HTML, each followed by a blank or ">", and for what is no text at all.
_HTML = re.compile(
    rb"[\t\n\f\r ]*<(?:!--|(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P)[ >])",
    re.IGNORECASE,
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_BOMS = (b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf")
SNIFFED_BYTES = 1445
_UNKNOWN = ("*/*", "unknown/unknown", "application/unknown")
_CHUNK_SIZE = re.compile(rb"^[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class Response:
    """A decoded HTTP response. status: 0 for a message without a readable status line."""

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool


def is_message(block: bytes) -> bool:
    """Whether a block begins with a status line."""
    return _STATUS.match(block) is not None


def parse_response(block: bytes, limit: int) -> Response:
    """Decode one HTTP message (status line, headers, body). `truncated` says that `limit` cut the body.

    Interim answers (100 Continue) and a proxy's head without any header before the message are passed over.
    """
    head, body = _split_head(block.lstrip(b"\r\n"))
    lines = head.splitlines()
    status = _STATUS.match(lines[0]) if lines else None
    if status and (status[1][:1] == b"1" or len(lines) == 1) and _STATUS.match(body):
        return parse_response(body, limit)
    headers = _parse_headers(lines[1:] if status else lines)
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = dechunk(body)
    truncated = False
    for encoding in reversed(headers.get("content-encoding", "").lower().split(",")[:MAX_ENCODINGS]):
        body, cut = decompress(body, encoding.strip(), limit)
        truncated = truncated or cut
    return Response(int(status[1]) if status else 0, headers, body[:limit], truncated or len(body) > limit)


def parse_content_type(value: str) -> tuple[str, str | None]:
    """(media type in lower case, charset or None) of a Content-Type header, doubled, quoted or without semicolons.

    Of several types the last one counts (the Fetch Standard); it keeps the charset of an equal one before it.
    """
    media_type, charset = "", None
    for part in re.findall(r'(?:"[^"]*"|[^,])+', value):
        found = _MEDIA_TYPE.match(part)
        if found and (name := found[1].lower()) not in _UNKNOWN:
            media_type, charset = name, charset if name == media_type else None
        if named := _CHARSET.search(part):
            charset = named[1].lower()
    return media_type, charset


def sniff(body: bytes) -> str:
    """Media type of a body that no header names, by the MIME Sniffing Standard's rules for an unknown type.

    Other than there, XML that declares XHTML is called that, and all else that is no text has one name.
    """
    start = body[:SNIFFED_BYTES]
    if _HTML.match(start.removeprefix(_BOMS[2])):
        return "text/html"
    if start.lstrip(b"\t\n\f\r \xef\xbb\xbf").startswith(b"<?xml"):
        return "application/xhtml+xml" if b"<html" in start.lower() else "text/xml"
    if start.startswith((b"%PDF-", b"%!PS-Adobe-")) or (not start.startswith(_BOMS) and _BINARY.search(start)):
        return "application/octet-stream"
    return "text/plain"


def dechunk(body: bytes) -> bytes:
    """Undo chunked transfer coding; a body that is not chunked after all comes back as it is."""
    parts: list[bytes] = []
    position = 0
    while header := _CHUNK_SIZE.match(body[position : position + 512]):
        size = int(header[1], 16)
        start = position + header.end()
        if size == 0:
            return b"".join(parts)
        parts.append(body[start : start + size])
        position = start + size
        position += 2 if body[position : position + 2] == b"\r\n" else body[position : position + 1] == b"\n"
    # Ended without the last chunk: cut off by the crawler if chunks were read, else never chunked.
    return b"".join(parts) if parts else body


def decompress(body: bytes, encoding: str, limit: int) -> tuple[bytes, bool]:
    """(decoded body, whether `limit` cut it). A body that does not match its encoding comes back as it is."""
    try:
        if encoding in ("gzip", "x-gzip"):
            return _read_members(body, lambda: zlib.decompressobj(31), limit)
        if encoding == "deflate":
            decoded = zlib.decompressobj(15 if body[:1] == b"\x78" else -15).decompress(body, limit + 1)
            return (decoded[:limit] or body), len(decoded) > limit
        if encoding == "br":
            return _unbrotli(body, limit)
        if encoding == "zstd":
            return _read_members(body, zstandard.ZstdDecompressor().decompressobj, limit)
    except (zlib.error, brotli.error):
        pass  # the header lied: keep the bytes as they are
    return body, False


def _read_members(body: bytes, make_decoder: Callable[[], Any], limit: int) -> tuple[bytes, bool]:
    """A body of any number of members or frames, until damage or the limit; (body, False) if there are none."""
    ends = [*range(PIECE, len(body) - 8, PIECE), max(len(body) - 8, 0), len(body)]  # a checksum comes alone
    pieces = (body[start:end] for start, end in zip([0, *ends], ends, strict=False))
    parts: list[bytes] = []
    size = 0
    try:
        for part in decode_members(pieces, make_decoder):
            parts.append(part)
            size += len(part)
            if size > limit:
                break
    except (EOFError, zlib.error, zstandard.ZstdError):
        if not size:
            return body, False
    return b"".join(parts)[:limit], size > limit


def decode_members(pieces: Iterable[bytes], make_decoder: Callable[[], Any]) -> Iterator[bytes]:
    """The content of compressed members or frames, one after another. Raises EOFError if the last one is cut off."""
    decoder = None
    for data in pieces:
        while data:
            decoder = decoder or make_decoder()
            yield decoder.decompress(data)
            data = decoder.unused_data
            if decoder.eof:
                decoder = None
    if decoder:
        raise EOFError("compressed data ends before its end-of-stream marker")


def _unbrotli(body: bytes, limit: int) -> tuple[bytes, bool]:
    decoder = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    for start in range(0, len(body), 4096):
        data = body[start : start + 4096]
        while size <= limit:
            part = decoder.process(data, output_buffer_limit=1 << 20)
            parts.append(part)
            size += len(part)
            if decoder.can_accept_more_data():
                break
            data = b""
    decoded = b"".join(parts)
    return (decoded[:limit] or body), size > limit


def _split_head(block: bytes) -> tuple[bytes, bytes]:
    at, length = block.find(b"\r\n\r\n"), 4
    before = block.find(b"\n\n", 0, at if at >= 0 else len(block))
    if before >= 0:
        at, length = before, 2
    return (block[:at], block[at + length :]) if at >= 0 else (block, b"")


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.decode("latin-1").partition(":")
        name, value = key.strip().lower(), value.strip()
        if colon and name == "content-type" and name in headers:
            headers[name] += f", {value}"
        elif colon:  # the first of other repeated headers counts
            headers.setdefault(name, value)
    return headers
