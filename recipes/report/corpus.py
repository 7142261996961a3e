"""Sections on documents: the funnel, what rules dropped, signals, languages, lengths, duplicates, tokens.

Counts by stage, source and rule are exact (stats.json); everything by language, and the histograms, come from the
bounded sample of `runfolder`, scaled up, and say so where the sample is not the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.config import QualityConfig
from pipeline.presets import QualityRule
from recipes.report.blocks import Block, Figure, Section, Table
from recipes.report.runfolder import RunFolder, Stage, read_group, read_sample, sample_groups

BINS = 40
TOP_RULES = 20
TOP_LANGUAGES = 20
SANKEY_LANGUAGES = 8
CLUSTER_SIZES = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 99), (100, 999), (1000, None))


def sections(run: RunFolder) -> list[Section]:
    """The sections on the corpus, as far as its stages are built."""
    return [
        Section("funnel", "From records to tokens", "What came in, what each stage kept.", funnel(run)),
        Section("rules", "What each rule dropped", "", rules(run)),
        Section("signals", "Signals and thresholds", "Kept and dropped documents by value.", signals(run)),
        Section("languages", "Languages and lengths", "", [*languages(run), *lengths(run)]),
        Section("duplicates", "Duplicates", "Clusters of equal and nearly equal documents.", clusters(run)),
        Section("tokens", "Tokens, packing and mixture", "", [*fertility(run), *mixture(run)]),
    ]


def funnel(run: RunFolder) -> list[Block]:
    """Documents and text by stage; and where documents of each source and language went."""
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
        [_bars("kept", [row[2] for row in rows], names), _bars("dropped", [row[3] for row in rows], names)],
        Table("Documents, text and tokens by stage", columns, rows),
        {"barmode": "stack", "yaxis": {"autorange": "reversed"}, "xaxis": {"title": {"text": "documents"}}},
        height=80 + 44 * len(rows),
    )
    return [documents, *_sankey(run)]


def _sankey(run: RunFolder) -> list[Block]:
    """Documents from source through language to the stage that dropped them, or into the corpus."""
    flows: Counter[tuple[str, str, str]] = Counter()
    whole = True
    stages = [stage for name, stage in run.stages.items() if name != "tokenize"]
    for stage in stages:
        ends = [(f"dropped: {stage.name}", stage.dropped(["source", "language"]))]
        if stage is stages[-1]:
            ends.append(("corpus", stage.kept(["source", "language"])))
        for end, sample in ends:
            whole = whole and sample.whole
            for source, language in zip(sample.column("source"), sample.column("language"), strict=True):
                flows[source, language or "not identified", end] += 1
            if not sample.whole:
                for key in [key for key in flows if key[2] == end]:
                    flows[key] = round(flows[key] * sample.scale)
    if not flows:
        return []
    common = Counter[str]()
    for (_, language, _), count in flows.items():
        common[language] += count
    named = {language for language, _ in common.most_common(SANKEY_LANGUAGES)}
    links: Counter[tuple[str, str]] = Counter()
    for (source, language, end), count in flows.items():
        middle = f"language: {language if language in named else 'others'}"
        links[f"source: {source}", middle] += count
        links[middle, end] += count
    nodes = list(dict.fromkeys(node for link in links for node in link))
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {"label": [node.partition(": ")[2] if _inner(node) else node for node in nodes], "pad": 12},
        "link": {
            "source": [nodes.index(start) for start, _ in links],
            "target": [nodes.index(end) for _, end in links],
            "value": list(links.values()),
            "color": "rgba(128,128,128,0.35)",
        },
    }
    table = Table(
        "Documents by source, language and end",
        ["source", "language", "end", "documents"],
        [[*key, count] for key, count in sorted(flows.items(), key=lambda item: (-item[1], item[0]))][:100],
        note="the 100 largest of them" if len(flows) > 100 else "",
    )
    return [Figure("Documents by source and language", [trace], table, note=_sampled(whole), height=460)]


def _inner(node: str) -> bool:
    return node.startswith(("source: ", "language: "))


def rules(run: RunFolder) -> list[Block]:
    """Drops by rule, counted as `pretrain inspect` does: by it only, by it first, by it alone."""
    rows: list[list[Any]] = []
    whole = True
    for stage in run.stages.values():
        first = stage.stats["dropped"]
        if not first:
            continue
        sample = stage.dropped(["rule", "failed_rules"])
        whole = whole and sample.whole
        only: Counter[str] = Counter()
        anywhere: Counter[str] = Counter()
        for rule, listed in zip(sample.column("rule"), sample.column("failed_rules"), strict=True):
            failed = listed.split() if listed else [rule]
            anywhere.update(failed)
            if len(failed) == 1:
                only[rule] += 1
        for rule in sorted(anywhere.keys() | first.keys()):
            rows.append(
                [
                    stage.name,
                    rule,
                    min(round(only[rule] * sample.scale), first.get(rule, 0)),
                    first.get(rule, 0),
                    max(round(anywhere[rule] * sample.scale), first.get(rule, 0)),
                ]
            )
    if not rows:
        return []
    rows.sort(key=lambda row: (-row[4], row[1]))
    most = rows[:TOP_RULES]
    names = [row[1] for row in most]
    traces = [_bars(name, [row[i] for row in most], names) for i, name in ((2, "only"), (3, "first"), (4, "alone"))]
    return [
        Figure(
            "Documents dropped, by rule",
            traces,
            Table("Drops by rule", ["stage", "rule", "only", "first", "alone"], rows),
            {"yaxis": {"autorange": "reversed"}, "xaxis": {"title": {"text": "documents"}}, "barmode": "group"},
            note="only: no other rule drops them; first: counted for this rule in the funnel; alone: this rule would"
            " drop them whatever the others do. " + _sampled(whole),
            height=90 + 40 * len(most),
        )
    ]


def signals(run: RunFolder) -> list[Block]:
    """A histogram of each signal that a rule looks at, kept and dropped apart, thresholds drawn in."""
    figures: list[Block] = []
    language = run.stages.get("language")
    if language:
        lines = [(float(run.recipe.get("language", {}).get("threshold", 0.65)), "kept from the threshold on")]
        figures += _histogram(language, "language_score", lines)
    quality = run.stages.get("quality")
    if quality:
        for signal, lines in _thresholds(run).items():
            figures += _histogram(quality, signal, lines)
    return figures


def _thresholds(run: RunFolder) -> dict[str, list[tuple[float, str]]]:
    """(threshold, rule) of each signal, by the recipe; per-language overrides are left out."""
    from pipeline.quality.rules import rules_for

    given = {key: value for key, value in run.recipe.get("quality", {}).items() if key in QualityConfig.model_fields}
    settings = QualityConfig.model_validate(given)
    found: dict[str, list[tuple[float, str]]] = {}
    rule: QualityRule
    for name, rule in rules_for(settings, "en").items():
        found.setdefault(rule.signal, []).append((rule.threshold, f"{name} {rule.op} {rule.threshold:g}"))
    return found


def _histogram(stage: Stage, signal: str, lines: Sequence[tuple[float, str]]) -> list[Block]:
    sides = {"kept": stage.kept([signal]), "dropped": stage.dropped([signal])}
    values = {
        side: np.array([value for value in sample.column(signal) if value is not None], np.float64)
        for side, sample in sides.items()
    }
    together = np.concatenate(list(values.values()))
    if not len(together):
        return []
    edges, logarithmic = bin_edges(together, [line for line, _ in lines])
    counts = {
        side: np.round(np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] * sides[side].scale).astype(int)
        for side, found in values.items()
    }
    labels = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    table = Table(
        signal,
        ["from", "to", *counts],
        [
            [float(edges[i]), float(edges[i + 1]), *(int(column[i]) for column in counts.values())]
            for i in range(len(labels))
            if any(column[i] for column in counts.values())
        ],
        note="; ".join(text for _, text in lines),
    )
    ticks = round_numbers(edges[0], edges[-1], logarithmic=logarithmic)
    layout = {
        "barmode": "stack",
        "bargap": 0.02,
        "xaxis": {"tickvals": [_position(tick, edges) for tick in ticks], "ticktext": [f"{tick:,g}" for tick in ticks]},
        "yaxis": {"title": {"text": "documents"}},
        "shapes": [
            {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper", "line": {"dash": "dash"}}
            for place in (_position(line, edges) for line, _ in lines)
        ],
    }
    traces = [
        {"type": "bar", "name": side, "x": list(range(len(labels))), "y": column.tolist(), "customdata": labels}
        | {"hovertemplate": "%{customdata}: %{y:,}<extra>" + side + "</extra>"}
        for side, column in counts.items()
    ]
    note = "; ".join(text for _, text in lines) + ("; logarithmic steps" if logarithmic else "")
    whole = all(sample.whole for sample in sides.values())
    return [Figure(signal, traces, table, layout, note=f"{note}. {_sampled(whole)}".strip(), height=260, wide=False)]


def bin_edges(values: np.ndarray[Any, Any], lines: Sequence[float]) -> tuple[np.ndarray[Any, Any], bool]:
    """BINS + 1 edges over the bulk of the values and the thresholds; in equal ratios where values span decades.

    The outer 1 % on either side falls into the outer bins.
    """
    near = [line for line in lines if line <= 4 * values.max() or line == min(lines)]
    low, high = np.quantile(values, [0.01, 0.99])
    low, high = min(low, *near, values.max()) if near else low, max(high, *near) if near else high
    if high <= low:
        high = low + 1.0
    positive = values[values > 0]
    if len(positive) and high > 100 and np.median(positive) < high / 20:
        return np.geomspace(max(low, 1.0), high, BINS + 1), True
    margin = 0.02 * (high - low)
    return np.linspace(low - margin if low < 0 or low > margin else low, high + margin, BINS + 1), False


def round_numbers(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Three to seven round numbers between low and high, powers of ten on a logarithmic axis."""
    if logarithmic:
        powers = range(int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9)) + 1)
        return [10.0**power for power in powers]
    unit = 10.0 ** np.floor(np.log10((high - low) / 2))
    step = next(unit * factor for factor in (0.5, 1, 2, 5) if (high - low) / (unit * factor) <= 6)
    return [float(f"{i * step:.6g}") for i in range(int(np.ceil(low / step)), int(high / step) + 1)]


