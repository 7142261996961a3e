"""Write the sample corpus: `python data/build.py [folder]` makes sample.warc.gz and labels.jsonl, by default here.

The same sources give the same bytes on every run: dates and record ids follow from the content, the order from
hashes of the URLs (originals before their copies, so that the first of a cluster is the original). It takes about
a second and needs warcio.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data.planted import Case, cases
from data.prose import Page, languages, read_language
from data.templates import TEMPLATES, render

FIRST_DATE = datetime(2024, 3, 1, tzinfo=UTC)
SNIPPET = 48  # characters of a main-text snippet
# Pages of which nothing needs to be extracted.
NO_TEXT = ("links", "gibberish", "media_type", "not_found")


def build(folder: Path) -> tuple[Path, Path]:
    """Write sample.warc.gz and labels.jsonl into `folder`; returns their paths."""
    sites = {language: read_language(language) for language in languages()}
    warc, labels = folder / "sample.warc.gz", folder / "labels.jsonl"
    rows = []
    with warc.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        info = b"software: data/build.py\r\nformat: WARC File Format 1.0\r\nlicense: CC0-1.0\r\n"
        headers = {"WARC-Date": _date(0), "WARC-Record-ID": _record_id("warcinfo", info)}
        writer.write_record(
            writer.create_warc_record("", "warcinfo", io.BytesIO(info), len(info), warc_headers_dict=headers)
        )
        for number, case in enumerate(sorted(cases(), key=_order), 1):
            words, pages = sites[case.page.language]
            body, chrome = _body(case, words, pages)
            _write(writer, case, body, number)
            rows.append(_label(case, chrome))
    labels.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8", newline="\n")
    return warc, labels


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _order(case: Case) -> tuple[bool, int]:
    return case.stage == "dedup", _number(case.url)


def _date(number: int) -> str:
    return (FIRST_DATE + timedelta(minutes=7 * number)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _record_id(url: str, body: bytes) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{url} {hashlib.sha256(body).hexdigest()}')}>"


def _body(case: Case, words: dict[str, str], pages: list[Page]) -> tuple[bytes, list[str]]:
    """(payload, chrome snippets)."""
    if case.media_type == "image/png":
        return _png(_number(case.url)), []
    if case.media_type == "application/json":
        return json.dumps({"page": case.page.title, "tides": [0.4, 3.1, 0.6]}).encode(), []
    if case.media_type == "text/css":
        return b"body { margin: 0; color: #222; }\n", []
    template = _number(f"template {case.url}") % len(TEMPLATES)
    others = [page for page in pages if page.title != case.page.title]
    first = _number(f"related {case.url}") % len(others)
    related = (others[first:] + others[:first])[:3]
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={case.meta}">' if case.meta else ""
    html, chrome = render(case.page, words, template, related, meta)
    if case.case == "links":
        html = html.replace("<li>", '<li><a href="/more">').replace("</li>", "</a></li>")
    if case.codec == "utf-16":
        return b"\xff\xfe" + html.encode("utf-16-le"), chrome  # the same bytes on every machine
    return html.encode(case.codec, "xmlcharrefreplace"), chrome


def _png(seed: int) -> bytes:
    """An 8 by 8 grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + hashlib.sha256(f"{seed} {row}".encode()).digest()[:8] for row in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    # Level 0: no zlib may choose other bytes.
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def _write(writer: WARCWriter, case: Case, body: bytes, number: int) -> None:
    content_type = f"{case.media_type}; charset={case.header}" if case.header else case.media_type
    http = StatusAndHeaders(
        case.status, [("Content-Type", content_type), ("Content-Length", str(len(body)))], protocol="HTTP/1.1"
    )
    headers = {"WARC-Date": _date(number), "WARC-Record-ID": _record_id(case.url, body)}
    writer.write_record(
        writer.create_warc_record(
            case.url, "response", io.BytesIO(body), len(body), http_headers=http, warc_headers_dict=headers
        )
    )


def _label(case: Case, chrome: list[str]) -> dict[str, object]:
    paragraphs = (
        [] if case.case in NO_TEXT else case.page.paragraphs() or [block.split("\n")[0] for block in case.page.blocks]
    )
    chosen = sorted({0, len(paragraphs) // 2, len(paragraphs) - 1}) if paragraphs else []
    return {
        "url": case.url,
        "language": case.language,
        "case": case.case,
        "stage": case.stage,
        "of": case.of,
        "main": [_snippet(paragraphs[number]) for number in chosen],
        "chrome": [] if case.stage == "extract" else chrome,
    }


def _snippet(paragraph: str) -> str:
    """The beginning of a paragraph, cut between words where the language has them."""
    head = paragraph[:SNIPPET]
    return head if len(paragraph) <= SNIPPET else head.rsplit(" ", 1)[0]


if __name__ == "__main__":
    for path in build(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent):
        print(f"{path}  {path.stat().st_size:,} bytes")
