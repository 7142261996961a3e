"""Documents and tokens in numbers: by stage, source, language, rule, length and stream.

Counts by stage are exact (stats.json); all others come from bounded samples, scaled up where a sample is not complete.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cli.contents import read_group, read_sample, sample_groups
from cli.report.page import (
    BEFORE,
    KEPT,
    Block,
    Figure,
    Table,
    axis,
    bars,
    bars_layout,
    columns,
    log_axis,
    sampled,
)
from common.runfolder import RunFolder, Stage

LANGUAGES = 8  # in the diagram of flows; the others are drawn as one
FLOWS = 100  # in the diagram's table
UNSURE = 0.6  # confidence below which the extractor makes a wider choice
TOP = 20  # rules or languages in a chart; its table has all


def documents_by_stage(run: RunFolder) -> list[Block]:
    """Documents, text and tokens by stage."""
    rows: list[list[Any]] = []
    for name, stage in run.stages.items():
        stats = stage.stats
        read, kept = stats["documents_in"], stats["documents_kept"]
        share = 100 * kept / read if read else None
        rows.append([name, read, kept, read - kept, share, stats["bytes_kept"] / 1e6, stats.get("tokens")])
    if not rows:
        return []
    names = [row[0] for row in rows]
    return [
        Figure(
            "Documents by stage",
            [bars("kept", [row[2] for row in rows], names), bars("dropped", [row[3] for row in rows], names)],
            Table(
                "Documents, text and tokens by stage",
                ["stage", "documents in", "kept", "dropped", "kept %", "text kept (MB)", "tokens"],
                rows,
            ),
            bars_layout("documents", barmode="stack"),
            height=80 + 44 * len(rows),
        )
    ]


def document_flows(run: RunFolder) -> list[Block]:
    """Documents from source through language to the stage that dropped them, or into the corpus."""
    counts: Counter[tuple[str, str, str]] = Counter()
    complete = True
    stages = list(run.text_stages.values())
    ends = [(f"✕ {stage.name}", stage.dropped) for stage in stages] + [("corpus", stage.data) for stage in stages[-1:]]
    for end, folder in ends:
        sample = read_sample(folder, ["source", "language"])
        complete = complete and sample.complete
        pairs = Counter(zip(sample.column("source"), sample.column("language"), strict=True))
        for (source, language), count in pairs.items():
            counts[source, language or "unknown", end] += round(count * sample.scale)
    if not counts:
        return []
    by_language = Counter[str]()
    for (_, language, _), count in counts.items():
        by_language[language] += count
    named = {language for language, _ in by_language.most_common(LANGUAGES)}
    links: Counter[tuple[str, str]] = Counter()
    for (source, language, end), count in counts.items():
        middle = f"language: {language if language in named else 'others'}"
        links[f"source: {source}", middle] += count
        links[middle, end] += count
    nodes = list(dict.fromkeys(node for link in links for node in link))
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {
            "label": [node.partition(": ")[2] if _is_intermediate(node) else node for node in nodes],
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
    title = "Documents by source, language and end"
    rows = [[*key, count] for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    note = f"the {FLOWS} largest of them" if len(rows) > FLOWS else ""
    table = Table(title, ["source", "language", "end", "documents"], rows[:FLOWS], note)
    legend = f"✕: dropped by that stage. {sampled(complete)}".strip()
    return [Figure("Documents by source and language", [trace], table, note=legend, height=460)]


def _is_intermediate(node: str) -> bool:
    return node.startswith(("source: ", "language: "))


def _shade(node: str, opacity: float) -> str:
    """Blue for kept, vermilion for dropped, grey for intermediate nodes."""
    color = "128,128,128" if _is_intermediate(node) else "213,94,0" if node.startswith("✕") else "0,114,178"
    return f"rgba({color},{opacity})"


def drops_by_rule(run: RunFolder) -> list[Block]:
    """Drops by rule, counted as `pretrain inspect` does: by it only, by it first, by it alone."""
    rows: list[list[Any]] = []
    complete = True
    for stage in run.stages.values():
        first = stage.stats["dropped"]
        if not first:
            continue
        sample = read_sample(stage.dropped, ["rule", "failed_rules"])
        complete = complete and sample.complete
        only: Counter[str] = Counter()
        alone: Counter[str] = Counter()
        for rule, listed in zip(sample.column("rule"), sample.column("failed_rules"), strict=True):
            failed = listed.split() if listed else [rule]
            alone.update(failed)
            if len(failed) == 1:
                only[rule] += 1
        for rule in sorted(alone.keys() | first.keys()):
            exact = first.get(rule, 0)
            least, most = round(only[rule] * sample.scale), round(alone[rule] * sample.scale)
            rows.append([stage.name, rule, min(least, exact), exact, max(most, exact)])
    if not rows:
        return []
    rows.sort(key=lambda row: (-row[4], row[1]))
    top = rows[:TOP]
    names = [row[1] for row in top]
    return [
        Figure(
            "Documents dropped, by rule",
            [bars(name, [row[i] for row in top], names) for i, name in ((2, "only"), (3, "first"), (4, "alone"))],
            Table("Drops by rule", ["stage", "rule", "only", "first", "alone"], rows),
            bars_layout("documents", barmode="group"),
            note="only: no other rule drops them; first: counted for this rule in the funnel; alone: this rule would"
            " drop them whatever the others do. " + sampled(complete),
            height=90 + 40 * len(top),
        )
    ]


def documents_by_language(run: RunFolder) -> list[Block]:
    """Documents by language, as identified and at the end."""
    if "language" not in run.stages:
        return []
    last = list(run.text_stages.values())[-1]
    before, after = (read_sample(stage.data, ["language"]) for stage in (run.stages["language"], last))
    identified, kept = Counter(before.column("language")), Counter(after.column("language"))
    rows: list[list[Any]] = []
    for language, count in sorted(identified.items(), key=lambda item: (-item[1], item[0])):
        read, left = round(count * before.scale), round(kept[language] * after.scale)
        rows.append([language, read, left, 100 * left / read])
    top = rows[:TOP]
    names = [row[0] for row in top]
    note = f"logarithmic; the {len(top)} most frequent of {len(rows)}. {sampled(before.complete and after.complete)}"
    return [
        Figure(
            "Documents by language",
            [
                columns("identified", names, [row[1] for row in top], BEFORE),
                columns("in the corpus", names, [row[2] for row in top]),
            ],
            Table("Documents by language", ["language", "identified", "in the corpus", "kept %"], rows),
            {"barmode": "group", "yaxis": log_axis("documents")},
            note=note,
        )
    ]


def pages_by_kind(run: RunFolder) -> list[Block]:
    """Pages by predicted kind, with the extractor's confidence, and by the way in which they were extracted."""
    stage = run.stages.get("extract")
    sample = read_sample(stage.data, ["page_kind", "extract_confidence"]) if stage else None
    if stage is None or sample is None or "page_kind" not in sample:
        return []
    pairs = list(zip(sample.column("page_kind"), sample.column("extract_confidence"), strict=True))
    rows: list[list[Any]] = []
    for kind, count in sorted(Counter(kind for kind, _ in pairs if kind).items(), key=lambda item: (-item[1], item[0])):
        values = [confidence for name, confidence in pairs if name == kind and confidence is not None]
        mean, low = (
            (float(np.mean(values)), 100 * float(np.mean(np.array(values) < UNSURE))) if values else (None, None)
        )
        rows.append([kind, round(count * sample.scale), mean, low])
    ways = [[name, count] for name, count in sorted(stage.stats["extracted_by"].items(), key=lambda item: -item[1])]
    note = (
        f"confidence: word F1 to expect; below {UNSURE} more of the page is kept (`wide`). {sampled(sample.complete)}"
    )
    return [
        Table("Pages by predicted kind", ["kind", "pages", "mean confidence", "unsure %"], rows, note),
        Table("Pages by way of extraction", ["way", "pages"], ways),
    ]


