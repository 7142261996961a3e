"""`ablate`: does a choice make the corpus better? Build each variant, train the same small model on it, compare.

    runs/<name>-ablation/
      <variant>/                   a run folder; stages that an earlier variant built are linked, not rebuilt
      <variant>/seed-<n>/          a training run for each seed; all see the same number of tokens
      ablation.json  report.html   bits per byte on one held-out text: mean, spread, verdicts

A variant is one combination of the varied fields' values. The held-out text is the user's own and passes through no
variant's stages, so no variant's rules chose it; bits per byte compare models with different tokenizers. A verdict
names the better of two variants where the spread over seeds allows it. Costs variants x seeds training runs.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.contents import Text, read_texts
from cli.options import Overrides, RecipeFile, Result
from cli.terminal import CorpusView, TrainingView, make_table, messages
from common.errors import RecipeError
from common.runfolder import RunFolder, stage_folder

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

    from cli.report.page import Section
    from recipes.load import Loaded
    from recipes.schema import Recipe

CONFIDENCE = 0.95  # of the interval that must exclude zero before one variant is called better
_COLUMNS = ["variant", "documents", "tokens", "epochs", "bits per byte", "spread", "by seed"]


def ablate(
    recipe: RecipeFile,
    vary: Annotated[
        list[str],
        typer.Option(metavar="FIELD=A,B,...", help="Field and its values; repeatable: all combinations are built."),
    ],
    held_out: Annotated[
        list[Path],
        typer.Option(help="Text file, or JSON lines with `text`, on which every model is scored; repeatable."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Training runs of each variant; a verdict needs two or more.")] = 2,
    overrides: Overrides = None,
) -> Result:
    """Build variants of a corpus, train the same small model on each, and compare them on the same held-out text.

    Example: pretrain ablate recipes/ablation.yaml --vary quality.presets=gopher,c4,fineweb --held-out clean.jsonl
    """
    from cli.report.page import render
    from common.files import write_json
    from recipes.load import check_paths

    texts = [text for path in held_out for text in read_texts(path, option="--held-out")]
    variants = list_variants(recipe, overrides or [], vary)
    for variant in variants:
        check_paths(variant.loaded)
        if variant.loaded.recipe.train is None:
            raise RecipeError(f"{recipe}: train: missing; an ablation trains a small model on each variant")
    folder = variants[0].loaded.run.with_name(f"{variants[0].loaded.run.name}-ablation")
    rows = []
    for number, variant in enumerate(variants):
        messages().print(f"ablate: {variant.name} ({number + 1} of {len(variants)})", soft_wrap=True)
        rows.append(measure(variant, folder, variants[:number], texts, seeds))
    size = sum(len(each.text.encode()) for each in texts)
    results: dict[str, Any] = {"held_out_bytes": size, "variants": rows, "verdicts": verdicts(rows)}
    write_json(folder / "ablation.json", results)
    page = RunFolder(folder).report
    page.write_text(render(f"{folder.name}: variants compared", [], page_sections(results)), "utf-8")
    says = [verdict["says"] for verdict in results["verdicts"]]
    return Result(results, terminal_table(results), *says, f"report: {page}")


def measure(
    variant: Variant, folder: Path, earlier: Sequence[Variant], texts: Sequence[Text], seeds: int
) -> dict[str, Any]:
    """Build a variant in its folder below `folder`, train on it with each seed, and score each model."""
    from pipeline.build import build_corpus
    from recipes.load import resolved_yaml, training_config
    from trainer.loop import train

    path = folder / folder_name(variant.name)
    run = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    run.recipe.write_text(resolved_yaml(variant.loaded, path), "utf-8")
    _link_stages(variant, path, [(other, folder / folder_name(other.name)) for other in earlier])
    with CorpusView() as view:
        build_corpus(variant.loaded.recipe, path, variant.loaded.base, observer=view)
    stats = run.stages["tokenize"].stats
    scores = []
    for seed in range(1, seeds + 1):
        config = training_config(variant.loaded).model_copy(update={"seed": seed, "prompts": []})
        with TrainingView() as training:
            outcome = train(config, run.shards, path / f"seed-{seed}", training)
        scores.append(bits_per_byte(path / f"seed-{seed}", texts))
        messages().print(f"ablate: {variant.name}, seed {seed}: {scores[-1]:.4f} bits per byte", soft_wrap=True)
    tokens = sum(entry["tokens"] for name, entry in stats["streams"].items() if name.startswith("train/"))
    return {
        "variant": variant.name,
        "documents": stats["documents_kept"],
        "tokens": tokens,
        "epochs": outcome.tokens / tokens,
        "bits_per_byte": scores,
        "mean": statistics.fmean(scores),
        "spread": statistics.stdev(scores) if seeds > 1 else None,
    }


def bits_per_byte(train_dir: Path, texts: Sequence[Text]) -> float:
    """Bits that the newest checkpoint needs per UTF-8 byte of the texts."""
    from trainer.score import score, text_batches
    from trainer.trained import load_model, load_tokenizer

    model, meta = load_model(train_dir, "auto")
    (codec, special), masked = load_tokenizer(train_dir, meta), bool(meta["settings"].get("document_mask", True))
    pairs = ((each.name, each.text) for each in texts)
    tally = score(model, text_batches(pairs, codec, special, model.config.context, masked=masked))
    return float(tally.scores()["bits_per_byte"])


def folder_name(name: str) -> str:
    """Folder name of a variant: its name without characters that are special in paths and globs."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", name).strip("-")


