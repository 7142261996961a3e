"""Read prose/<language>.txt (a head with the site's own words, then pages) and planted/<case>.txt (pages only).

    site: ...                         words of navigation, banners and footers
    # slug | kind | title             a page; its blocks follow, separated by blank lines
    ```                               code, up to the same mark (no blank lines)
    ## ...                            subheading          @ name   author of a forum post
    - ...                             list item           a :: b   table row
Other lines of a block belong to one paragraph, each on a line of its own (verse).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = Path(__file__).parent
_PAGE = re.compile(r"^# ", re.MULTILINE)
_MARKS = re.compile(r"^(?:## |- |@ )", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One text. `blocks` are paragraphs, lists, tables and headings in the markup above."""

    slug: str
    language: str
    kind: str
    title: str
    blocks: tuple[str, ...]

    def text(self) -> str:
        """What an extractor should return: title and blocks without the markup."""
        return "\n\n".join((self.title, *(_MARKS.sub("", block).replace(" :: ", " ") for block in self.blocks)))

    def paragraphs(self) -> list[str]:
        """Blocks of running prose."""
        return [block for block in self.blocks if block[0] not in "#-@`" and " :: " not in block and "\n" not in block]

    def with_blocks(self, *blocks: str, **changes: str) -> Page:
        """The page with other blocks, and other fields where given."""
        return replace(self, blocks=tuple(blocks), **changes)


def read_language(language: str) -> tuple[dict[str, str], list[Page]]:
    """(words of the site, pages) of one language."""
    head, *parts = _PAGE.split((FOLDER / "prose" / f"{language}.txt").read_text("utf-8"))
    words = dict(line.split(": ", 1) for line in head.strip().split("\n"))
    return words, [_page(part, language) for part in parts]


def read_planted(name: str) -> list[Page]:
    """Pages of planted/<name>.txt, whose head names a language instead of a kind."""
    parts = _PAGE.split((FOLDER / "planted" / f"{name}.txt").read_text("utf-8"))[1:]
    return [replace(page, language=page.kind, kind=name) for page in (_page(part, "") for part in parts)]


def languages() -> list[str]:
    """ISO 639-1 codes, sorted."""
    return sorted(path.stem for path in (FOLDER / "prose").glob("*.txt"))


def _page(part: str, language: str) -> Page:
    head, body = part.split("\n", 1)
    slug, kind, title = head.split(" | ")
    lines = re.sub(r"^(##.*|@.*)\n(?!\n)", r"\1\n\n", body.strip(), flags=re.MULTILINE)
    return Page(slug, language, kind, title, tuple(re.split(r"\n\s*\n", lines)))
