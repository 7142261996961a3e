r"""Chosen blocks as markdown: headings, nested lists, quotes, GFM tables, fenced code, formulas as TeX.

The blocks and their order are those of rendering.py, and so are the words: markup never splits one. Code is the text of
its `<pre>` byte for byte, with the language that a class of it names. A table of data has its first row as header and
each cell in its column; the text of a cell that spans others is repeated. TeX stands between dollar signs. Nothing is
escaped but `|` in cells. In Python, a step for each chosen block and its ancestors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import Array
from pipeline.kernels.html.attributes import TAGS
from pipeline.kernels.html.rendering import PLAIN
from pipeline.kernels.html.tree import BREAK, CODE, LINK, MATH, UNSEEN, Blocks, Tree

CELL_BYTES = 200  # mean size of cells from which a table without header cells is one of layout
_LI, _OL, _TR, _TD, _TH, _TABLE, _PRE, _QUOTE = (
    TAGS[name] for name in ("li", "ol", "tr", "td", "th", "table", "pre", "blockquote")
)
_LEVELS = {TAGS[f"h{level}"]: level for level in range(1, 7)}
_SPACE = re.compile(r"[ \t\n\r\f\v]+")
_TAGS_BEFORE = re.compile(rb"(?:<[^<>]*>\s*){1,6}$")
_LANGUAGE = re.compile(
    rb"(?:\blang(?:uage)?[-:]\s*|\bhighlight-(?:source-|text-)?|\bbrush:\s*|\bsourceCode\s+"
    rb"|\bdata-lang(?:uage)?\s*=\s*[\"']?)([A-Za-z][\w+#.-]*)"
)
_NO_LANGUAGE = {"default", "none", "nohighlight", "plaintext", "text", "notranslate", "plain"}
_VALUE = rb"\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))"
_LINK = re.compile(rb"<a\b[^>]*?\bhref" + _VALUE, re.IGNORECASE)
_IMAGE = re.compile(rb"<img\b[^>]*>", re.IGNORECASE)
_ALT, _SRC = (re.compile(rb"\b" + name + _VALUE, re.IGNORECASE) for name in (b"alt", b"src"))
_MARKS = {"code": ("`", "`"), "math": ("$", "$"), "link": ("[", "]")}


class _Part(NamedTuple):
    """A piece of output: the quotes and list items that it lies in, from the outside, and its text."""

    containers: tuple[int, ...]
    text: str


class _Segment(NamedTuple):
    """Text of one kind within a block: "", code, math, link (to `target`), image, or break."""

    kind: str
    text: str
    target: str = ""


def render_markdown(
    page: Array, tree: Tree, blocks: Blocks, chosen: Array, *, links: bool = False, images: bool = False
) -> str:
    """Markdown of the blocks where `chosen` holds, with the targets of links, and with images, if asked for."""
    return _Writer(page, tree, blocks, links, images).write(np.flatnonzero(chosen & blocks.seen).tolist())


class _Writer:
    def __init__(self, page: Array, tree: Tree, blocks: Blocks, links: bool, images: bool) -> None:
        self.page, self.links, self.images = page.tobytes(), links, images
        self.tree, self.blocks = tree, blocks
        self.tag, self.parent, self.end = tree.tag.tolist(), tree.parent.tolist(), tree.end.tolist()
        self.element = blocks.element.tolist()
        self.data: dict[int, bool] = {}

    def write(self, numbers: list[int]) -> str:
        out: list[str] = []
        before: tuple[int, ...] = ()
        begun: set[int] = set()
        for containers, text in self._parts(numbers):
            shared = sum(1 for a, b in zip(before, containers, strict=False) if a == b)
            begins = [i for i in containers if self.tag[i] == _LI and i not in begun]
            begun.update(begins)
            first = rest = between = ""
            for depth, item in enumerate(containers):
                mark = "> " if self.tag[item] == _QUOTE else self._marker(item)
                later = mark if self.tag[item] == _QUOTE else " " * len(mark)
                first += mark if item in begins else later
                rest += later
                between += later if depth < shared else ""
            tight = begins and before and self.tag[before[-1]] == _LI
            out.append("" if not out else "\n" if tight else f"\n{between.rstrip()}\n")
            first_line, *lines = text.split("\n")
            out.append("\n".join([first + first_line, *(rest + line if line else rest.rstrip() for line in lines)]))
            before = containers
        return "".join(out)

    def _parts(self, numbers: list[int]) -> Iterator[_Part]:
        written = range(0)  # elements of the table or code that was written last
        for index, block in enumerate(numbers):
            at = self.element[block]
            if at in written:
                continue
            above = [at]
            while self.parent[above[-1]] > 0:
                above.append(self.parent[above[-1]])
            table = next((i for i in above if self.tag[i] == _TABLE and self._is_data(i)), 0)
            whole = table or next((i for i in above if self.tag[i] == _PRE), 0)
            outer = above[above.index(whole) + 1 :] if whole else above
            containers = tuple(i for i in reversed(outer) if self.tag[i] in (_LI, _QUOTE))
            written = range(whole, self.end[whole]) if whole else written
            if table:
                inside = [n for n in numbers[index:] if self.element[n] in written]
                yield from (_Part(containers, text) for text in self._table(table, inside))
            elif whole:
                yield _Part(containers, self._code(whole))
            elif text := self._inline(block):
                level = next((_LEVELS[self.tag[i]] for i in above if self.tag[i] in _LEVELS), 0)
                yield _Part(containers, f"{'#' * level} {_SPACE.sub(' ', text)}" if level else text)

    def _marker(self, item: int) -> str:
        above = self.parent[item]
        if self.tag[above] != _OL:
            return "- "
        number, at = 1, above + 1
        while at < item:
            number += self.tag[at] == _LI
            at = max(self.end[at], at + 1)
        return f"{number}. "

    def _inline(self, block: int) -> str:
        """A block's text with marks for code, formulas, links and images, white space folded but for line breaks."""
        segments = self._segments(block)
        out = ""
        for i, (kind, text, target) in enumerate(segments):
            inner = text.strip()
            follows = segments[i + 1].text[:1] if i + 1 < len(segments) else ""
            lead, trail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
            splits = (not lead and out[-1:].isalnum()) or (not trail and follows.isalnum())
            if kind in _MARKS and inner and (kind == "math" or not splits) and "\n" not in inner:
                start, stop = _MARKS[kind]
                text = f"{lead}{start}{inner}{stop}{f'({target})' if kind == 'link' else ''}{trail}"
            out += text
        out = _SPACE.sub(lambda m: "\n" if "\n" in m[0] else " ", out)
        for sign, plain in PLAIN.items():
            out = out.replace(sign, plain)
        return out.replace("\0", "").strip()

    def _segments(self, block: int) -> list[_Segment]:
        out: list[_Segment] = []
        target = ""
        for run in range(self.blocks.first[block], self.blocks.last[block]):
            flags = int(self.tree.run_flags[run])
            if flags & UNSEEN:
                continue
            if self.links or self.images:
                gap = self.page[self.tree.run_end[run - 1] if run else 0 : self.tree.run_start[run]]
                out += [_Segment("image", text) for text in _alternatives(gap)] if self.images else []
                target = next((_value(m) for m in reversed(list(_LINK.finditer(gap)))), target)
            kind = "math" if flags & MATH else "code" if flags & CODE else ""
            kind = kind or ("link" if self.links and flags & LINK else "")
            text = "\n" if flags & BREAK else _SPACE.sub(" ", self._text(run))
            segment = _Segment("" if flags & BREAK else kind, text, target if kind == "link" else "")
            if out and out[-1].kind == segment.kind != "math" and out[-1].target == segment.target:
                segment = segment._replace(text=out.pop().text + text)
            out.append(segment)
        return out

    def _text(self, run: int) -> str:
        raw = self.page[self.tree.run_start[run] : self.tree.run_end[run]]
        return unescape(raw.decode("utf-8", "replace"))

    def _code(self, code: int) -> str:
        """The whole text of a <pre>, fenced."""
        runs = np.flatnonzero((self.tree.run_element >= code) & (self.tree.run_element < self.end[code])).tolist()
        out: list[str] = []
        for before, run in zip([-1, *runs], runs, strict=False):
            flags = int(self.tree.run_flags[run])
            line = before >= 0 and self.tree.run_block[run] != self.tree.run_block[before]
            if flags & BREAK or (line and out and not out[-1].endswith("\n")):
                out.append("\n")
            if not flags & (UNSEEN | BREAK):
                out.append(self._text(run))
        text = "".join(out).replace("\r\n", "\n").replace("\0", "").removesuffix("\n")
        fence = "```"
        while fence in text:
            fence += "`"
        return f"{fence}{self._language(runs[0])}\n{text}\n{fence}"

    def _language(self, run: int) -> str:
        start = self.tree.run_start[run]
        tags = _TAGS_BEFORE.search(self.page[max(start - 600, 0) : start])
        names = [name.decode().lower() for name in _LANGUAGE.findall(tags[0] if tags else b"")]
        return next((name for name in reversed(names) if name not in _NO_LANGUAGE), "")

    def _is_data(self, table: int) -> bool:
        """Whether a table is one of data: as rendering.py has it, without code, and with small cells or a header."""
        if table not in self.data:
            inside = self.tag[table + 1 : self.end[table]]
            cells = [0]
            for tag in inside:
                cells += [0] if tag == _TR else []
                cells[-1] += tag in (_TD, _TH)
            within = (self.blocks.element > table) & (self.blocks.element < self.end[table])
            small = self.blocks.bytes[within].sum() < CELL_BYTES * max(inside.count(_TD), 1)
            several = sum(count > 1 for count in cells) > 1
            self.data[table] = _TABLE not in inside and _PRE not in inside and (_TH in inside or (several and small))
        return self.data[table]

    def _table(self, table: int, numbers: list[int]) -> Iterator[str]:
        """What stands in no cell of a table, and its grid."""
        texts: dict[int, str] = {}
        for block in numbers:
            cell = self.element[block]
            while cell > table and self.tag[cell] not in (_TD, _TH):
                cell = self.parent[cell]
            text = self._inline(block)
            if cell == table:
                yield text
            else:
                texts[cell] = f"{texts[cell]} {text}" if cell in texts else text
        rows: list[list[str | None]] = []
        row, wanted = -1, set()
        for at in range(table + 1, self.end[table]):
            if self.tag[at] == _TR:
                row += 1
            elif self.tag[at] in (_TD, _TH) and row >= 0:
                text = _SPACE.sub(" ", texts.get(at, "")).replace("|", r"\|")
                wanted.update([row] if at in texts else [])
                self._place(rows, row, int(self.tree.spans[at]), text)
        kept = [cells for number, cells in enumerate(rows) if number in wanted]
        width = max(map(len, kept), default=0)
        lines = [f"| {' | '.join((cell or '') for cell in cells + [''] * (width - len(cells)))} |" for cells in kept]
        if lines:
            yield "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])

    def _place(self, rows: list[list[str | None]], row: int, spans: int, text: str) -> None:
        """Write a cell at the first free column of a row, and wherever it spans."""
        columns, lines = max(spans & 255, 1), max(spans >> 8, 1)
        while len(rows) < row + 1:
            rows.append([])
        cells = rows[row]
        column = cells.index(None) if None in cells else len(cells)
        for line in range(row, row + lines):
            while len(rows) <= line:
                rows.append([])
            rows[line] += [None] * (column + columns - len(rows[line]))
            rows[line][column : column + columns] = [text] * columns


def _value(match: re.Match[bytes]) -> str:
    return unescape(next((v for v in match.groups() if v is not None), b"").decode("utf-8", "replace")).strip()


def _alternatives(gap: bytes) -> list[str]:
    """The images between two texts that have an alternative text."""
    out = []
    for tag in _IMAGE.findall(gap):
        alt, source = _ALT.search(tag), _SRC.search(tag)
        if alt and (text := _SPACE.sub(" ", _value(alt))):
            out.append(f" ![{text}]({_value(source) if source else ''}) ")
    return out