def _link_stages(variant: Variant, run: Path, earlier: Sequence[tuple[Variant, Path]]) -> None:
    """Hard-link stages of earlier variants that depend on the same settings.

    Published files are never written again, so a link is as good as a copy. The build checks fingerprints and rebuilds
    a linked stage that does not fit.
    """
    for number, stage in enumerate(variant.loaded.recipe.stage_names, 1):
        target = stage_folder(run, number, stage)
        for other, folder in earlier:
            source = stage_folder(folder, number, stage)
            if _settings(variant, number) == _settings(other, number) and source.is_dir() and not target.exists():
                shutil.copytree(source, target, copy_function=os.link)


def _settings(variant: Variant, number: int) -> list[Any]:
    """All settings of the recipe on which its first `number` stages depend."""
    recipe = variant.loaded.recipe
    return [recipe.seed, recipe.sources, *((name, recipe.settings(name)) for name in recipe.stage_names[:number])]


@dataclass(frozen=True)
class Variant:
    """One combination of the varied fields' values: its name and the recipe with these values."""

    name: str
    loaded: Loaded[Recipe]


def list_variants(recipe: Path, overrides: Sequence[str], vary: Sequence[str]) -> list[Variant]:
    """Every combination of the varied fields' values, as valid recipes. Raises RecipeError."""
    choices: list[list[tuple[str, str]]] = []
    for given in vary:
        field, equals, values = given.partition("=")
        if not equals or len(split_values(values)) < 2:
            raise RecipeError(f"--vary {given}: expected FIELD=A,B, e.g. `quality.presets=gopher,c4`")
        choices.append([(field, value) for value in split_values(values)])
    variants = []
    for chosen in product(*choices):
        settings = [f"{field}={value}" for field, value in chosen]
        # One value stands for a list of one where the field is a list.
        spellings = product(*((f"{field}={value}", f"{field}=[{value}]") for field, value in chosen))
        loaded = _first_valid(recipe, overrides, spellings)
        variants.append(Variant(" ".join(settings), loaded))
    return variants


def _first_valid(recipe: Path, overrides: Sequence[str], spellings: Iterable[tuple[str, ...]]) -> Loaded[Recipe]:
    """The recipe with the first valid spelling. Raises the most specific RecipeError where there is none."""
    from recipes.load import load_recipe

    wrong: RecipeError | None = None
    for settings in spellings:
        try:
            return load_recipe(recipe, [*overrides, *settings])
        except RecipeError as error:
            if wrong is None or str(wrong).endswith("allowed: a list"):  # then the error in the list says more
                wrong = error
    assert wrong is not None  # there is at least one spelling
    raise wrong