def documents_by_length(run: RunFolder) -> list[Block]:
    """Lengths of documents after the first stage and in the corpus, in steps of a factor of two."""
    stages = list(run.text_stages.values())
    counts = {f"after {stage.name}": _length_counts(stage) for stage in dict.fromkeys([*stages[:1], *stages[-1:]])}
    present = [power for column in counts.values() for power in column]
    if not present:
        return []
    powers = range(min(present), max(present) + 1)
    labels = [_size_label(power) for power in powers]
    heights = [[column[power] for power in powers] for column in counts.values()]
    colors = [BEFORE, KEPT][-len(counts) :]
    title = "bytes of text, at least"
    rows = [list(row) for row in zip(labels, *heights, strict=True)]
    return [
        Figure(
            "Lengths of documents",
            list(map(columns, counts, [labels] * len(counts), heights, colors)),
            Table("Documents by length", [title, *counts], rows),
            {"barmode": "group", "xaxis": axis(title, type="category"), "yaxis": axis("documents")},
        )
    ]


def _length_counts(stage: Stage) -> Counter[int]:
    """Documents by floor(log2(bytes of text)), scaled up from the sample."""
    counts: Counter[int] = Counter()
    groups, total = sample_groups(stage.data)
    for path, number in groups:
        sizes = np.array(_sizes(path, number)[0].to_pylist())
        counts.update(np.log2(np.maximum(sizes, 1)).astype(int).tolist())
    scale = total / max(sum(counts.values()), 1)
    return Counter({power: round(count * scale) for power, count in counts.items()})


