"""Samples by checkpoint: what the model made of the recipe's prompts as it learnt."""

from __future__ import annotations

from recipes.report.blocks import Block, Section, Text, Texts
from recipes.report.runfolder import Row, RunFolder
from recipes.terminal import clean, printable


def section(run: RunFolder) -> Section:
    """Completions."""
    return Section("completions", "Samples", "What the model makes of the recipe's prompts.", completions(run))


def completions(run: RunFolder) -> list[Block]:
    """Prompts and what was written after them, at the end and at each checkpoint that has some."""
    found: dict[int, list[Row]] = {}
    for row in run.metrics:
        if row.get("kind") in ("samples", "eval") and isinstance(row.get("samples"), list):
            found[row["step"]] = row["samples"]
    if run.result.get("samples"):
        found[run.result["step"]] = run.result["samples"]
    return [
        Texts(
            f"After step {step:,}",
            [
                Text(
                    clean(sample["prompt"], 120),
                    "",
                    [("", [(printable(sample["prompt"]), True), (printable(sample["text"]), False)])],
                )
                for sample in samples
            ],
            opened=step == max(found),
        )
        for step, samples in sorted(found.items(), reverse=True)
    ]
