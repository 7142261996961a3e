"""Write report.html: the sections of one run's page, the facts at its head, and the comparison of several runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cli.contents import read_recipe
from cli.report import corpus, learning, losses, passages, workload
from cli.report.histograms import signal_histograms
from cli.report.learning import Prices
from cli.report.page import Block, Figure, Section, Table, averaged, axis, lines, render, template
from cli.terminal import duration, megabytes
from common.files import write_atomically
from common.runfolder import Row, RunFolder

NO_PRICES = Prices()


def get_ready() -> None:
    """Load what a report imports as it goes."""
    for module in ("pipeline.extract.decoding", "pipeline.quality.rules", "pipeline.read", "yaml"):
        import_module(module)
    template()


def write_report(runs: Sequence[Path], output: Path | None = None, prices: Prices = NO_PRICES) -> Path:
    """Write the report of a run, or the comparison of several, and return its path.

    output: default `report.html` in the run folder, for several runs in the current directory. prices: for the cost
    of each stage of one run. Raises RecipeError where a folder holds no run.
    """
    folders = [RunFolder.open(path) for path in runs]
    if len(folders) > 1:
        page = render(f"{' and '.join(unique_names(folders))}, compared", [], comparison(folders))
        output = output or Path("report.html")
    else:
        run = folders[0]
        page = render(run.name, facts(run), sections(run, prices))
        output = output or run.report
    write_atomically(output, page.encode("utf-8", "replace"))
    return output


def sections(run: RunFolder, prices: Prices = NO_PRICES) -> list[Section]:
    """The sections of one run's report: id, title, lead, and the functions that make its blocks."""

    def section(id: str, title: str, lead: str, *parts: Callable[[RunFolder], list[Block]]) -> Section:
        return Section(id, title, lead, [block for part in parts for block in part(run)])

    funnel = "What came in, what each stage kept."
    clusters = "Clusters of equal and nearly equal documents, of which one survives."
    extraction = "Kinds of page, and pages beside the text that was extracted from them."
    completions = "Continuations of the recipe's prompts, the newest last."
    learnt = "Losses of documents when they were trained on."
    ledger = "Faults, skips, resumptions and warnings; the documents of anomalous steps, the most unusual first."
    curves = (learning.loss_curves, learning.step_curves, learning.in_context_learning, learning.loss_by_position)
    times = partial(learning.stage_times_and_cost, prices=prices)
    return [
        section("funnel", "From records to tokens", funnel, corpus.documents_by_stage, corpus.document_flows),
        section("rules", "What each rule dropped", "", corpus.drops_by_rule),
        section("signals", "Signals and thresholds", "Kept and dropped documents by value.", signal_histograms),
        section("samples", "Dropped, and just kept", "The offending part is marked.", passages.dropped_samples),
        section("languages", "Languages and lengths", "", corpus.documents_by_language, corpus.documents_by_length),
        section("duplicates", "Duplicates", clusters, passages.cluster_sizes, passages.largest_clusters),
        section("extraction", "Extraction", extraction, corpus.pages_by_kind, passages.extracted_pages),
        section("tokens", "Tokens, packing and mixture", "", corpus.tokenizer_fertility, corpus.training_mixture),
        section("training", "Training", "", *curves),
        section("completions", "Samples by checkpoint", completions, learning.prompt_completions),
        section("learnt", "What was learnt", learnt, losses.learnt_documents),
        section("ledger", "Ledger", ledger, learning.events, losses.anomalous_documents),
        section("environment", "Environment and recipe", "", learning.environment, learning.recipe_text),
        section("times", "Times and cost", "", times, workload.busy_workers, workload.text_volumes),
    ]


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """(label, value) pairs for the page's head: size of the corpus, quality of the model, progress of training."""
    pairs: list[tuple[str, str]] = []
    stages = list(run.stages.values())
    if stages:
        first, last = stages[0].stats, stages[-1].stats
        pairs.append(("documents in", f"{first['documents_in']:,}"))
        share = 100 * last["documents_kept"] / max(first["documents_in"], 1)
        pairs.append(("documents kept", f"{last['documents_kept']:,} ({share:.1f} %)"))
        pairs.append(("text kept", megabytes(last["bytes_kept"])))
        if "tokens" in last:
            pairs.append(("tokens", f"{last['tokens']:,}"))
    trained, evaluations = run.records("train"), run.records("eval")
    if trained:
        steps = read_recipe(run).get("train", {}).get("steps")
        state = "" if run.result else f" of {steps:,}, unfinished" if steps else ", unfinished"
        pairs.append(("training steps", f"{trained[-1]['step']:,}{state}"))
        pairs.append(("training loss", f"{trained[-1]['loss']:.3f}"))
    if evaluations:
        pairs.append(("validation loss", f"{evaluations[-1]['loss']:.3f}"))
        if "bits_per_byte" in evaluations[-1]:
            pairs.append(("bits per byte", f"{evaluations[-1]['bits_per_byte']:.3f}"))
    if times := run.built:
        pairs.append(("corpus took", duration(sum(row["seconds"] for row in times.values()))))
    return pairs