def _sizes(path: Path, number: int, *more: str) -> tuple[pa.ChunkedArray, pa.Table]:
    """Bytes of the texts of a row group, and the columns `more`."""
    table = read_group(path, number, ["bytes", *more])
    if "bytes" in table.column_names:
        return table["bytes"], table
    return pc.binary_length(read_group(path, number, ["text"])["text"]), table


def _size_label(power: int) -> str:
    for unit, step in (("M", 20), ("k", 10)):
        if power >= step:
            return f"{1 << (power - step)}{unit}"
    return str(1 << power)


def tokenizer_fertility(run: RunFolder) -> list[Block]:
    """Bytes of text per token in each language, and tokens per word where the signals counted words."""
    if not run.documents.is_file():
        return []
    sample = read_sample(run.documents, ["id", "language", "bytes", "tokens"])
    tokens: Counter[str] = Counter()
    sizes: dict[str, dict[str, int]] = {}
    for name, language, size, count in zip(*map(sample.column, ("id", "language", "bytes", "tokens")), strict=True):
        tokens[language or "unknown"] += count
        sizes.setdefault(language or "unknown", {})[name] = size  # a document that was cut has several rows
    per_word = _bytes_per_word(run)
    rows: list[list[Any]] = []
    for language, count in sorted(tokens.items(), key=lambda item: (-item[1], item[0])):
        size = sum(sizes[language].values())
        words = size / per_word[language] if language in per_word else 0
        row = [language, len(sizes[language]), round(count * sample.scale), size / count]
        rows.append([*row, count / words if words else None])
    top = rows[:TOP]
    return [
        Figure(
            "Tokenizer fertility by language",
            [columns("bytes per token", [row[0] for row in top], [round(row[3], 3) for row in top])],
            Table(
                "Fertility by language",
                ["language", "documents seen", "tokens", "bytes per token", "tokens per word"],
                rows,
            ),
            {"yaxis": axis("bytes per token")},
            note="more bytes per token are better within one script; scripts of two and three bytes a character"
            f" start higher. {sampled(sample.complete)}",
        )
    ]


def _bytes_per_word(run: RunFolder) -> dict[str, float]:
    """Mean bytes of text per word by language, from the `words` signal."""
    if "quality" not in run.stages:
        return {}
    sizes: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for path, number in sample_groups(run.stages["quality"].data)[0]:
        lengths, table = _sizes(path, number, "words", "language")
        if not {"words", "language"}.issubset(table.column_names):
            return {}
        for language, size, count in zip(
            *(column.to_pylist() for column in (table["language"], lengths, table["words"])), strict=True
        ):
            sizes[language] += size
            words[language] += count
    return {language: sizes[language] / count for language, count in words.items() if count}


def training_mixture(run: RunFolder) -> list[Block]:
    """Streams with their tokens, padding and share of training."""
    stage = run.stages.get("tokenize")
    if not stage:
        return []
    streams = stage.manifest.get("streams") or stage.stats.get("streams", {})
    weighted = {
        name: entry["tokens"] * entry.get("weight", 1.0) for name, entry in streams.items() if name.startswith("train/")
    }
    rows: list[list[Any]] = []
    for name, entry in streams.items():
        padding = entry.get("padding", 0)
        share = 100 * weighted[name] / max(sum(weighted.values()), 1e-9) if name in weighted else None
        row = [name, entry["documents"], entry["samples"], entry["tokens"], entry.get("weight"), share]
        rows.append([*row, 100 * padding / max(entry["tokens"] + padding, 1)])
    shares = [row for row in rows if row[5] is not None]
    return [
        Figure(
            "Mixture of training",
            [bars("share of training %", [round(row[5], 2) for row in shares], [row[0] for row in shares])],
            Table(
                "Streams",
                ["stream", "documents", "sequences", "tokens", "weight", "share of training %", "padding %"],
                rows,
                note=f"{stage.manifest.get('sequence_length', '?')} tokens a sequence",
            ),
            bars_layout("% of training"),
            height=110 + 36 * len(shares),
        )
    ]
