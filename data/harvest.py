"""Render the documentation installed on this machine as web pages in WARC files.

A machine with Python has tens of MB of technical prose: docstrings of the standard library and of every installed
package, and the packages' text files. Sources are parsed, never imported. Each module becomes a page with navigation
and footer in one of three layouts, so that extraction has something to remove. The same package versions give the same
bytes: sorted order, fixed dates, record ids from URLs. Takes about 20 s for 30 MB of HTML, and the memory of one page.
"""

from __future__ import annotations

import ast
import inspect
import io
import sysconfig
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.metadata import Distribution, distributions
from itertools import zip_longest
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from common.files import atomic_file

FILE_BYTES = 8_000_000
MIN_PROSE = 400  # characters of documentation that make a page
MAX_TEXT = 500_000  # characters of a text file
_DATE = "2026-01-01T00:00:00Z"
_TESTS, _COPIES = {"tests", "test", "testing"}, {"_vendor", "vendored", "site-packages", "lib2to3"}
_SKIPPED = _TESTS | _COPIES | {"idlelib", "__pycache__"}
_TEXT_SUFFIXES = {".rst", ".md", ".txt"}

Section = tuple[int, str, str]  # heading level, title, prose


@dataclass(frozen=True)
class HarvestReport:
    files: int
    pages: int
    packages: int
    html_bytes: int


@dataclass(frozen=True)
class Page:
    package: str
    path: str  # in the package, without a suffix for modules
    title: str
    sections: list[Section]


def harvest(output: Path, *, limit_bytes: int | None = None) -> HarvestReport:
    """Write `output`/harvest-NNN.warc.gz, each ended by the page that reaches FILE_BYTES of HTML.

    Packages take turns, one page each, so that a small `limit_bytes` (of HTML) is still diverse. Files of an earlier
    harvest are deleted.
    """
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("harvest-*.warc.gz"):
        old.unlink()
    turns = zip_longest(_stdlib_pages(), *map(_package_pages, _installed()))
    pages = (page for turn in turns for page in turn if page)
    files, count, size = 0, 0, 0
    names: set[str] = set()
    page = next(pages, None)
    while page and (limit_bytes is None or size < limit_bytes):
        with atomic_file(output / f"harvest-{files:03d}.warc.gz") as file:
            writer, filled = WARCWriter(file, gzip=True), 0
            while page and filled < FILE_BYTES and (limit_bytes is None or size < limit_bytes):
                html = render(page, count).encode()
                _write(writer, page, html)
                filled, size, count = filled + len(html), size + len(html), count + 1
                names.add(page.package)
                page = next(pages, None)
        files += 1
    return HarvestReport(files, count, len(names), size)


def _installed() -> list[Distribution]:
    """Installed distributions by name, each once."""
    named = {dist.metadata["Name"].lower(): dist for dist in distributions() if dist.metadata["Name"]}
    return [named[name] for name in sorted(named)]


def _stdlib_pages() -> Iterator[Page]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not _SKIPPED.intersection(relative.parts) and (page := module_page("python", str(relative), path)):
            yield page


def _package_pages(dist: Distribution) -> Iterator[Page]:
    name = dist.metadata["Name"].lower()
    description = dist.metadata.get_payload()  # type: ignore[attr-defined]
    if isinstance(description, str) and len(description) >= MIN_PROSE:
        yield Page(name, "index", name, [(1, name, description)])
    for file in sorted(dist.files or [], key=str):
        path = Path(str(file.locate()))
        if _SKIPPED.intersection(file.parts) or not path.is_file():
            continue
        page = None
        if file.suffix == ".py":
            page = module_page(name, str(file), path)
        elif file.suffix in _TEXT_SUFFIXES and not file.name.startswith(("RECORD", "top_level", "entry_points")):
            page = text_page(name, str(file), path)
        if page:
            yield page


def module_page(package: str, relative: str, path: Path) -> Page | None:
    """A page of a module's docstrings; None if they are shorter than MIN_PROSE or the module cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's sources
            tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    title = relative.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    sections = [(1, title, _docstring(tree)), *_members(tree, 2)]
    sections = [section for section in sections if section[2] or section[0] == 1]
    if sum(len(prose) for _, _, prose in sections) < MIN_PROSE:
        return None
    return Page(package, relative.removesuffix(".py"), title, sections)


def text_page(package: str, relative: str, path: Path) -> Page | None:
    """A page of a text file; None if it is not UTF-8, shorter than MIN_PROSE or longer than MAX_TEXT."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return None
    if not MIN_PROSE <= len(text) <= MAX_TEXT:
        return None
    return Page(package, relative, relative.rsplit("/", 1)[-1], [(1, relative, text)])


def _members(tree: ast.AST, level: int) -> Iterator[Section]:
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield level, node.name, _docstring(node)
            if isinstance(node, ast.ClassDef) and level < 4:
                yield from _members(node, level + 1)


def _docstring(node: ast.AST) -> str:
    return inspect.cleandoc(ast.get_docstring(node) or "")  # type: ignore[arg-type]


def render(page: Page, number: int) -> str:
    """The page as HTML, in one of three layouts by its number."""
    body = "\n".join(_section(*section) for section in page.sections)
    links = "".join(f'<li><a href="#{escape(title)}">{escape(title)}</a></li>' for _, title, _ in page.sections[:30])
    crumbs = f'<a href="/">Home</a> / <a href="/{page.package}/">{escape(page.package)}</a>'
    footer = f"<footer><p>Documentation of {escape(page.package)}. <a href='/imprint'>Imprint</a></p></footer>"
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(page.title)}</title></head>'
    layouts = (
        f'<body><nav class="menu"><ul>{links}</ul></nav><main>{body}</main>{footer}</body>',
        f'<body><header><div class="breadcrumbs">{crumbs}</div></header><div class="content"><article>{body}'
        f'</article></div><aside class="sidebar"><h4>On this page</h4><ul>{links}</ul></aside>{footer}</body>',
        f'<body><div id="top" class="navbar">{crumbs} <a href="/search">Search</a></div><div id="main">{body}</div>'
        f"<div class='related'><ul>{links}</ul></div>{footer}</body>",
    )
    return f"{head}\n{layouts[number % len(layouts)]}</html>\n"


def _section(level: int, title: str, prose: str) -> str:
    parts = [f"<h{level} id='{escape(title)}'>{escape(title)}</h{level}>"]
    for block in prose.split("\n\n"):
        if not block.strip():
            continue
        code = block.lstrip("\n").startswith((">>>", "    ", "\t", "$ "))
        parts.append(f"<pre>{escape(block)}</pre>" if code else f"<p>{escape(' '.join(block.split()))}</p>")
    return "\n".join(parts)


def _write(writer: WARCWriter, page: Page, html: bytes) -> None:
    url = f"https://docs.example/{page.package}/{page.path}.html"
    headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
    identity = uuid.uuid5(uuid.NAMESPACE_URL, url)
    record = writer.create_warc_record(
        url,
        "response",
        payload=io.BytesIO(html),
        length=len(html),
        http_headers=headers,
        warc_headers_dict={"WARC-Date": _DATE, "WARC-Record-ID": f"<urn:uuid:{identity}>"},
    )
    writer.write_record(record)
