"""Pages beside what was extracted of them; only where the archives can still be read from here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from pipeline.config import Source
from pipeline.errors import PipelineError
from recipes.report.blocks import Block, Fragment, Section, Text, Texts
from recipes.report.excerpts import CHARACTERS, fragments
from recipes.report.runfolder import Row, RunFolder, read_group, sample_groups
from recipes.terminal import clean, printable

PAGES = 4
SCANNED_RECORDS = 2000  # of an archive, for the pages that were extracted
SURE_LETTERS = 12  # so many in a row are not found by chance
PAGE_BYTES = 200_000  # of a page that is shown beside its text


def section(run: RunFolder) -> Section:
    """Examples."""
    return Section("extraction", "Extraction", "What the page said, beside the text that was kept of it.", pages(run))


def pages(run: RunFolder) -> list[Block]:
    """Some pages' whole text beside the text extracted; only where the archives can still be read from here."""
    stage = run.stages.get("extract")
    if not stage:
        return []
    groups, _ = sample_groups(stage.folder / "data")
    rows = _spread_rows(groups, ["path", "offset", "url", "media_type", "text"])
    rows = [row for row in rows if row["media_type"] == "text/html" and len(row["text"]) > 200]
    items = []
    for row, body, charset in islice(_originals(run, rows), PAGES):
        whole = _visible_text(body, charset)
        removed = list(_removed(whole, row["text"]))
        columns = [
            ("the page's text; what was removed is marked", _excerpt(whole, removed)),
            ("extracted", fragments(printable(row["text"]), [], 2 * CHARACTERS)),
        ]
        items.append(Text(clean(row["url"] or row["path"], 120), "", columns))
    return [Texts("Pages", items, opened=True)] if items else []


def _spread_rows(groups: list[Any], columns: list[str], wanted: int = 40) -> list[Row]:
    """Some rows from some row groups, evenly spread."""
    rows: list[Row] = []
    for path, number in groups[:: max(1, len(groups) // 8)]:
        table = read_group(path, number, columns)
        step = max(1, table.num_rows * 8 // wanted)
        rows += table.take(list(range(0, table.num_rows, step))).to_pylist()
    return rows


def _originals(run: RunFolder, rows: list[Row]) -> Iterator[tuple[Row, bytes, str | None]]:
    """(row, page bytes, declared charset) of the first row of each archive that is found in it again."""
    from pipeline.sources import list_inputs, read_documents

    wanted: dict[str, dict[int, Row]] = {}
    for row in rows:
        wanted.setdefault(row["path"], {})[row["offset"]] = row
    for source in run.recipe.get("sources", []):
        if source.get("type") not in ("warc", "html") or any("://" in path for path in source["paths"]):
            continue
        try:
            inputs = list_inputs([Source.model_validate(source)], run.path)
        except PipelineError:  # the sources lie elsewhere: the report is made without this part
            continue
        for item in inputs:
            left = wanted.get(item.key, {})
            found = 0
            for document in islice(read_documents(item, PAGE_BYTES), SCANNED_RECORDS if left else 0):
                if document.offset in left:
                    yield left[document.offset], document.body, document.charset
                    found += 1
                    if found == PAGES // 2:
                        break


def _visible_text(body: bytes, charset: str | None) -> str:
    """All text of a page, navigation and footers too."""
    from resiliparse.extract.html2text import extract_plain_text

    from pipeline.extract.text import decode, tidy

    return printable(tidy(extract_plain_text(decode(body, charset)[0], main_content=False, alt_texts=False)))


def _excerpt(whole: str, removed: list[tuple[int, int]]) -> list[Fragment]:
    if not whole.strip():
        return [("(no text outside of scripts)", False)]
    return fragments(whole, removed, 2 * CHARACTERS, context=10**9)


def _removed(whole: str, text: str) -> Iterator[tuple[int, int]]:
    """Places of the lines whose letters and digits do not stand in the text, as a line of it where they are few."""
    kept, lines = _letters(text), {"", *map(_letters, text.splitlines())}
    for start, line in _numbered(whole):
        letters = _letters(line)
        if letters not in (kept if len(letters) >= SURE_LETTERS else lines):
            yield start, start + len(line)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1
