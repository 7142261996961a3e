"""HTTP messages as they stand in archives: split, de-chunk, decompress, within a size limit.

Archives lie: headers say `chunked` over a body that is not, say `gzip` over plain bytes, or promise a length
that never comes. Each decoding is therefore tried and, where the bytes contradict the header, left out.
Output never exceeds `limit` bytes, whatever a small compressed body would unfold to.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import brotli
import zstandard

MAX_ENCODINGS = 4  # nested ones that are undone; no server sends more
_STATUS = re.compile(rb"^HTTP/\d(?:\.\d)?[ \t]+(\d{3})")
_CHUNK_SIZE = re.compile(rb"^[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class Response:
    """A decoded HTTP response. `status` 0 stands for a message without a readable status line."""

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool


def parse_response(block: bytes, limit: int) -> Response:
    """Decode one HTTP message (status line, headers, body). `truncated` says that `limit` cut the body."""
    head, body = _split_head(block)
    lines = head.splitlines()
    found = _STATUS.match(lines[0]) if lines else None
    headers = _parse_headers(lines[1:] if found else lines)
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = dechunk(body)
    truncated = False
    for encoding in reversed(headers.get("content-encoding", "").lower().split(",")[:MAX_ENCODINGS]):
        body, cut = decompress(body, encoding.strip(), limit)
        truncated = truncated or cut
    return Response(int(found[1]) if found else 0, headers, body[:limit], truncated or len(body) > limit)


def parse_content_type(value: str) -> tuple[str, str | None]:
    """(media type in lower case, charset or None) of a Content-Type header."""
    media_type, _, parameters = value.partition(";")
    found = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", parameters, re.IGNORECASE)
    return media_type.strip().lower(), found[1].lower() if found else None


def dechunk(body: bytes) -> bytes:
    """Undo chunked transfer coding; a body that is not chunked after all comes back as it is."""
    parts: list[bytes] = []
    position = 0
    while found := _CHUNK_SIZE.match(body[position : position + 512]):
        size = int(found[1], 16)
        start = position + found.end()
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
            return _inflate(body, 31, limit)
        if encoding == "deflate":
            return _inflate(body, 15 if body[:1] == b"\x78" else -15, limit)
        if encoding == "br":
            return _unbrotli(body, limit)
        if encoding == "zstd":
            decoded = zstandard.ZstdDecompressor().stream_reader(body).read(limit + 1)
            return (decoded[:limit] or body), len(decoded) > limit
    except (zlib.error, brotli.error, zstandard.ZstdError):
        pass  # the header lied: keep the bytes as they are
    return body, False


def _inflate(body: bytes, window_bits: int, limit: int) -> tuple[bytes, bool]:
    decoded = zlib.decompressobj(window_bits).decompress(body, limit + 1)
    return (decoded[:limit] or body), len(decoded) > limit


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
    ends = [(block.find(mark), len(mark)) for mark in (b"\r\n\r\n", b"\n\n")]
    found = min((end for end in ends if end[0] >= 0), default=(len(block), 0))
    return block[: found[0]], block[sum(found) :]


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(b":")
        if colon:  # the first of repeated headers counts
            headers.setdefault(key.strip().decode("latin-1").lower(), value.strip().decode("latin-1"))
    return headers
