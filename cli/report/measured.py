"""A histogram of each signal that a rule looks at: kept and dropped documents, thresholds drawn in.

From the bounded sample, scaled up where that is not the whole.

What each rule dropped, counted as `pretrain inspect` does: by it only, by it first, by it alone.

What the tokenizer made of the text: tokens by language and stream, packing, and the mixture of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc

from cli.report.charts import bars, columns, sampled
from cli.report.page import Block, Figure, Section, Table
from common.runfolder import RunFolder, Stage, read_group, read_sample, sample_groups
from pipeline.config import QualityConfig
from pipeline.quality.presets import QualityRule

BINS = 40


def signals_section(run: RunFolder) -> Section:
    """Histograms."""
    return Section("signals", "Signals and thresholds", "Kept and dropped documents by value.", signals(run))


def signals(run: RunFolder) -> list[Block]:
    """A histogram of each signal that a rule looks at, kept and dropped apart, thresholds drawn in."""
    figures: list[Block] = []
    language = run.stages.get("language")
    if language:
        threshold = float(run.recipe.get("language", {}).get("threshold", 0.65))
        lines = [(threshold, f"language.threshold ≥ {threshold:g}")]
        figures += _histogram(language, "language_score", lines)
    quality = run.stages.get("quality")
    if quality:
        for signal, lines in _thresholds(run).items():
            figures += _histogram(quality, signal, lines)
    return figures


def _thresholds(run: RunFolder) -> dict[str, list[tuple[float, str]]]:
    """(threshold, rule) of each signal by the recipe, those that drop most first; without overrides per language."""
    from pipeline.quality.rules import rules_for

    given = {key: value for key, value in run.recipe.get("quality", {}).items() if key in QualityConfig.model_fields}
    settings = QualityConfig.model_validate(given)
    found: dict[str, list[tuple[float, str]]] = {}
    drops: Counter[str] = Counter()
    dropped = run.stages["quality"].stats.get("dropped", {})
    rule: QualityRule
    for name, rule in rules_for(settings, "en").items():
        sign = "≥" if rule.op == ">=" else "≤"
        found.setdefault(rule.signal, []).append((rule.threshold, f"{name} {sign} {rule.threshold:,g}"))
        drops[rule.signal] += dropped.get(name, 0)
    return dict(sorted(found.items(), key=lambda item: -drops[item[0]]))


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
    return [Figure(signal, traces, table, layout, note=f"{note}. {sampled(whole)}".strip(), height=260, wide=False)]


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


TOP = 20  # rules in the chart; the table has all


def rules_section(run: RunFolder) -> Section:
    """Drops by rule."""
    return Section("rules", "What each rule dropped", "", rules(run))


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
    most = rows[:TOP]
    names = [row[1] for row in most]
    traces = [bars(name, [row[i] for row in most], names) for i, name in ((2, "only"), (3, "first"), (4, "alone"))]
    return [
        Figure(
            "Documents dropped, by rule",
            traces,
            Table("Drops by rule", ["stage", "rule", "only", "first", "alone"], rows),
            {"yaxis": {"autorange": "reversed"}, "xaxis": {"title": {"text": "documents"}}, "barmode": "group"},
            note="only: no other rule drops them; first: counted for this rule in the funnel; alone: this rule would"
            " drop them whatever the others do. " + sampled(whole),
            height=90 + 40 * len(most),
        )
    ]


def tokens_section(run: RunFolder) -> Section:
    """Fertility, then the mixture."""
    return Section("tokens", "Tokens, packing and mixture", "", [*fertility(run), *mixture(run)])


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
    most = rows[:TOP]
    return [
        Figure(
            "Tokenizer fertility by language",
            [columns("bytes per token", [row[0] for row in most], [round(row[3], 3) for row in most])],
            Table(
                "Fertility by language",
                ["language", "documents seen", "tokens", "bytes per token", "tokens per word"],
                rows,
            ),
            {"yaxis": {"title": {"text": "bytes per token"}}},
            note="more bytes per token are better within one script; scripts of two and three bytes a character"
            f" start higher. {sampled(sample.whole)}",
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
            [bars("share of training %", [round(row[5], 2) for row in shares], [row[0] for row in shares])],
            Table("Streams", columns, rows, note=f"{stage.manifest.get('sequence_length', '?')} tokens a sequence"),
            {"xaxis": {"title": {"text": "% of training"}}, "yaxis": {"autorange": "reversed"}},
            height=110 + 36 * len(shares),
        )
    ]