def comparison(runs: Sequence[RunFolder]) -> list[Section]:
    """The sections of a comparison."""
    return [
        Section("results", "Results", "", compared_results(runs)),
        Section("funnel", "From records to tokens", "", compared_stages(runs)),
        Section("training", "Training", "By tokens trained on.", compared_losses(runs)),
        Section("recipe", "Differences of recipe", "", recipe_differences(runs)),
    ]


def unique_names(runs: Sequence[RunFolder]) -> list[str]:
    """The runs' folder names, with as much of the path before them as distinguishes them."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = [os.path.join(*path.parts[-depth:]) for path in paths]  # noqa: PTH118 - parts, not a path
        if len(set(names)) == len(names):
            return names
    return [f"{run.name} ({number})" for number, run in enumerate(runs, 1)]


def compared_results(runs: Sequence[RunFolder]) -> list[Block]:
    """Documents, tokens and losses, one line a run."""
    rows: list[list[Any]] = []
    for name, run in zip(unique_names(runs), runs, strict=True):
        last = list(run.stages.values())[-1].stats if run.stages else {}
        trained, evaluations = run.records("train"), run.records("eval")
        score = evaluations[-1] if evaluations else {}
        row = [name, last.get("documents_kept"), last.get("tokens"), trained[-1]["tokens"] if trained else None]
        rows.append([*row, trained[-1]["loss"] if trained else None, score.get("loss"), score.get("bits_per_byte")])
    columns = ["run", "documents kept", "tokens", "tokens trained on", "training loss", "validation loss"]
    note = "validation is each run's own held-out text unless the runs share it; `pretrain ablate` shares it"
    return [Table("Results", [*columns, "bits per byte"], rows, note)]


def compared_stages(runs: Sequence[RunFolder]) -> list[Block]:
    """Documents kept and seconds, stage by stage."""
    stages = list(dict.fromkeys(name for run in runs for name in run.stages))
    if not stages:
        return []
    names = unique_names(runs)
    times = [run.built for run in runs]
    rows: list[list[Any]] = []
    for stage in stages:
        kept = [run.stages[stage].stats["documents_kept"] if stage in run.stages else None for run in runs]
        rows.append([stage, *kept, *(float(each[stage]["seconds"]) if stage in each else None for each in times)])
    traces = [
        {"type": "bar", "name": name, "x": stages, "y": [row[number] for row in rows]}
        for number, name in enumerate(names, 1)
    ]
    title = "Documents kept by stage"
    columns = ["stage", *(f"{name}: documents kept" for name in names), *(f"{name}: seconds" for name in names)]
    layout = {"barmode": "group", "yaxis": axis("documents")}
    return [Figure(title, traces, Table(title, columns, rows), layout)]


def compared_losses(runs: Sequence[RunFolder]) -> list[Block]:
    """Training loss, validation loss and bits per byte on shared axes."""
    blocks: list[Block] = []
    for title, kind, field, x, unit in (
        ("Training loss", "train", "loss", "tokens", "nats per token"),
        ("Validation loss", "eval", "loss", "tokens_trained", "nats per token"),
        ("Validation, bits per byte", "eval", "bits_per_byte", "tokens_trained", "bits per byte"),
    ):
        series = {
            name: averaged([(row[x], row[field]) for row in run.records(kind) if field in row and x in row])
            for name, run in zip(unique_names(runs), runs, strict=True)
        }
        if any(series.values()):
            blocks.append(lines(title, series, unit, "tokens trained on"))
    return blocks


def recipe_differences(runs: Sequence[RunFolder]) -> list[Block]:
    """Every field of the recipes that is not the same in all runs."""
    recipes = [_flatten(read_recipe(run)) for run in runs]
    rows: list[list[Any]] = []
    for field in dict.fromkeys(field for recipe in recipes for field in recipe):
        values = [str(recipe.get(field, "absent")) for recipe in recipes]
        if len(set(values)) > 1:
            rows.append([field, *values])
    if not rows:
        return [Table("Differences of recipe", ["field"], [["the recipes are the same"]])]
    return [Table("Differences of recipe", ["field", *unique_names(runs)], rows)]


def _flatten(recipe: Row, prefix: str = "") -> dict[str, Any]:
    """A recipe's values by the path that `--set` takes."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        items = dict(enumerate(value)) if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(items, dict) and items:
            flat |= _flatten(items, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
