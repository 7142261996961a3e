"""What the tokenizer made of the text: tokens by language and stream, packing, and the mixture of training."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow.compute as pc

from recipes.report.blocks import Block, Figure, Section, Table
from recipes.report.charts import bars, columns, sampled
from recipes.report.runfolder import RunFolder, read_group, read_sample, sample_groups

TOP = 20  # languages in the chart; the table has all


def section(run: RunFolder) -> Section:
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
