"""Rules on signals: presets and overrides resolved per language, applied to columns, and counted.

No text is read: a changed threshold is a comparison of columns. `load`, `fails`, `kept` and `count` answer questions
about a finished quality stage (`pretrain inspect`). Kernels are imported where they are used, since they take 0.3 s.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import PipelineError
from pipeline.config import QualityConfig, Rule
from pipeline.kernels.signals.stop_words import SUPPORTED
from pipeline.quality.presets import LANGUAGES, NEEDS_STOP_WORDS, OPTIONAL, PRESETS, QualityRule

_OPERATORS = {">=": operator.ge, "<=": operator.le}
Array = np.ndarray[Any, Any]
Signals = dict[str, Array]


@dataclass(frozen=True)
class Failure:
    """A rule that a document fails, and the document's value of the rule's signal."""

    name: str
    rule: QualityRule
    value: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.6g} {'<' if self.rule.op == '>=' else '>'} {self.rule.threshold:g}"


def keep(texts: list[str], *, preset: str = "fineweb", language: str = "en") -> list[str | None]:
    """For each text None if the preset (gopher, c4, fineweb) keeps it, else the first rule that it fails.

    >>> keep(["too short"], preset="gopher")
    ['gopher_min_words']
    """
    from pipeline.kernels.signals.measure import signals

    settings = QualityConfig(presets=[preset])
    failed = failures(settings, signals(texts, language=language), [language] * len(texts))
    return [rules[0].name if rules else None for rules in failed]


def rules_for(settings: QualityConfig, language: str) -> dict[str, QualityRule]:
    """Rules in force for a language: those of the presets, overridden by the recipe; own rules; those on scores."""
    rules: dict[str, QualityRule] = {}
    overrides = {**settings.rules, **settings.languages.get(language, {})}
    for preset in settings.presets:
        for name, rule in PRESETS[preset].items():
            usual = LANGUAGES.get(language, {}).get(name, rule.threshold)
            override = _override(overrides[name]) if name in overrides else Rule(enabled=_applies(name, language))
            if override.enabled:
                given = (override.threshold, usual, rule.threshold)
                rules[name] = rule._replace(threshold=next(value for value in given if value is not None))
    for name, own in settings.own_rules.items():
        rules[name] = QualityRule(own.signal, own.op, own.threshold)
    for name, model in settings.models.items():
        if model.threshold is not None:
            rules[f"{name}_score"] = QualityRule(f"{name}_score", ">=", model.threshold)
    return rules


def broken(settings: QualityConfig, columns: Signals, languages: list[str]) -> dict[str, Array]:
    """{rule: bool (documents,), true where it fails} for each rule in force for any of the languages, in order."""
    by_language = list(_by_language(settings, languages))
    every_rule = [name for preset in settings.presets for name in PRESETS[preset]]
    every_rule += [*settings.own_rules, *(f"{name}_score" for name in settings.models)]
    fails = {
        name: np.zeros(len(languages), bool) for name in every_rule if any(name in rules for _, rules in by_language)
    }
    for members, rules in by_language:
        for name, rule in rules.items():
            fails[name][members] = ~_OPERATORS[rule.op](columns[rule.signal][members], rule.threshold)
    return fails


def failures(settings: QualityConfig, columns: Signals, languages: list[str]) -> list[list[Failure]]:
    """For each document the rules that it fails, in order."""
    failed: list[list[Failure]] = [[] for _ in languages]
    for members, rules in _by_language(settings, languages):
        for name, rule in rules.items():
            values = columns[rule.signal][members]
            for i in np.flatnonzero(~_OPERATORS[rule.op](values, rule.threshold)):
                failed[members[i]].append(Failure(name, rule, float(values[i])))
    return failed


def score_cut(scores: Array, share: float) -> float:
    """The lowest score to keep so that `share` of the documents stays; equal scores are kept together."""
    if not len(scores):
        return 0.0
    count = max(round(share * len(scores)), 1)
    return float(np.partition(scores, len(scores) - count)[len(scores) - count])


def languages_of(table: pa.Table) -> list[str]:
    """Language of each document; without a language stage before it, English rules apply."""
    return table["language"].to_pylist() if "language" in table.column_names else ["en"] * table.num_rows


def _by_language(settings: QualityConfig, languages: list[str]) -> Iterator[tuple[Array, dict[str, QualityRule]]]:
    """(documents of a language, its rules) for each language."""
    names = np.array(languages, dtype=object)
    for language in sorted(set(languages)):
        yield np.flatnonzero(names == language), rules_for(settings, language)


def _applies(name: str, language: str) -> bool:
    """Whether a rule is in force where the recipe does not say so."""
    if name in OPTIONAL or (name in NEEDS_STOP_WORDS and language not in SUPPORTED):
        return False
    return LANGUAGES.get(language, {}).get(name, 0.0) is not None


def _override(given: float | bool | Rule) -> Rule:
    if isinstance(given, Rule):
        return given
    if isinstance(given, bool):
        return Rule(enabled=given)
    return Rule(threshold=given)


@dataclass(frozen=True)
class Columns:
    """Columns of all documents of a quality stage, kept and dropped."""

    signals: Signals  # and scores
    languages: list[str]
    contaminated: Array


@dataclass(frozen=True)
class RuleCount:
    """Documents that fail a rule; for which it is the first rule to fail; for which it is the only one."""

    name: str
    alone: int
    first: int
    only: int


def load(stage: Path) -> Columns:
    """Columns of a published quality stage. Raises PipelineError if they are missing."""
    from pipeline.kernels.signals.measure import SIGNALS

    tables = []
    for path in sorted([*stage.glob("data/*.parquet"), *stage.glob("dropped/[0-9]*.parquet")]):
        names = pq.read_schema(path).names
        if not {"failed_rules", *SIGNALS} <= set(names):
            raise PipelineError(f"{path}: has no signal columns; run the recipe again (`pretrain corpus RECIPE`)")
        wanted = [name for name in names if name in SIGNALS or name.endswith("_score") or name == "failed_rules"]
        tables.append(pq.read_table(path, columns=[*wanted, *({"language"} & set(names))]))
    if not tables:
        raise PipelineError(f"{stage}: holds no documents")
    table = pa.concat_tables(tables)
    numbers = [name for name in table.column_names if name not in ("failed_rules", "language")]
    contaminated = np.array(["contamination" in rules.split() for rules in table["failed_rules"].to_pylist()], bool)
    return Columns({name: table[name].to_numpy() for name in numbers}, languages_of(table), contaminated)


def fails(settings: QualityConfig, columns: Columns) -> dict[str, Array]:
    """Like `broken`, with cuts by score and contamination. Raises PipelineError if a rule's column is missing."""
    needed = [rule.signal for rule in settings.own_rules.values()] + [f"{name}_score" for name in settings.models]
    for signal in needed:
        if signal not in columns.signals:
            raise PipelineError(f"the run has no column `{signal}`; add it to the recipe and run it")
    failed = broken(settings, columns.signals, columns.languages)
    passing = kept(failed, len(columns.languages))
    for name, model in settings.models.items():
        if model.keep is not None:
            scores = columns.signals[f"{name}_score"]
            failed[f"{name}_score"] = scores < score_cut(scores[passing], model.keep)
    if columns.contaminated.any():
        failed["contamination"] = columns.contaminated
    return failed


def kept(failed: dict[str, Array], documents: int) -> Array:
    """bool (documents,): those that fail no rule."""
    passing: Array = ~np.logical_or.reduce([np.zeros(documents, bool), *failed.values()])
    return passing


def count(failed: dict[str, Array], documents: int) -> list[RuleCount]:
    """One row for each rule, in order."""
    total = sum((column.astype(int) for column in failed.values()), np.zeros(documents, int))
    rows, before = [], np.zeros(documents, bool)
    for name, column in failed.items():
        first, only = column & ~before, column & (total == 1)
        rows.append(RuleCount(name, int(column.sum()), int(first.sum()), int(only.sum())))
        before |= column
    return rows