def _position(value: float, edges: np.ndarray[Any, Any]) -> float:
    """Where a value lies on an axis that numbers the bins."""
    return float(np.interp(value, edges, np.arange(len(edges)) - 0.5))


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
    most = rows[:TOP_LANGUAGES]
    names = [row[0] for row in most]
    return [
        Figure(
            "Documents by language",
            [
                _columns("identified", names, [row[1] for row in most]),
                _columns("in the corpus", names, [row[2] for row in most]),
            ],
            Table("Documents by language", ["language", "identified", "in the corpus", "kept %"], rows),
            {"barmode": "group", "yaxis": {"title": {"text": "documents"}, "type": "log"}},
            note=f"logarithmic; the {len(most)} most frequent of {len(rows)}. {_sampled(before.whole and after.whole)}",
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
    traces = [_columns(name, labels, [column[power] for power in powers]) for name, column in counts.items()]
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


def clusters(run: RunFolder) -> list[Block]:
    """How many clusters there are of each size."""
    stage = run.stages.get("dedup")
    sample = stage.kept(["cluster_size"]) if stage else None
    if sample is None or "cluster_size" not in sample:
        return []
    sizes = np.array(sample.column("cluster_size"))
    rows: list[list[Any]] = []
    for low, high in CLUSTER_SIZES:
        inside = (sizes >= low) & ((sizes <= high) if high else True)
        count = round(int(inside.sum()) * sample.scale)
        label = f"{low}" if low == high else f"{low} to {high}" if high else f"{low} or more"
        rows.append([label, count, round(float(sizes[inside].sum()) * sample.scale)])
    return [
        Figure(
            "Sizes of duplicate clusters",
            [_columns("clusters", [row[0] for row in rows], [row[1] for row in rows])],
            Table("Clusters by size", ["documents in the cluster", "clusters", "documents"], rows),
            {"xaxis": {"title": {"text": "documents in the cluster"}, "type": "category"}}
            | {"yaxis": {"title": {"text": "clusters"}, "type": "log"}},
            note=f"logarithmic; 1 = no duplicate. {_sampled(sample.whole)}",
        )
    ]


def fertility(run: RunFolder) -> list[Block]:
    """How much text a token stands for in each language: bytes, and words where the signals count them."""
    path = run.path / "shards" / "documents.parquet"
    if not path.is_file():
        return []
    sample = read_sample(path, ["id", "language", "bytes", "tokens"])
    tokens: Counter[str] = Counter()
    sizes: dict[str, dict[str, int]] = {}
    for name, language, size, count in zip(*map(sample.column, ("id", "language", "bytes", "tokens")), strict=True):
        tokens[language or "unknown"] += count
        sizes.setdefault(language or "unknown", {})[name] = size  # a cut document has several rows
    words = _bytes_per_word(run)
    rows: list[list[Any]] = []
    for language, count in sorted(tokens.items(), key=lambda item: (-item[1], item[0])):
        size = sum(sizes[language].values())
        per_word = words.get(language)
        row = [language, len(sizes[language]), round(count * sample.scale), size / count]
        rows.append([*row, per_word * count / size if per_word and size else None])
    most = rows[:TOP_LANGUAGES]
    return [
        Figure(
            "Tokenizer fertility by language",
            [_columns("bytes per token", [row[0] for row in most], [round(row[3], 3) for row in most])],
            Table(
                "Fertility by language",
                ["language", "documents seen", "tokens", "bytes per token", "tokens per word"],
                rows,
            ),
            {"yaxis": {"title": {"text": "bytes per token"}}},
            note="more bytes per token are better within one script; scripts of two and three bytes a character"
            f" start higher. {_sampled(sample.whole)}",
        )
    ]


def _bytes_per_word(run: RunFolder) -> dict[str, float]:
    """Mean bytes of text per word by language, from the `words` signal."""
    stage = run.stages.get("quality")
    if not stage:
        return {}
    size: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for path, number in sample_groups(stage.folder / "data")[0]:
        table = read_group(path, number, ["text", "words", "language"])
        if not {"words", "language"}.issubset(table.column_names):
            return {}
        lengths = pc.binary_length(table["text"]).to_pylist()
        for language, length, count in zip(
            table["language"].to_pylist(), lengths, table["words"].to_pylist(), strict=True
        ):
            size[language] += length
            words[language] += count
    return {language: size[language] / count for language, count in words.items() if count}


def mixture(run: RunFolder) -> list[Block]:
    """Streams with their tokens, padding, and share of training."""
    stage = run.stages.get("tokenize")
    if not stage:
        return []
    rows: list[list[Any]] = []
    streams = stage.manifest.get("streams") or stage.stats.get("streams", {})
    train = {name: entry for name, entry in streams.items() if name.startswith("train/")}
    weighted = {name: entry["tokens"] * entry.get("weight", 1.0) for name, entry in train.items()}
    for name, entry in streams.items():
        padding = entry.get("padding", 0)
        share = 100 * weighted[name] / max(sum(weighted.values()), 1e-9) if name in weighted else None
        row = [name, entry["documents"], entry["samples"], entry["tokens"], entry.get("weight"), share]
        rows.append([*row, 100 * padding / max(entry["tokens"] + padding, 1)])
    columns = ["stream", "documents", "sequences", "tokens", "weight", "share of training %", "padding %"]
    shares = [row for row in rows if row[5] is not None]
    return [
        Figure(
            "Mixture of training",
            [_bars("share of training %", [round(row[5], 2) for row in shares], [row[0] for row in shares])],
            Table("Streams", columns, rows, note=f"{stage.manifest.get('sequence_length', '?')} tokens a sequence"),
            {"xaxis": {"title": {"text": "% of training"}}, "yaxis": {"autorange": "reversed"}},
            height=110 + 36 * len(shares),
        )
    ]


def _bars(name: str, values: list[Any], labels: list[Any]) -> dict[str, Any]:
    return {"type": "bar", "orientation": "h", "name": name, "x": values, "y": labels}


def _columns(name: str, labels: list[Any], values: list[Any]) -> dict[str, Any]:
    return {"type": "bar", "name": name, "x": labels, "y": values}


def _sampled(whole: bool) -> str:
    return "" if whole else "From an even sample of the documents, scaled up."
