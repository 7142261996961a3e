"""Passages of documents: dropped ones with the reason marked, duplicates side by side, pages and their extracted text.

Each passage is cut to CHARACTERS, so a report holds a few hundred kB of text however large the corpus is. Control
characters are removed here, HTML is escaped by the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cli.contents import Address, find_rows, read_group, read_recipe, read_rows, read_sample, sample_groups
from cli.report.page import Block, Figure, Fragment, Table, Text, Texts, axis, columns, log_axis, sampled
from cli.terminal import clean, printable
from common.errors import PipelineError
from common.runfolder import Row, RunFolder, Stage
from pipeline.config import Source
from pipeline.quality.presets import PRESETS
from pipeline.quality.spans import offending

CHARACTERS = 1500  # of a passage
COLUMNS = ["id", "url", "path", "source", "language", "text"]
DROPPED_COLUMNS = [*COLUMNS, "rule", "value", "threshold", "detail"]

PER_RULE = 3
RULES = 20  # with the most drops
SEARCHED = 100_000  # characters of a document that are searched for the reason of its drop

SIZES = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 99), (100, 999), (1000, None))  # of clusters, from and to
LARGEST = 5

PAGES = 4
SCANNED_RECORDS = 2000  # of an archive, in search of the pages that were extracted
SURE_LETTERS = 12  # a line with fewer letters may occur in the text by chance
PAGE_BYTES = 200_000  # of a page that is shown beside its text

_RULES = {name: rule for rules in PRESETS.values() for name, rule in rules.items()}


def dropped_samples(run: RunFolder) -> list[Block]:
    """For each rule with the most drops: dropped documents, and kept ones that came nearest to its threshold."""
    drops = [
        (count, name, stage) for stage in run.stages.values() for name, count in stage.stats.get("dropped", {}).items()
    ]
    drops.sort(key=lambda drop: (-drop[0], drop[1]))
    del drops[RULES:]
    found: dict[tuple[str, str], list[Row]] = {}
    nearest: dict[str, Text] = {}
    for stage in {stage.name: stage for *_, stage in drops}.values():
        rules = [name for _, name, of in drops if of is stage]
        for row in find_rows(stage.dropped, "rule", rules, DROPPED_COLUMNS, PER_RULE):
            found.setdefault((stage.name, row["rule"]), []).append(row)
        nearest |= _nearest(stage, [name for name in rules if name in _RULES])
    blocks: list[Block] = []
    for number, (count, name, stage) in enumerate(drops):
        items = [_dropped_text(row, name) for row in found.get((stage.name, name), [])]
        items += [nearest[name]] if name in nearest else []
        blocks.append(Texts(f"{name}: {count:,} dropped by {stage.name}", items, opened=number == 0))
    return blocks


def _dropped_text(row: Row, rule: str) -> Text:
    facts = [clean(row["detail"], 400)] if row.get("detail") else []
    if rule not in " ".join(facts):  # else the detail has value and threshold already
        facts = [f"{name} {row[name]:.4g}" for name in ("value", "threshold") if row.get(name) is not None] + facts
    return _passage(row, "; ".join(facts), "dropped", _RULES[rule].signal if rule in _RULES else "")


def _passage(row: Row, facts: str, label: str, signal: str) -> Text:
    """A document with the part marked that decides the signal; without its text where that is blank."""
    text = printable(row["text"][:SEARCHED])
    column = (label, fragments(text, [offending(text, signal)] if signal else [], CHARACTERS))
    return Text(clean(row["url"] or row["path"], 120), facts, [column] if text.strip() else [])


def _nearest(stage: Stage, rules: list[str]) -> dict[str, Text]:
    """For each rule the kept document whose value is nearest to its published threshold."""
    best: dict[str, tuple[float, Address]] = {}
    for path, number in sample_groups(stage.data)[0]:
        table = read_group(path, number, list(dict.fromkeys(_RULES[rule].signal for rule in rules)))
        for rule in rules:
            signal, _, threshold = _RULES[rule]
            if signal in table.column_names and table.num_rows > table[signal].null_count:
                distances = np.abs(np.array(table[signal].to_pylist(), np.float64) - threshold)
                index = int(np.nanargmin(distances))
                if rule not in best or distances[index] < best[rule][0]:
                    best[rule] = (float(distances[index]), (path, number, index))
    signals = {_RULES[rule].signal for rule in best}
    texts = {}
    for rule, row in zip(best, read_rows([address for _, address in best.values()], [*COLUMNS, *signals]), strict=True):
        signal, _, threshold = _RULES[rule]
        facts = f"value {row[signal]:.4g}, published threshold {threshold:g}"
        texts[rule] = _passage(row, facts, "kept, the nearest to the threshold", signal)
    return texts


def fragments(text: str, marked: Iterable[tuple[int, int]], limit: int, context: int = 200) -> list[Fragment]:
    """The text in marked and unmarked parts, cut to `limit` characters from shortly before the first mark."""
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


def cluster_sizes(run: RunFolder) -> list[Block]:
    """How many clusters there are of each size."""
    stage = run.stages.get("dedup")
    sample = read_sample(stage.data, ["cluster_size"]) if stage else None
    if sample is None or "cluster_size" not in sample:
        return []
    clusters = np.array(sample.column("cluster_size"))
    rows: list[list[Any]] = []
    for low, high in SIZES:
        inside = (clusters >= low) & ((clusters <= high) if high else True)
        count = round(int(inside.sum()) * sample.scale)
        label = f"{low}" if low == high else f"{low} to {high}" if high else f"{low:,} or more"
        rows.append([label, count, round(float(clusters[inside].sum()) * sample.scale)])
    return [
        Figure(
            "Sizes of duplicate clusters",
            [columns("clusters", [row[0] for row in rows], [row[1] for row in rows])],
            Table("Clusters by size", ["documents in the cluster", "clusters", "documents"], rows),
            {"xaxis": axis("documents in the cluster", type="category"), "yaxis": log_axis("clusters")},
            note=f"logarithmic; 1 = no duplicate. {sampled(sample.complete)}",
        )
    ]


def largest_clusters(run: RunFolder) -> list[Block]:
    """The largest clusters: size, survivor, and a dropped member."""
    stage = run.stages.get("dedup")
    if not stage:
        return []
    survivors = _largest(stage)
    copies = {
        row["cluster"]: row
        for row in find_rows(stage.dropped, "cluster", set(survivors), [*DROPPED_COLUMNS, "cluster"], 1)
    }
    items = []
    for name, row in survivors.items():
        texts = [("kept", fragments(printable(row["text"]), [], CHARACTERS))]
        facts = f"{row['cluster_size']:,} documents"
        if copy := copies.get(name):
            texts.append(("dropped", fragments(printable(copy["text"]), [], CHARACTERS)))
            facts += f"; the copy shown: {copy['rule']}, similarity {copy['value']:.2f}, {clean(copy['url'], 100)}"
        items.append(Text(clean(row["url"], 120), facts, texts))
    return [Texts("The largest clusters: the survivor beside a dropped copy", items)] if items else []


def _largest(stage: Stage) -> dict[str, Row]:
    """Survivors of the largest clusters by cluster. Row groups are chosen by the maximum in the footers' statistics."""
    groups: list[tuple[int, Any, int]] = []
    for path in sorted(stage.data.glob("*.parquet")):
        footer = pq.read_metadata(path)
        if "cluster_size" not in footer.schema.names:
            return {}
        column = footer.schema.names.index("cluster_size")
        for number in range(footer.num_row_groups):
            statistics = footer.row_group(number).column(column).statistics
            if statistics and statistics.has_min_max and statistics.max > 1:
                groups.append((-statistics.max, path, number))
    found: list[tuple[int, str, Address]] = []
    for _, path, number in sorted(groups)[:LARGEST]:
        table = read_group(path, number, ["id", "cluster_size"])
        for row, (name, size) in enumerate(zip(*table.to_pydict().values(), strict=True)):
            if size > 1:
                found.append((-size, name, (path, number, row)))
    addresses = [address for *_, address in sorted(found)[:LARGEST]]
    return {row["cluster"]: row for row in read_rows(addresses, [*COLUMNS, "cluster", "cluster_size"])}


