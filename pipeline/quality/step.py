"""Stage `quality`: compute every signal, keep them as columns, drop by the recipe's rules.

Adds one float column per signal. A drop names the first failing rule with its value and threshold; `detail`
lists all failing rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import QualityConfig
from pipeline.presets import QualityRule
from pipeline.quality.rules import failing, rules_for
from pipeline.signals import signals
from pipeline.stage import Build
from pipeline.step import CorpusStep, DocumentStep, Verdicts

ADDED = tuple(pa.field(name, pa.float64()) for name in signals([""]))


def passes(build: Build) -> Iterator[CorpusStep]:
    """One pass, a task for each input file."""
    yield QualityStep(build)


def external_files(settings: QualityConfig, base: Path) -> list[Path]:
    """None."""
    return []


def manifest(build: Build) -> dict[str, Any]:
    """Nothing beyond the runner's fields."""
    return {}


class QualityStep(DocumentStep):
    """Signals and rules. Without a language stage before it, English rules apply."""

    def __init__(self, build: Build) -> None:
        super().__init__("quality", build.workdir, build.inputs, ADDED)
        self.settings: QualityConfig = build.settings

    def judge(self, table: pa.Table, rank: int) -> Verdicts:
        found = signals(table["text"].to_pylist())
        for column in ADDED:
            table = table.append_column(column, pa.array(found[column.name]))
        rows = table.num_rows
        languages = table["language"].to_pylist() if "language" in table.column_names else ["en"] * rows
        first: list[str | None] = [None] * rows
        values: list[float | None] = [None] * rows
        thresholds: list[float | None] = [None] * rows
        details: list[str | None] = [None] * rows
        for language in sorted(set(languages)):
            rules = rules_for(self.settings, language)
            members = np.flatnonzero(np.array([name == language for name in languages]))
            failures = failing(rules, {name: column[members] for name, column in found.items()}, len(members))
            for i, names in zip(members, failures, strict=True):
                if names and not self.settings.label_only:
                    rule: QualityRule = rules[names[0]]
                    first[i], details[i] = names[0], " ".join(names)
                    values[i], thresholds[i] = float(found[rule.signal][i]), rule.threshold
        return Verdicts(table, first, values, thresholds, details)
