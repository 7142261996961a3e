"""Questions to a finished quality stage, answered from its columns: no text is read, nothing is run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import QualityConfig
from pipeline.errors import PipelineError
from pipeline.quality.rules import Signals, broken, score_cut
from pipeline.signals.definitions import SIGNALS

Array = np.ndarray[Any, Any]


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