def split_values(text: str) -> list[str]:
    """Split at the commas outside of brackets.

    >>> split_values("[a, b],{c: 1, d: 2},e")
    ['[a, b]', '{c: 1, d: 2}', 'e']
    """
    values, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:
            values.append("")
        else:
            values[-1] += character
    return [value.strip() for value in values if value.strip()]


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pair of variants: the difference of means, its interval, and which is better if that excludes zero.

    Two-sample t interval with pooled variance (Student 1908), at CONFIDENCE; none with a single seed.
    """
    from scipy.stats import t

    pairs = []
    for one, other in combinations(rows, 2):
        difference = one["mean"] - other["mean"]
        count = len(one["bits_per_byte"])
        verdict: dict[str, Any] = {"one": one["variant"], "other": other["variant"], "difference": difference}
        better = one if difference < 0 else other
        worse = other if difference < 0 else one
        if count < 2:
            verdict |= {"interval": None, "better": None, "says": "no verdict: a spread needs `--seeds 2` or more"}
        else:
            error = ((one["spread"] ** 2 + other["spread"] ** 2) / count) ** 0.5
            half = float(t.ppf(0.5 + CONFIDENCE / 2, 2 * (count - 1))) * error
            decided = abs(difference) > half
            gap = f"{abs(difference):.4f} ± {half:.4f} bits per byte"
            verdict |= {"interval": half, "better": better["variant"] if decided else None}
            verdict["says"] = (
                f"{better['variant']} is better than {worse['variant']} by {gap}"
                if decided
                else f"{one['variant']} and {other['variant']} differ by {gap}: the spread allows no verdict"
            )
        pairs.append(verdict)
    return pairs


def terminal_table(results: dict[str, Any]) -> TerminalTable:
    table = make_table(*_COLUMNS)
    for row in _rows(results):
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return table


def page_sections(results: dict[str, Any]) -> list[Section]:
    """The comparison as a page: verdicts, figure, table."""
    from cli.report.page import Figure, Section, Table

    rows = results["variants"]
    means = {
        "type": "scatter",
        "mode": "markers",
        "name": "mean and spread",
        "marker": {"size": 12},
        "x": [row["mean"] for row in rows],
        "y": [row["variant"] for row in rows],
        "error_x": {"type": "data", "array": [row["spread"] or 0.0 for row in rows]},
    }
    seeds = {
        "type": "scatter",
        "mode": "markers",
        "name": "each seed",
        "marker": {"size": 9, "symbol": "line-ns-open"},
        "x": [score for row in rows for score in row["bits_per_byte"]],
        "y": [row["variant"] for row in rows for _ in row["bits_per_byte"]],
    }
    layout = {
        "xaxis": {"title": {"text": "bits per byte, lower is better"}},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
    table = Table("Variants", _COLUMNS, _rows(results), note="spread: standard deviation over seeds")
    figure = Figure("Bits per byte on the held-out text", [means, seeds], table, layout, height=120 + 60 * len(rows))
    says = Table("Verdicts", ["verdict"], [[verdict["says"]] for verdict in results["verdicts"]])
    lead = f"{results['held_out_bytes']:,} bytes of held-out text, which passed through no variant's stages."
    return [Section("results", "Results", lead, [says, figure, table])]


def _rows(results: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for row in results["variants"]:
        spread = f"{row['spread']:.4f}" if row["spread"] is not None else "-"
        scores = "  ".join(f"{score:.4f}" for score in row["bits_per_byte"])
        counts = [row["variant"], row["documents"], row["tokens"], round(row["epochs"], 2)]
        rows.append([*counts, f"{row['mean']:.4f}", spread, scores])
    return rows
