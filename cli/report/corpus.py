"""From records to tokens: documents and text by stage, and where those of each source and language went.

Counts by stage are exact (stats.json); those by source and language come from the bounded sample, scaled up.

Documents by language and by length, from the bounded sample, scaled up where that is not the whole.

Pages beside what was extracted of them; only where the archives can still be read from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.compute as pc

from cli.report.charts import BEFORE, KEPT, LOGARITHMIC, bars, columns, sampled
from cli.report.page import Block, Figure, Fragment, Section, Table, Text, Texts
from cli.report.passages import CHARACTERS, fragments
from cli.terminal import clean, printable
from common.errors import PipelineError
from common.runfolder import Row, RunFolder, Stage, read_group, sample_groups
from pipeline.config import Source

LANGUAGES = 8  # in the diagram; the rest are one


def funnel_section(run: RunFolder) -> Section:
    """The funnel."""
    lead = "What came in, what each stage kept."
    return Section("funnel", "From records to tokens", lead, [*stages(run), *flows(run)])


def stages(run: RunFolder) -> list[Block]:
    """Documents, text and tokens by stage."""
    if not run.stages:
        return []
    rows: list[list[Any]] = []
    for name, stage in run.stages.items():
        stats = stage.stats
        read, kept = stats["documents_in"], stats["documents_kept"]
        share = 100 * kept / read if read else None
        rows.append([name, read, kept, read - kept, share, stats["bytes_kept"] / 1e6, stats.get("tokens")])
    columns = ["stage", "documents in", "kept", "dropped", "kept %", "text kept (MB)", "tokens"]
    names = [row[0] for row in rows]
    documents = Figure(
        "Documents by stage",
        [bars("kept", [row[2] for row in rows], names), bars("dropped", [row[3] for row in rows], names)],
        Table("Documents, text and tokens by stage", columns, rows),
        {"barmode": "stack", "yaxis": {"autorange": "reversed"}, "xaxis": {"title": {"text": "documents"}}},
        height=80 + 44 * len(rows),
    )
    return [documents]


def flows(run: RunFolder) -> list[Block]:
    """Documents from source through language to the stage that dropped them, or into the corpus."""
    found: Counter[tuple[str, str, str]] = Counter()
    whole = True
    shown = [stage for name, stage in run.stages.items() if name != "tokenize"]
    for stage in shown:
        ends = [(f"✕ {stage.name}", stage.dropped(["source", "language"]))]
        if stage is shown[-1]:
            ends.append(("corpus", stage.kept(["source", "language"])))
        for end, sample in ends:
            whole = whole and sample.whole
            for source, language in zip(sample.column("source"), sample.column("language"), strict=True):
                found[source, language or "unknown", end] += 1
            if not sample.whole:
                for key in [key for key in found if key[2] == end]:
                    found[key] = round(found[key] * sample.scale)
    if not found:
        return []
    common = Counter[str]()
    for (_, language, _), count in found.items():
        common[language] += count
    named = {language for language, _ in common.most_common(LANGUAGES)}
    links: Counter[tuple[str, str]] = Counter()
    for (source, language, end), count in found.items():
        middle = f"language: {language if language in named else 'others'}"
        links[f"source: {source}", middle] += count
        links[middle, end] += count
    nodes = list(dict.fromkeys(node for link in links for node in link))
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {
            "label": [node.partition(": ")[2] if _inner(node) else node for node in nodes],
            "color": [_shade(node, 1.0) for node in nodes],
            "pad": 14,
            "line": {"width": 0},
        },
        "link": {
            "source": [nodes.index(start) for start, _ in links],
            "target": [nodes.index(end) for _, end in links],
            "value": list(links.values()),
            "color": [_shade(end, 0.45) for _, end in links],
        },
    }
    table = Table(
        "Documents by source, language and end",
        ["source", "language", "end", "documents"],
        [[*key, count] for key, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))][:100],
        note="the 100 largest of them" if len(found) > 100 else "",
    )
    return [
        Figure(
            "Documents by source and language",
            [trace],
            table,
            note=f"✕: dropped by that stage. {sampled(whole)}".strip(),
            height=460,
        )
    ]


def _inner(node: str) -> bool:
    return node.startswith(("source: ", "language: "))


def _shade(node: str, opacity: float) -> str:
    """What is kept blue, what is dropped vermilion, what is neither yet grey."""
    color = "128,128,128" if _inner(node) else "213,94,0" if node.startswith("✕") else "0,114,178"
    return f"rgba({color},{opacity})"


TOP = 20  # languages in the chart; the table has all


def languages_section(run: RunFolder) -> Section:
    """Languages, then lengths."""
    return Section("languages", "Languages and lengths", "", [*languages(run), *lengths(run)])


def languages(run: RunFolder) -> list[Block]:
    """Documents by language when identified, and at the end."""
    identified = run.stages.get("language")
    texts = [stage for name, stage in run.stages.items() if name != "tokenize"]
    if not identified or not texts:
        return []
    before, after = identified.kept(["language"]), texts[-1].kept(["language"])
    found, kept = (Counter(sample.column("language")) for sample in (before, after))
    rows: list[list[Any]] = []
    for language, count in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        first, last = round(count * before.scale), round(kept[language] * after.scale)
        rows.append([language, first, last, 100 * last / first])
    most = rows[:TOP]
    names = [row[0] for row in most]
    return [
        Figure(
            "Documents by language",
            [
                columns("identified", names, [row[1] for row in most], BEFORE),
                columns("in the corpus", names, [row[2] for row in most]),
            ],
            Table("Documents by language", ["language", "identified", "in the corpus", "kept %"], rows),
            {"barmode": "group", "yaxis": {"title": {"text": "documents"}} | LOGARITHMIC},
            note=f"logarithmic; the {len(most)} most frequent of {len(rows)}. {sampled(before.whole and after.whole)}",
        )
    ]


def lengths(run: RunFolder) -> list[Block]:
    """Lengths of documents after extraction and in the corpus, in steps of a factor of two."""
    texts = [stage for name, stage in run.stages.items() if name != "tokenize"]
    if not texts:
        return []
    shown = {f"after {stage.name}": stage for stage in dict.fromkeys([texts[0], texts[-1]])}
    counts = {name: _length_counts(stage) for name, stage in shown.items()}
    present = [power for column in counts.values() for power in column]
    if not present:
        return []
    powers = range(min(present), max(present) + 1)
    labels = [_size_label(power) for power in powers]
    rows: list[list[Any]] = [
        [label, *(column[power] for column in counts.values())] for label, power in zip(labels, powers, strict=True)
    ]
    colors = [BEFORE, KEPT][-len(counts) :]
    traces = [
        columns(name, labels, [column[power] for power in powers], color)
        for (name, column), color in zip(counts.items(), colors, strict=True)
    ]
    return [
        Figure(
            "Lengths of documents",
            traces,
            Table("Documents by length", ["bytes of text, at least", *counts], rows),
            {"barmode": "group", "xaxis": {"title": {"text": "bytes of text, at least"}, "type": "category"}}
            | {"yaxis": {"title": {"text": "documents"}}},
        )
    ]


def _length_counts(stage: Stage) -> Counter[int]:
    """Documents by floor(log2(bytes of text)), scaled up from the sample."""
    counts: Counter[int] = Counter()
    groups, total = sample_groups(stage.folder / "data")
    for path, number in groups:
        sizes = pc.binary_length(read_group(path, number, ["text"])["text"]).to_numpy()
        counts.update(np.log2(np.maximum(sizes, 1)).astype(int).tolist())
    scale = total / max(sum(counts.values()), 1)
    return Counter({power: round(count * scale) for power, count in counts.items()})


def _size_label(power: int) -> str:
    for unit, step in (("M", 20), ("k", 10)):
        if power >= step:
            return f"{1 << (power - step)}{unit}"
    return str(1 << power)


PAGES = 4
SCANNED_RECORDS = 2000  # of an archive, for the pages that were extracted
SURE_LETTERS = 12  # so many in a row are not found by chance
PAGE_BYTES = 200_000  # of a page that is shown beside its text


def extraction_section(run: RunFolder) -> Section:
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
    from pipeline.read import list_inputs, read_documents

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
