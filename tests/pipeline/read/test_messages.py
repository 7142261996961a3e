"""HTTP messages: honest ones, lying ones, and bombs."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.read.messages import dechunk, decompress, parse_content_type, parse_response, sniff

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


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_every_member_of_a_body_is_read(encoding: str, pack) -> None:
    parts = [b"a" * 70_000, b"", b"b" * 70_000, b"c" * 300]
    text, body = b"".join(parts), b"".join(map(pack, parts))
    assert decompress(body, encoding, 10**6) == (text, False)
    assert decompress(pack(b"") + body, encoding, 10**6) == (text, False)
    assert decompress(body, encoding, 100_000) == (text[:100_000], True)
    assert decompress(body + b"\0\0 and what is no member", encoding, 10**6) == (text, False)
    assert decompress(body[:-9], encoding, 10**6)[0].startswith(text[:140_000])  # cut in the last member
    assert decompress(pack(b""), encoding, 10**6) == (b"", False)
    assert len(decompress(pack(b"x") * 100_000, encoding, 10**6)[0]) == 100_000


def test_wrong_checksum_costs_nothing() -> None:
    body = gzip.compress(b"text " * 9)
    assert decompress(body[:-8] + bytes(8), "gzip", 100) == (b"text " * 9, False)


@pytest.mark.parametrize(
    "line",
    ["HTTP/1.1 200 OK", "http/1.1 200 OK", "Http/1.0 200", "HTTP/2 200", "HTTP/2.0 200 ", "h2 200", "H3 200 OK",
     "HTTP 200 OK", "HTTP/1.1  200", "HTTP/1.1\t200 x", "HTTP/1.1 200OK", "\r\nHTTP/1.1 200",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", "HTTP/1.0 200 Connection established\r\n\r\nh2 200"],
)  # fmt: skip
def test_status_lines_that_browsers_read(line: str) -> None:
    found = parse_response(line.encode() + b"\r\nContent-Type: text/html\r\n\r\n<p>", 100)
    assert (found.status, found.headers, found.body) == (200, {"content-type": "text/html"}, b"<p>")


@pytest.mark.parametrize(
    ("value", "media_type", "charset"),
    [
        ("text/html", "text/html", None),
        ("TEXT/HTML ;charset='UTF-8'", "text/html", "utf-8"),
        ("text/html, text/html; charset=utf-8", "text/html", "utf-8"),
        ("text/html;charset=gbk, text/html", "text/html", "gbk"),
        ("text/html;charset=gbk, text/plain", "text/plain", None),
        ("text/html, */*", "text/html", None),
        ("text/html charset=utf-8", "text/html", "utf-8"),
        ("text/html; charset: utf-8", "text/html", "utf-8"),
        ('"text/html"', "text/html", None),
        ("'text/html; charset=utf-8'", "text/html", "utf-8"),
        ('application/xhtml+xml; profile="http://a.example/x, text/plain"', "application/xhtml+xml", None),
        ("text/html;;charset=", "text/html", None),
        ("html", "", None),
        ("", "", None),
    ],
)
def test_content_types_that_browsers_read(value: str, media_type: str, charset: str | None) -> None:
    assert parse_content_type(value) == (media_type, charset)


def test_doubled_content_type_counts_as_a_list() -> None:
    found = parse_response(HEAD + b"content-type: text/plain\r\nContent-Type: text/html\r\nA: 1\r\nA: 2\r\n\r\n", 9)
    assert found.headers == {"content-type": "text/plain, text/html", "a": "1"}


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b" \n<!DOCTYPE html><p>", "text/html"),
        (b"\xef\xbb\xbf<HTML lang=en>", "text/html"),
        (b"<!-- x --><p>", "text/html"),
        (b"<h1 class=x>", "text/html"),
        (b"<px>", "text/plain"),
        (b"<?xml version='1.0'?>\n<html xmlns='http://www.w3.org/1999/xhtml'>", "application/xhtml+xml"),
        (b"<?xml version='1.0'?><rss/>", "text/xml"),
        (b"%PDF-1.4", "application/octet-stream"),
        (b"\x89PNG\r\n\x1a\n\0\0", "application/octet-stream"),
        (b"\xff\xfea\0", "text/plain"),
        ("Grüße".encode(), "text/plain"),
    ],
)
def test_a_body_without_a_type_is_sniffed(body: bytes, media_type: str) -> None:
    assert sniff(body) == media_type
