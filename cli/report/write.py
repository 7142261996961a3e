"""Write report.html of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.report import compare, corpus, learning, measured, passages
from cli.report.learning import Prices
from cli.report.page import render
from cli.terminal import duration, megabytes
from common.files import atomic_file
from common.runfolder import RunFolder, rows_of

SECTIONS = (
    corpus.funnel_section,
    measured.rules_section,
    measured.signals_section,
    passages.samples_section,
    corpus.languages_section,
    passages.duplicates_section,
    corpus.extraction_section,
    measured.tokens_section,
    learning.training_section,
    learning.completions_section,
    learning.ledger_section,
    learning.environment_section,
)
NO_PRICES = Prices()


def write_report(runs: Sequence[Path], output: Path | None = None, prices: Prices = NO_PRICES) -> Path:
    """Write the report of a run, or of several beside each other, and return where it is.

    output: default `report.html` in the run folder, for several runs in the current directory. prices: for the cost
    of each stage of one run. Raises RecipeError where a folder holds no run.
    """
    folders = [RunFolder(path) for path in runs]
    if len(folders) > 1:
        names = " and ".join(compare.names(folders))
        page = render(f"{names}, compared", [], compare.sections(folders))
        output = output or Path("report.html")
    else:
        run = folders[0]
        sections = [*(section(run) for section in SECTIONS), learning.section(run, prices)]
        page = render(run.name, facts(run), sections)
        output = output or run.path / "report.html"
    with atomic_file(output) as file:
        file.write(page.encode("utf-8", "replace"))
    return output


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """What the head of the page says: what came in, what came out, how good the model is, how far training is."""
    found: list[tuple[str, str]] = []
    stages = list(run.stages.values())
    if stages:
        first, last = stages[0].stats, stages[-1].stats
        found.append(("documents in", f"{first['documents_in']:,}"))
        share = 100 * last["documents_kept"] / max(first["documents_in"], 1)
        found.append(("documents kept", f"{last['documents_kept']:,} ({share:.1f} %)"))
        found.append(("text kept", megabytes(last["bytes_kept"])))
        if "tokens" in last:
            found.append(("tokens", f"{last['tokens']:,}"))
    trained, evaluations = rows_of(run, "train"), rows_of(run, "eval")
    if trained:
        steps = run.recipe.get("train", {}).get("steps")
        state = "" if run.result else f" of {steps:,}, unfinished" if steps else ", unfinished"
        found.append(("training steps", f"{trained[-1]['step']:,}{state}"))
        found.append(("training loss", f"{trained[-1]['loss']:.3f}"))
    if evaluations:
        found.append(("validation loss", f"{evaluations[-1]['loss']:.3f}"))
        if "bits_per_byte" in evaluations[-1]:
            found.append(("bits per byte", f"{evaluations[-1]['bits_per_byte']:.3f}"))
    spent = learning.stage_times(run)
    if spent:
        found.append(("corpus took", duration(sum(row["seconds"] for row in spent.values()))))
    return found