def extracted_pages(run: RunFolder) -> list[Block]:
    """Some pages' complete text beside the extracted text, where the archives can still be read from here."""
    stage = run.stages.get("extract")
    if not stage:
        return []
    rows = _spread_rows(sample_groups(stage.data)[0], ["path", "offset", "url", "media_type", "bytes"])
    rows = [row for row in rows if row["media_type"] == "text/html" and row["bytes"] > 200]
    shown = list(islice(_originals(run, rows), PAGES))
    items = []
    texts = read_rows([row["address"] for row, *_ in shown], ["text"])
    for (row, body, charset), extracted in zip(shown, texts, strict=True):
        text = _visible_text(body, charset)
        marked = fragments(text, _removed(text, extracted["text"]), 2 * CHARACTERS, context=10**9)
        page = ("the page's text; removed lines are marked", marked or [("(no text outside of scripts)", False)])
        kept = ("extracted", fragments(printable(extracted["text"]), [], 2 * CHARACTERS))
        items.append(Text(clean(row["url"] or row["path"], 120), "", [page, kept]))
    return [Texts("Pages", items, opened=True)] if items else []


def _spread_rows(groups: list[Any], columns: list[str], wanted: int = 40) -> list[Row]:
    """About `wanted` rows, evenly spread over some of the row groups, with their `address`."""
    rows: list[Row] = []
    for path, number in groups[:: max(1, len(groups) // 8)]:
        table = read_group(path, number, columns)
        step = max(1, table.num_rows * 8 // wanted)
        for row in range(0, table.num_rows, step):
            rows.append(table.slice(row, 1).to_pylist()[0] | {"address": (path, number, row)})
    return rows


def _originals(run: RunFolder, rows: list[Row]) -> Iterator[tuple[Row, bytes, str | None]]:
    """(row, page bytes, declared charset) of rows whose page is found in its archive, PAGES / 2 of each archive."""
    from pipeline.read import list_inputs, read_documents

    wanted: dict[str, dict[int, Row]] = {}
    for row in rows:
        wanted.setdefault(row["path"], {})[row["offset"]] = row
    for source in read_recipe(run).get("sources", []):
        if source.get("type") not in ("warc", "html") or any("://" in path for path in source["paths"]):
            continue
        try:
            inputs = list_inputs([Source.model_validate(source)], run.path)
        except PipelineError:  # the sources are not on this machine: leave them out
            continue
        for item in inputs:
            left = wanted.get(item.key, {})
            shown = 0
            for document in islice(read_documents(item, PAGE_BYTES), SCANNED_RECORDS if left else 0):
                if document.offset in left:
                    yield left[document.offset], document.body, document.charset
                    shown += 1
                    if shown == PAGES // 2:
                        break


def _visible_text(body: bytes, charset: str | None) -> str:
    """All text of a page, with navigation and footers."""
    from resiliparse.extract.html2text import extract_plain_text

    from pipeline.extract.decoding import decode, tidy

    return printable(tidy(extract_plain_text(decode(body, charset)[0], main_content=False, alt_texts=False)))


def _removed(page: str, text: str) -> Iterator[tuple[int, int]]:
    """Spans of the page's lines whose letters and digits the text does not contain; short lines count as lines only."""
    kept, lines = _letters(text), {"", *map(_letters, text.splitlines())}
    for line in re.finditer(r"[^\n]+", page):
        letters = _letters(line[0])
        if letters not in (kept if len(letters) >= SURE_LETTERS else lines):
            yield line.span()


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))
