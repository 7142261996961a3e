"""Inputs whose bytes are damaged as disks, networks, servers and people damage them; the same for the same seed."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import brotli
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.conftest import PROSE, page

KINDS = ("warc", "http", "html", "jsonl", "parquet")
SIGNS = (
    b"\0", b"\xff", b"\xc3", b"\x80", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r\n\r\n", b"\n", b"<", b"&#",
    b"<!--", b"<script>", b'"', b"\\ud800", b"9" * 5000, b"{", b"[" * 2000, b"-1", b"\x1f\x8b\x08", b"PAR1",
    b"charset=utf-7", b"Content-Length: 99999999\r\n", b"HTTP/1.1 200 OK\r\n", b"\x1b$B", b"\x28\xb5\x2f\xfd",
    b"WARC/1.0\r\n", b"1e999",
)  # fmt: skip
HEADS = (
    b"Content-Type: text/html; charset=utf-8", b"Content-Type: text/html", b"content-type: text/html;charset=gbk",
    b"Content-Type: text/plain; charset=shift_jis", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip",
    b"Content-Encoding: br, gzip", b"Content-Encoding: zstd", b"Content-Encoding: deflate", b"X: y",
)  # fmt: skip
SUFFIX = {"warc": ".warc", "http": ".warc", "html": ".html", "jsonl": ".jsonl", "parquet": ".parquet"}
Pack = Callable[[bytes], bytes]
PACKS: dict[str, Pack] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress, ".lz4": lz4.frame.compress}


def write_input(folder: Path, kind: str, number: int, seed: int) -> Path:
    """One damaged file of a kind."""
    draw = random.Random(f"{seed}/{kind}/{number}")
    data, suffix = MAKE[kind](draw)
    path = folder / f"{number:05d}{SUFFIX[kind]}{suffix}"
    path.write_bytes(mutated(data, draw) if kind != "http" else data)
    return path


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The bytes after one to six edits."""
    for _ in range(draw.randint(1, 6)):
        at, length = draw.randint(0, len(data)), draw.choice((1, 1, 2, 8, 64, 1000))
        match draw.randrange(7):
            case 0:
                data = data[:at] + draw.randbytes(length) + data[at + length :]
            case 1:
                data = data[:at] + draw.choice(SIGNS) + data[at:]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + data[at : at + length] * draw.choice((2, 3, 50)) + data[at:]
            case 4:
                data = data[:at] if draw.random() < 0.3 else data[:at] + bytes(length) + data[at + length :]
            case 5 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
            case 6:
                other = draw.randint(0, len(data))
                data = data[:at] + data[other : other + length] + data[at:]
    return data


def text(draw: random.Random) -> str:
    """Prose in an order of its own, so that documents are no duplicates."""
    sentences = " ".join(PROSE.values()).replace("\n", " ").split(". ")
    return ". ".join(draw.sample(sentences, 12)) + "."


def record(block: bytes, number: int, draw: random.Random, kind: str = "response") -> bytes:
    length = len(block) + draw.choice((0,) * 20 + (-30, -1, 1, 5, 300, 10**7))
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://a.example/{number}"
    return f"{head}\r\nContent-Length: {length}\r\n\r\n".encode() + block + b"\r\n\r\n"


def message(draw: random.Random) -> bytes:
    """An HTTP message whose headers may be true."""
    heads = draw.sample(HEADS, draw.randint(0, 3))
    body = page(text(draw)).decode().encode(draw.choice(("utf-8", "utf-8", "utf-16", "cp1252")), "replace")
    pack = draw.choice((bytes, bytes, gzip.compress, brotli.compress, zstandard.compress, chunked))
    return b"\r\n".join([b"HTTP/1.1 200 OK", *heads, b"", b""]) + pack(body)


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def make_warc(draw: random.Random) -> tuple[bytes, str]:
    records = [record(message(draw), number, draw) for number in range(draw.randint(1, 4))]
    suffix = draw.choice(list(PACKS))
    pack = PACKS[suffix]
    return (b"".join(map(pack, records)) if draw.random() < 0.7 else pack(b"".join(records))), suffix


def make_http(draw: random.Random) -> tuple[bytes, str]:
    records = [record(mutated(message(draw), draw), number, draw) for number in range(2)]
    return b"".join(map(gzip.compress, records)), ".gz"


def make_html(draw: random.Random) -> tuple[bytes, str]:
    return page(text(draw)), ""


def make_jsonl(draw: random.Random) -> tuple[bytes, str]:
    rows = [{"text": text(draw), "url": f"https://b.example/{n}", "n": draw.random()} for n in range(3)]
    data = "\n".join(map(json.dumps, rows)).encode()
    suffix = draw.choice(("", "", ".gz", ".zst"))
    return PACKS[suffix](mutated(data, draw)), suffix


def make_parquet(draw: random.Random) -> tuple[bytes, str]:
    zone = draw.choice((None, "UTC", "X/Y"))
    columns = {
        "text": pa.array([text(draw).encode() for _ in range(3)]).cast(draw.choice((pa.string(), pa.binary()))),
        "when": pa.array([draw.getrandbits(62) for _ in range(3)]).cast(pa.timestamp("us", zone)),
        "day": pa.array([draw.getrandbits(31) for _ in range(3)], pa.int32()).cast(pa.date32()),
        "tags": pa.array([["a"], [], None]),
    }  # fmt: skip
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression=draw.choice(("none", "zstd", "snappy")))
    return file.getvalue(), ""


MAKE: dict[str, Callable[[random.Random], tuple[bytes, str]]] = {
    "warc": make_warc, "http": make_http, "html": make_html, "jsonl": make_jsonl, "parquet": make_parquet
}  # fmt: skip
