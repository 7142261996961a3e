"""Main text of a page.

Extractors (figures in docs/benchmarks.md): `fast` is ours; `resiliparse` is faster, with high recall and low precision;
`trafilatura` is slow and precise; `none` keeps the page, tags and all.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.extract.decoding import decode, tidy
from pipeline.extract.markup import embedded_text, html_of_xhtml
from pipeline.kernels.html import fast
from pipeline.kernels.html.fast import TEXT, Form


class Extracted(NamedTuple):
    """Main text of a page. method: a path of `fast` (pipeline.kernels.html.fast), `embedded` (text that the page holds
    only as data), or another extractor's name. kind, confidence: kind of page and F1 to expect, of `fast` alone."""

    text: str
    method: str
    kind: str | None = None
    confidence: float | None = None


def extract_text(
    html: bytes, *, charset: str | None = None, url: str | None = None, extractor: str = "fast", form: Form = TEXT
) -> str:
    """Main text of an HTML page, paragraphs separated by blank lines; "" if it has none.

    charset: the one that the HTTP header declares. extractor: fast, resiliparse, trafilatura, or none (the decoded
    page, tags and all). form: what `fast` writes, `Form(markdown=True)` for instance.
    """
    page = decode(html, charset)[0]
    if page.lstrip().startswith("<?xml"):
        page = html_of_xhtml(page)
    return extract_decoded(page, url=url, extractor=extractor, form=form).text


def extract_decoded(page: str, *, url: str | None = None, extractor: str = "fast", form: Form = TEXT) -> Extracted:
    """Like `extract_text`, for a decoded page."""
    if extractor != "fast":
        return Extracted(_extract_with(extractor, page, url, form), extractor)
    text, method, kind, confidence = fast.extract(page, form)
    if len(text) < fast.FEW_BYTES and len(data := embedded_text(page)) > 2 * len(text):
        return Extracted(tidy(data), "embedded", kind or None, None)
    return Extracted(text if form.markdown else tidy(text), method, kind or None, confidence if kind else None)


def _extract_with(extractor: str, page: str, url: str | None, form: Form) -> str:
    if extractor == "none":
        return page
    # Imported here, since each adds a fraction of a second to a process's start.
    if extractor == "trafilatura":
        import trafilatura

        # deduplicate=True would make the text depend on the pages seen before.
        options = {"include_comments": form.comments, "include_links": form.links, "include_images": form.images}
        kind = "markdown" if form.markdown else "txt"
        found = trafilatura.extract(page, url=url, output_format=kind, deduplicate=False, **options) or ""
        return found.strip() if form.markdown else tidy(found)
    from resiliparse.extract.html2text import extract_plain_text

    return tidy(extract_plain_text(page, main_content=True, alt_texts=False))
