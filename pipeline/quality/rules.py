"""Rules on signals: the recipe's presets and overrides resolved per language, then applied to columns.

Nothing here reads a text: a changed threshold is a comparison of columns.

Questions to a finished quality stage, answered from its columns: no text is read, nothing is run again.
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
from pipeline.kernels.signals.lexicon import SUPPORTED
from pipeline.kernels.signals.measure import SIGNALS, signals
from pipeline.quality.presets import (
    ALPHABETIC_ONLY,
    ATTACHED_PARTICLES,
    NEEDS_STOP_WORDS,
    OPTIONAL,
    PRESETS,
    SHORT_WORD_LANGUAGES,
    QualityRule,
)

_OPERATORS = {">=": operator.ge, "<=": operator.le}
Array = np.ndarray[Any, Any]
Signals = dict[str, Array]


@dataclass(frozen=True)
class Failure:
    """A rule that a document fails, with what was found."""

    name: str
    rule: QualityRule
    value: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.6g} {'<' if self.rule.op == '>=' else '>'} {self.rule.threshold:g}"


def keep(texts: list[str], *, preset: str = "fineweb", language: str = "en") -> list[str | None]:
    """None for each text that a preset (gopher, c4, fineweb) keeps, else the first rule that it fails.

    >>> keep(["too short"], preset="gopher")
    ['gopher_min_words']
    """
    settings = QualityConfig(presets=[preset])
    failed = failures(settings, signals(texts, language=language), [language] * len(texts))
    return [found[0].name if found else None for found in failed]


def rules_for(settings: QualityConfig, language: str) -> dict[str, QualityRule]:
    """Rules in force for a language: the presets' in order with the recipe's overrides, its own, its models'."""
    rules: dict[str, QualityRule] = {}
    overrides = {**settings.rules, **settings.languages.get(language, {})}
    for preset in settings.presets:
        for name, rule in PRESETS[preset].items():
            override = _override(overrides[name]) if name in overrides else Rule(enabled=_applies(name, language))
            if override.enabled:
                threshold = rule.threshold if override.threshold is None else override.threshold
                rules[name] = rule._replace(threshold=threshold)
    for name, own in settings.own_rules.items():
        rules[name] = QualityRule(own.signal, own.op, own.threshold)
    for name, model in settings.models.items():
        if model.threshold is not None:
            rules[f"{name}_score"] = QualityRule(f"{name}_score", ">=", model.threshold)
    return rules


def broken(settings: QualityConfig, found: Signals, languages: list[str]) -> dict[str, Array]:
    """{rule: bool (documents,)}: which documents fail each rule that is in force for any of the languages, in order."""
    by_language = list(_by_language(settings, languages))
    every_rule = [name for preset in settings.presets for name in PRESETS[preset]]
    every_rule += [*settings.own_rules, *(f"{name}_score" for name in settings.models)]
    fails = {
        name: np.zeros(len(languages), bool) for name in every_rule if any(name in rules for _, rules in by_language)
    }
    for members, rules in by_language:
        for name, rule in rules.items():
            fails[name][members] = ~_OPERATORS[rule.op](found[rule.signal][members], rule.threshold)
    return fails


def failures(settings: QualityConfig, found: Signals, languages: list[str]) -> list[list[Failure]]:
    """For each document the rules that it fails, in the rules' order."""
    failed: list[list[Failure]] = [[] for _ in languages]
    for members, rules in _by_language(settings, languages):
        for name, rule in rules.items():
            values = found[rule.signal][members]
            for i in np.flatnonzero(~_OPERATORS[rule.op](values, rule.threshold)):
                failed[members[i]].append(Failure(name, rule, float(values[i])))
    return failed


def score_cut(scores: Array, share: float) -> float:
    """The score from which on `share` of the documents is kept; of equal scores all are."""
    if not len(scores):
        return 0.0
    count = max(round(share * len(scores)), 1)
    return float(np.partition(scores, len(scores) - count)[len(scores) - count])


