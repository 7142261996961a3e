"""Several runs side by side: funnels, losses on the same axes, times, and where their recipes differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cli.report.charts import averaged, lines
from cli.report.learning import stage_times
from cli.report.page import Block, Figure, Section, Table
from common.runfolder import Row, RunFolder, rows_of


def sections(runs: Sequence[RunFolder]) -> list[Section]:
    """The sections of a comparison."""
    return [
        Section("results", "Results", "", results(runs)),
        Section("funnel", "From records to tokens", "", funnels(runs)),
        Section("training", "Training", "By tokens trained on.", losses(runs)),
        Section("recipe", "Differences of recipe", "", differences(runs)),
    ]


def names(runs: Sequence[RunFolder]) -> list[str]:
    """The runs' folder names, with as much of the path before them as tells them apart."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        found = [os.path.join(*path.parts[-depth:]) for path in paths]  # noqa: PTH118 - parts, not a path
        if len(set(found)) == len(found):
            return found
    return [f"{run.name} ({number})" for number, run in enumerate(runs, 1)]


def results(runs: Sequence[RunFolder]) -> list[Block]:
    """One line a run: what came out."""
    rows: list[list[Any]] = []
    for name, run in zip(names(runs), runs, strict=True):
        last = list(run.stages.values())[-1].stats if run.stages else {}
        trained, evaluations = rows_of(run, "train"), rows_of(run, "eval")
        score = evaluations[-1] if evaluations else {}
        row = [name, last.get("documents_kept"), last.get("tokens"), trained[-1]["tokens"] if trained else None]
        rows.append([*row, trained[-1]["loss"] if trained else None, score.get("loss"), score.get("bits_per_byte")])
    columns = ["run", "documents kept", "tokens", "tokens trained on", "training loss", "validation loss"]
    note = "validation is each run's own held-out text unless the runs share it; `pretrain ablate` shares it"
    return [Table("Results", [*columns, "bits per byte"], rows, note)]


def funnels(runs: Sequence[RunFolder]) -> list[Block]:
    """Documents kept and times, stage by stage."""
    stages = list(dict.fromkeys(name for run in runs for name in run.stages))
    if not stages:
        return []
    labels = names(runs)
    spent = [stage_times(run) for run in runs]
    rows: list[list[Any]] = []
    for stage in stages:
        kept = [run.stages[stage].stats["documents_kept"] if stage in run.stages else None for run in runs]
        seconds = [float(times[stage]["seconds"]) if stage in times else None for times in spent]
        rows.append([stage, *kept, *seconds])
    traces = [
        {"type": "bar", "name": label, "x": stages, "y": [row[1 + number] for row in rows]}
        for number, label in enumerate(labels)
    ]
    columns = ["stage", *(f"{label}: documents kept" for label in labels), *(f"{label}: seconds" for label in labels)]
    layout = {"barmode": "group", "yaxis": {"title": {"text": "documents"}}}
    return [Figure("Documents kept by stage", traces, Table("Documents kept by stage", columns, rows), layout)]


def losses(runs: Sequence[RunFolder]) -> list[Block]:
    """Training loss, validation loss and bits per byte on shared axes."""
    labelled = list(zip(names(runs), runs, strict=True))
    wanted = [
        ("Training loss", "train", "loss", "tokens", "nats per token"),
        ("Validation loss", "eval", "loss", "tokens_trained", "nats per token"),
        ("Validation, bits per byte", "eval", "bits_per_byte", "tokens_trained", "bits per byte"),
    ]
    blocks: list[Block] = []
    for title, kind, field, place, unit in wanted:
        series = {
            name: averaged([(row[place], row[field]) for row in rows_of(run, kind) if field in row and place in row])
            for name, run in labelled
        }
        if any(series.values()):
            blocks.append(lines(title, series, unit, "tokens trained on"))
    return blocks


def differences(runs: Sequence[RunFolder]) -> list[Block]:
    """Every field of the recipes that is not the same in all runs."""
    flat = [flatten(run.recipe) for run in runs]
    fields = list(dict.fromkeys(field for recipe in flat for field in recipe))
    rows = [
        [field, *(_value(recipe, field) for recipe in flat)]
        for field in fields
        if len({_value(recipe, field) for recipe in flat}) > 1
    ]
    if not rows:
        return [Table("Differences of recipe", ["field"], [["the recipes are the same"]])]
    return [Table("Differences of recipe", ["field", *names(runs)], rows)]


def flatten(recipe: Row, prefix: str = "") -> dict[str, Any]:
    """A recipe's values by the path that `--set` takes."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        items = dict(enumerate(value)) if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(items, dict) and items:
            found |= flatten(items, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _value(recipe: dict[str, Any], field: str) -> str:
    return str(recipe[field]) if field in recipe else "absent"
