"""Bytes of a page to its main text.

The charset comes from the HTTP header, a byte-order mark, the page's meta tag, or detection, in that order.
Extractors, pages/s a core on trafilatura's evaluation (docs/benchmarks.md): `resiliparse` is fast with high
recall, `trafilatura` slow and precise. `fast` is resiliparse's main-content extraction behind our clean-up.
"""

from __future__ import annotations

import codecs
import re

import charset_normalizer
import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
DETECTED_BYTES = 20_000  # charset-normalizer is slow; this much decides as well as all
_BLANK_LINES = re.compile(r"\n\s*\n+")
_TRAILING = re.compile(r"[ \t\f\v]+\n")


def decode(body: bytes, charset: str | None = None) -> tuple[str, str]:
    """(text, charset used) of a page. Undecodable bytes become U+FFFD; nothing raises."""
    for mark, name in _BOMS:
        if body.startswith(mark):
            return body.decode(name, "replace").removeprefix("\ufeff"), name
    if charset is None or not _known(charset):
        charset = _detect(body)
    text = bytes_to_str(body, charset, errors="replace")
    return text.encode("utf-8", "replace").decode("utf-8"), charset


def extract_text(html: bytes, *, charset: str | None = None, url: str | None = None, extractor: str = "fast") -> str:
    """Main text of an HTML page: paragraphs separated by blank lines, "" where there is none.

    charset: what the HTTP header declared. extractor: fast, resiliparse, trafilatura, or none (whole page,
    tags and all, decoded).
    """
    page, _ = decode(html, charset)
    return extract_decoded(page, url=url, extractor=extractor)


def extract_decoded(page: str, *, url: str | None = None, extractor: str = "fast") -> str:
    """As `extract_text`, of a decoded page."""
    if extractor == "none":
        return page
    if extractor == "trafilatura":
        # deduplicate=True would make the text depend on the pages seen before.
        found = trafilatura.extract(page, url=url, deduplicate=False, include_comments=False)
        return tidy(found or "")
    return tidy(extract_plain_text(page, main_content=True, alt_texts=False))


def tidy(text: str) -> str:
    """Lines without trailing blanks, at most one blank line in a row, no NUL characters."""
    text = _TRAILING.sub("\n", text.replace("\0", "").replace("\r\n", "\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def _detect(body: bytes) -> str:
    """The meta tag's charset, else uchardet's guess, else (it knows no EUC-KR) charset-normalizer's."""
    found = detect_encoding(body, from_html_meta=True) or "utf-8"
    if found == "utf-8":
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            best = charset_normalizer.from_bytes(body[:DETECTED_BYTES]).best()
            return best.encoding if best else found
    return found


def _known(charset: str) -> bool:
    try:
        codecs.lookup(charset)
    except LookupError:
        return False
    return True
