"""Bytes of a page to its main text.

The charset comes from a byte-order mark, the HTTP header, the page's meta tag, or detection, in that order (the mark
first, as in browsers); a declaration that the bytes contradict is ignored.
Extractors (figures in docs/benchmarks.md): `fast` is ours; `resiliparse` is faster, with high recall and low precision;
`trafilatura` is slow and precise; `none` keeps the page, tags and all.
"""

from __future__ import annotations

import codecs
import re

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from pipeline.extract.markup import embedded_text, html_of_xhtml
from pipeline.kernels.html import fast

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
MAX_UNDECODABLE = 0.01  # share of characters; a page cut inside a character still counts as decodable
DETECTED_BYTES = 20_000  # charset-normalizer is slow, and no better on more
_BLANK_LINES = re.compile(r"\n\s*\n+")


def decode(body: bytes, charset: str | None = None) -> tuple[str, str]:
    """(text, charset used) of a page. Undecodable bytes become U+FFFD; never raises."""
    for mark, name in _BOMS:
        if body.startswith(mark):
            return body.decode(name, "replace").removeprefix("\ufeff"), name
    if charset is None or not _decodes(body, charset):
        charset = _detect(body)
    text = bytes_to_str(body, charset, errors="replace")
    return text.encode("utf-8", "replace").decode("utf-8"), charset


def extract_text(html: bytes, *, charset: str | None = None, url: str | None = None, extractor: str = "fast") -> str:
    """Main text of an HTML page, paragraphs separated by blank lines; "" if it has none.

    charset: the one that the HTTP header declares. extractor: fast, resiliparse, trafilatura, or none (the decoded
    page, tags and all).
    """
    page, _ = decode(html, charset)
    if page.lstrip().startswith("<?xml"):
        page = html_of_xhtml(page)
    return extract_decoded(page, url=url, extractor=extractor)


def extract_decoded(page: str, *, url: str | None = None, extractor: str = "fast") -> str:
    """Like `extract_text`, for a decoded page."""
    return extract_counted(page, url=url, extractor=extractor)[0]


def extract_counted(page: str, *, url: str | None = None, extractor: str = "fast") -> tuple[str, str]:
    """(text, method): a method of `fast` (pipeline.kernels.html.fast), `embedded` (text that the page holds only as
    data), or another extractor's name."""
    if extractor == "fast":
        text, method = fast.extract(page)
        if len(text) < fast.FEW_BYTES and len(data := embedded_text(page)) > 2 * len(text):
            return tidy(data), "embedded"
        return tidy(text), method
    return _extract_with(extractor, page, url), extractor


def _extract_with(extractor: str, page: str, url: str | None) -> str:
    if extractor == "none":
        return page
    # Imported here, since each adds a fraction of a second to a process's start.
    if extractor == "trafilatura":
        import trafilatura

        # deduplicate=True would make the text depend on the pages seen before.
        return tidy(trafilatura.extract(page, url=url, deduplicate=False, include_comments=False) or "")
    from resiliparse.extract.html2text import extract_plain_text

    return tidy(extract_plain_text(page, main_content=True, alt_texts=False))


def tidy(text: str) -> str:
    """Lines without trailing blanks, at most one blank line in a row, no NUL characters."""
    lines = text.replace("\0", "").replace("\r\n", "\n").split("\n")
    return _BLANK_LINES.sub("\n\n", "\n".join([line.rstrip(" \t\f\v") for line in lines])).strip()


def _detect(body: bytes) -> str:
    """The meta tag's charset, else uchardet's guess, else (uchardet has no EUC-KR) charset-normalizer's."""
    charset: str = detect_encoding(body, from_html_meta=True) or "utf-8"
    if charset == "utf-8":
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            import charset_normalizer

            best = charset_normalizer.from_bytes(body[:DETECTED_BYTES]).best()
            return best.encoding if best else charset
    return charset


def _decodes(body: bytes, charset: str) -> bool:
    """Whether a declared charset exists and decodes nearly all the bytes: servers often declare a wrong one."""
    try:
        codecs.lookup(charset)  # decoding no bytes would not raise
    except LookupError:
        return False
    text = body.decode(charset, "replace")
    return text.count("\ufffd") <= MAX_UNDECODABLE * len(text)
