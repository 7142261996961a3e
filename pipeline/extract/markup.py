"""Pages that are no usual HTML: XHTML brought to HTML, and text that a page holds only as data for its scripts."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from pipeline.kernels.html.fast import all_text

_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
_XML = re.compile(
    r"<!\[CDATA\[(?P<data>.*?)\]\]>|<!--.*?-->|<\?.*?\?>"
    r"|<(?P<name>[A-Za-z][\w.-]*+)(?P<attributes>(?>[^<>\"'/]|\"[^\"]*\"|'[^']*'|/(?!>))*+)/>",
    re.DOTALL,
)
_DATA = re.compile(
    r"<script\b[^>]*(?:application/ld\+json|id\s*=\s*[\"']?__NEXT_DATA__)[^>]*>(.*?)</script", re.DOTALL | re.IGNORECASE
)
LEAST_CHARACTERS = 60  # of a string that counts as prose where no key says that it is the article
LEAST_WORDS = 8


def html_of_xhtml(page: str) -> str:
    """The page as HTML: `<script/>` and other empty elements closed, CDATA as text, no processing instructions.

    An HTML parser takes `<script/>` for a start tag, and the rest of the page for its content.
    """
    return _XML.sub(_rewrite, page)


def _rewrite(match: re.Match[str]) -> str:
    if match["data"] is not None:
        return escape(match["data"], quote=False)
    name = match["name"]
    if name is None:
        return match.group() if match.group().startswith("<!--") else ""
    return match.group() if name.lower() in _VOID else f"<{name}{match['attributes']}></{name}>"


def embedded_text(page: str) -> str:
    """Text of schema.org's `articleBody` (JSON-LD), else the prose in a Next.js page's data; "" for none."""
    strings: list[tuple[str, str]] = []
    for match in _DATA.finditer(page):
        try:
            _gather(json.loads(match.group(1)), strings)
        except (ValueError, RecursionError):  # no JSON: as if it were not there
            continue
    articles = [text for key, text in strings if key in ("articleBody", "reviewBody")]
    prose = [text for _, text in strings if len(text) >= LEAST_CHARACTERS and len(text.split()) >= LEAST_WORDS]
    texts = [all_text(text).strip() if "<" in text or "&" in text else text.strip() for text in articles or prose]
    return "\n\n".join(dict.fromkeys(texts)).encode("utf-8", "replace").decode()


def _gather(value: Any, strings: list[tuple[str, str]]) -> None:
    """Add (key, string) of each string in a JSON value, in order."""
    stack = [("", value)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, str):
            strings.append((key, value))
        elif isinstance(value, dict):
            stack.extend(reversed(value.items()))
        elif isinstance(value, list):
            stack.extend((key, item) for item in reversed(value))
