"""Samples by checkpoint: what the model made of each of the recipe's prompts as it learnt."""

from __future__ import annotations

from recipes.report.blocks import Block, Section, Text, Texts, thin
from recipes.report.runfolder import RunFolder
from recipes.terminal import clean, printable

PROMPTS, STEPS = 10, 8  # shown at most, the steps evenly spaced


def section(run: RunFolder) -> Section:
    """Completions."""
    lead = "What the model made of the recipe's prompts, the newest last." if run.metrics else ""
    return Section("completions", "Samples by checkpoint", lead, completions(run))


def completions(run: RunFolder) -> list[Block]:
    """For each prompt what was written after it, by step."""
    found: dict[str, dict[int, str]] = {}
    rows = [row for row in run.metrics if row.get("kind") == "samples"]
    for row in [*rows, run.result]:
        for sample in row.get("samples") or []:
            found.setdefault(sample["prompt"], {})[row["step"]] = sample["text"]
    return [
        Texts(
            clean(prompt, 120),
            [
                Text(f"step {step:,}", "", [("", [(printable(prompt), True), (printable(texts[step]), False)])])
                for (step,) in thin([[step] for step in sorted(texts)], STEPS)
            ],
            opened=number == 0,
        )
        for number, (prompt, texts) in enumerate(list(found.items())[:PROMPTS])
    ]