def _by_language(settings: QualityConfig, languages: list[str]) -> Iterator[tuple[Array, dict[str, QualityRule]]]:
    names = np.array(languages, dtype=object)
    for language in sorted(set(languages)):
        yield np.flatnonzero(names == language), rules_for(settings, language)


def _applies(name: str, language: str) -> bool:
    if name in OPTIONAL:
        return False
    if name in NEEDS_STOP_WORDS:
        return language in SUPPORTED - ATTACHED_PARTICLES
    return not (name in ALPHABETIC_ONLY and language in SHORT_WORD_LANGUAGES)


def _override(given: float | bool | Rule) -> Rule:
    if isinstance(given, Rule):
        return given
    if isinstance(given, bool):
        return Rule(enabled=given)
    return Rule(threshold=given)


@dataclass(frozen=True)
class Columns:
    """Columns of all documents of a stage, kept and dropped."""

    found: Signals
    languages: list[str]
    contaminated: Array


@dataclass(frozen=True)
class RuleCount:
    """Documents that a rule drops if it stood alone, those it is the first to drop, those nothing else drops."""

    name: str
    alone: int
    first: int
    only: int


def load(stage: Path) -> Columns:
    """Columns of a published quality stage. Raises PipelineError where they are missing."""
    tables = []
    for path in sorted([*stage.glob("data/*.parquet"), *stage.glob("dropped/[0-9]*.parquet")]):
        names = pq.read_schema(path).names
        if not {"failed_rules", *SIGNALS} <= set(names):
            raise PipelineError(f"{path}: no columns of signals; run the recipe again (`pretrain corpus RECIPE`)")
        wanted = [name for name in names if name in SIGNALS or name.endswith("_score") or name == "failed_rules"]
        table = pq.read_table(path, columns=[*wanted, *({"language"} & set(names))])
        tables.append(table)
    if not tables:
        raise PipelineError(f"{stage}: no documents")
    table = pa.concat_tables(tables)
    numbers = [name for name in table.column_names if name not in ("failed_rules", "language")]
    languages = table["language"].to_pylist() if "language" in table.column_names else ["en"] * table.num_rows
    contaminated = np.array(["contamination" in rules.split() for rules in table["failed_rules"].to_pylist()], bool)
    return Columns({name: table[name].to_numpy() for name in numbers}, languages, contaminated)


def fails(settings: QualityConfig, columns: Columns) -> dict[str, Array]:
    """{rule: bool (documents,)} in the order in which rules are applied. Raises PipelineError on an unknown score."""
    needed = [rule.signal for rule in settings.own_rules.values()] + [f"{name}_score" for name in settings.models]
    for signal in needed:
        if signal not in columns.found:
            raise PipelineError(f"the run has no column `{signal}`; add it to the recipe and run it")
    found = broken(settings, columns.found, columns.languages)
    passing = ~_any(found, len(columns.languages))
    for name, model in settings.models.items():
        if model.keep is not None:
            scores = columns.found[f"{name}_score"]
            found[f"{name}_score"] = scores < score_cut(scores[passing], model.keep)
    if columns.contaminated.any():
        found["contamination"] = columns.contaminated
    return found


def kept(found: dict[str, Array], documents: int) -> Array:
    """bool (documents,): those that fail no rule."""
    return ~_any(found, documents)


def count(found: dict[str, Array], documents: int) -> list[RuleCount]:
    """One row for each rule, in order."""
    failed = sum((column.astype(int) for column in found.values()), np.zeros(documents, int))
    rows, before = [], np.zeros(documents, bool)
    for name, column in found.items():
        first, only = column & ~before, column & (failed == 1)
        rows.append(RuleCount(name, int(column.sum()), int(first.sum()), int(only.sum())))
        before |= column
    return rows


def _any(found: dict[str, Array], documents: int) -> Array:
    failed: Array = np.logical_or.reduce([np.zeros(documents, bool), *found.values()])
    return failed
