"""Sections with texts: pages beside what was extracted, duplicates side by side, drops and near misses by rule.

Texts come from the bounded sample; each is cut to CHARACTERS, so a report holds a few hundred kB of text however
large the corpus is. Control characters are removed here, HTML is escaped by the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.presets import PRESETS
from pipeline.quality.spans import offending
from recipes.report.blocks import Block, Fragment, Section, Text, Texts
from recipes.report.runfolder import Row, RunFolder, Stage, find_rows, read_group, sample_groups
from recipes.terminal import clean, printable

CHARACTERS = 1500
PAGES = 4
PER_RULE = 3
RULES = 20  # with the most drops
CLUSTERS = 5
SCANNED_RECORDS = 2000  # of an archive, for the pages that were extracted
PAGE_BYTES = 200_000  # of a page that is shown beside its text

_COLUMNS = ["id", "url", "path", "source", "language", "text"]
_DROPPED = [*_COLUMNS, "rule", "value", "threshold", "detail"]
_RULES = {name: rule for rules in PRESETS.values() for name, rule in rules.items()}


def sections(run: RunFolder) -> list[Section]:
    """Extraction examples, the largest clusters, and samples by rule."""
    return [
        Section("extraction", "Extraction", "What the page said, beside the text that was kept of it.", pages(run)),
        Section("clusters", "Largest duplicate clusters", "The survivor beside a dropped copy.", clusters(run)),
        Section("samples", "Dropped, and just kept", "The offending part is marked.", samples(run)),
    ]


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
        kept = {line.strip() for line in row["text"].splitlines() if line.strip()}
        removed = [
            (start, start + len(line)) for start, line in _numbered(whole) if line.strip() and line.strip() not in kept
        ]
        columns = [
            ("the page's text; what was removed is marked", fragments(whole, removed, 2 * CHARACTERS, context=10**9)),
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


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


def clusters(run: RunFolder) -> list[Block]:
    """The largest clusters: size, survivor, and a dropped member."""
    stage = run.stages.get("dedup")
    if not stage:
        return []
    largest = _largest(stage)
    copies = {
        row["cluster"]: row
        for row in find_rows(stage.folder / "dropped", "cluster", set(largest), [*_DROPPED, "cluster"], 1)
    }
    items = []
    for name, row in largest.items():
        columns = [("kept", fragments(printable(row["text"]), [], CHARACTERS))]
        facts = f"{row['cluster_size']:,} documents"
        if copy := copies.get(name):
            columns.append(("dropped", fragments(printable(copy["text"]), [], CHARACTERS)))
            facts += f"; the copy shown: {copy['rule']}, similarity {copy['value']:.2f}, {clean(copy['url'], 100)}"
        items.append(Text(clean(row["url"], 120), facts, columns))
    return [Texts("By size", items)] if items else []


def _largest(stage: Stage) -> dict[str, Row]:
    """Survivors of the largest clusters. Row groups are chosen by the greatest size in their footers' statistics."""
    found: list[tuple[int, Any, int]] = []
    for path in sorted((stage.folder / "data").glob("*.parquet")):
        footer = pq.read_metadata(path)
        if "cluster_size" not in footer.schema.names:
            return {}
        column = footer.schema.names.index("cluster_size")
        for number in range(footer.num_row_groups):
            statistics = footer.row_group(number).column(column).statistics
            if statistics and statistics.has_min_max and statistics.max > 1:
                found.append((-statistics.max, path, number))
    rows: list[Row] = []
    for _, path, number in sorted(found)[:CLUSTERS]:
        table = read_group(path, number, [*_COLUMNS, "cluster", "cluster_size"])
        order = sorted(range(table.num_rows), key=lambda i: -table["cluster_size"][i].as_py())
        rows += table.take(order[:CLUSTERS]).to_pylist()
    rows.sort(key=lambda row: (-row["cluster_size"], row["id"]))
    return {row["cluster"]: row for row in rows[:CLUSTERS] if row["cluster_size"] > 1}


def samples(run: RunFolder) -> list[Block]:
    """For each rule with the most drops: dropped documents, and kept ones that came nearest to its threshold."""
    drops = [
        (count, name, stage) for stage in run.stages.values() for name, count in stage.stats.get("dropped", {}).items()
    ]
    drops.sort(key=lambda drop: (-drop[0], drop[1]))
    blocks: list[Block] = []
    for number, (count, name, stage) in enumerate(drops[:RULES]):
        rows = find_rows(stage.folder / "dropped", "rule", {name}, _DROPPED, PER_RULE)
        items = [_dropped_text(row, name) for row in rows]
        if (near := _nearest(stage, name)) is not None:
            items.append(near)
        blocks.append(Texts(f"{name}: {count:,} dropped by {stage.name}", items, opened=number == 0))
    return blocks


def _dropped_text(row: Row, rule: str) -> Text:
    text = printable(row["text"])
    signal = _RULES[rule].signal if rule in _RULES else ""
    facts = [f"{name} {row[name]:.4g}" for name in ("value", "threshold") if row.get(name) is not None]
    if row.get("detail"):
        facts.append(clean(row["detail"], 400))
    marked = [offending(text, signal)] if signal else []
    column = ("dropped", fragments(text, marked, CHARACTERS))
    return Text(clean(row["url"] or row["path"], 120), "; ".join(facts), [column] if text.strip() else [])


def _nearest(stage: Stage, rule: str) -> Text | None:
    """The kept document whose value is nearest to the rule's published threshold, on the right side of it."""
    if rule not in _RULES:
        return None
    signal, _, threshold = _RULES[rule]
    best: tuple[float, Any, int, int] | None = None
    for path, number in sample_groups(stage.folder / "data")[0]:
        table = read_group(path, number, [signal])
        if not table.num_columns:
            return None
        for index, value in enumerate(table[signal].to_pylist()):
            if value is not None and (best is None or abs(value - threshold) < best[0]):
                best = (abs(value - threshold), path, number, index)
    if best is None:
        return None
    row = read_group(best[1], best[2], [*_COLUMNS, signal]).take([best[3]]).to_pylist()[0]
    text = printable(row["text"])
    facts = f"value {row[signal]:.4g}, published threshold {threshold:g}"
    column = ("kept, the nearest to the threshold", fragments(text, [offending(text, signal)], CHARACTERS))
    return Text(clean(row["url"] or row["path"], 120), facts, [column])


def fragments(text: str, marked: Iterable[tuple[int, int]], limit: int, context: int = 200) -> list[Fragment]:
    """The text cut into marked and unmarked parts, at most `limit` characters from a little before the first mark."""
    marked = list(marked)
    start = max(0, marked[0][0] - context) if marked and marked[0][1] > limit else 0
    end = min(len(text), start + limit)
    parts: list[Fragment] = [("… ", False)] if start else []
    at = start
    for first, last in marked:
        first, last = max(first, at), min(last, end)
        if first < last:
            parts += [(text[at:first], False), (text[first:last], True)]
            at = last
    parts += [(text[at:end], False), (" …" if end < len(text) else "", False)]
    return [part for part in parts if part[0]]
