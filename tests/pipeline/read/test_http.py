"""HTTP messages: honest ones, lying ones, and bombs."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.read.archives import dechunk, decompress, parse_content_type, parse_response

HEAD = b"HTTP/1.1 200 OK\r\n"


def test_plain_response() -> None:
    found = parse_response(HEAD + b"Content-Type: text/html; charset=x\r\n\r\nbody", 100)
    assert (found.status, found.body, found.truncated) == (200, b"body", False)
    assert parse_content_type(found.headers["content-type"]) == ("text/html", "x")


def test_chunked_body_with_extension_and_trailer() -> None:
    assert dechunk(b"4;x=1\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: 1\r\n\r\n") == b"Wikipedia"


def test_body_that_only_claims_to_be_chunked_stays() -> None:
    body = b"<html>not chunked</html>"
    assert parse_response(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body, 100).body == body


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("br", brotli.compress),
    ],
)
def test_encodings_round_trip_and_stop_at_the_limit(encoding: str, pack) -> None:
    data = b"0123456789" * 1000
    assert decompress(pack(data), encoding, 20_000) == (data, False)
    assert decompress(pack(data), encoding, 5000) == (data[:5000], True)


def test_body_that_only_claims_to_be_compressed_stays() -> None:
    for encoding in ("gzip", "deflate", "br", "zstd"):
        assert decompress(b"plain text", encoding, 100) == (b"plain text", False)


@given(st.binary(max_size=300))
def test_any_bytes_parse(block: bytes) -> None:
    assert len(parse_response(block, 50).body) <= 50
