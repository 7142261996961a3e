"""`pretrain ablate`: does a choice make the corpus better? Build each variant, train the same small model, compare.

    runs/<name>-ablation/
      <variant>/corpus, shards     a run folder; stages that an earlier variant built are linked, not rebuilt
      <variant>/seed-<n>/          a training run for each seed; all see the same number of tokens
      ablation.json  report.html   results: bits per byte on one held-out text, mean, spread, verdicts

The held-out text is the user's own and never passes through a variant's stages, so no variant's rules chose it; bits
per byte compare models whatever their tokenizers. Costs variants x seeds training runs.

One variant of an ablation: build it, train the same small model on it with each seed, score all on the same text.

Variants of a recipe: every combination of the varied fields' values.

Verdicts: which of two variants is better, where the spread over seeds allows to say so.

An ablation's results for people: the table on the terminal, and a page with table, plot and verdicts.
"""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as TerminalTable

from cli.report.page import Figure, Section, Table
from cli.run import Json, Overrides, RecipeFile
from cli.terminal import make_table
from common.errors import RecipeError

if TYPE_CHECKING:
    from cli.evaluate import Text
    from recipes.load import Loaded
    from recipes.schema import Recipe


def ablate(
    recipe: RecipeFile,
    vary: Annotated[
        list[str],
        typer.Option(metavar="FIELD=A,B,...", help="Field and its values; repeatable: all combinations are built."),
    ],
    held_out: Annotated[
        list[Path], typer.Option(help="Text file, or JSON lines with `text`, to score every model on; repeatable.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Training runs of each variant; a verdict needs two or more.")] = 2,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Build variants of a corpus, train the same small model on each, and compare them on the same held-out text.

    Example: pretrain ablate recipes/ablation.yaml --vary quality.presets=gopher,c4,fineweb --held-out clean.jsonl
    """
    from cli.evaluate import read_texts
    from cli.report.page import render
    from cli.terminal import messages, print_json, results
    from common.files import write_json
    from recipes.load import check_paths

    texts = [text for path in held_out for text in read_texts(path, option="--held-out")]
    variants = list_variants(recipe, overrides or [], vary)
    for variant in variants:
        check_paths(variant.loaded)
        if variant.loaded.recipe.train is None:
            raise RecipeError(f"{recipe}: train: missing; an ablation trains a small model on each variant")
    place = variants[0].loaded.run.with_name(f"{variants[0].loaded.run.name}-ablation")
    rows = []
    for number, variant in enumerate(variants):
        messages().print(f"ablate: {variant.name} ({number + 1} of {len(variants)})", soft_wrap=True)
        rows.append(measure(variant, place, variants[:number], texts, seeds))
    size = sum(len(each.text.encode()) for each in texts)
    found: dict[str, Any] = {"held_out_bytes": size, "variants": rows, "verdicts": verdicts(rows)}
    write_json(place / "ablation.json", found)
    (place / "report.html").write_text(render(f"{place.name}: variants compared", [], sections(found)), "utf-8")
    if as_json:
        print_json(found)
        return
    results().print(terminal_table(found))
    for verdict in found["verdicts"]:
        results().print(verdict["says"], soft_wrap=True)
    results().print(f"report: {place / 'report.html'}", soft_wrap=True)


def measure(
    variant: Variant, place: Path, earlier: Sequence[Variant], texts: Sequence[Text], seeds: int
) -> dict[str, Any]:
    """Build a variant, train it with each seed, score it."""
    from cli.terminal import CorpusView, TrainingView, messages
    from common.files import read_json
    from pipeline.build import build_corpus
    from recipes.load import resolved_yaml, training_config
    from trainer.loop import train

    recipe, run = variant.loaded.recipe, place / folder_name(variant.name)
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(resolved_yaml(variant.loaded, run), "utf-8")
    _link_stages(variant, run, [(other, place / folder_name(other.name)) for other in earlier])
    with CorpusView(messages()) as view:
        build_corpus(recipe, run, variant.loaded.base, observer=view)
    stats = read_json(run / "shards" / "stats.json")
    scores = []
    for seed in range(1, seeds + 1):
        config = training_config(variant.loaded).model_copy(update={"seed": seed, "prompts": []})
        with TrainingView(messages()) as training:
            outcome = train(config, run / "shards", run / f"seed-{seed}", training)
        scores.append(bits_per_byte(run / f"seed-{seed}", texts))
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
    from trainer.generate import load_model, load_tokenizer
    from trainer.score import score, text_batches

    model, meta = load_model(train_dir, "auto")
    codec, masked = load_tokenizer(train_dir, meta), bool(meta["settings"].get("document_mask", True))
    pairs = ((each.name, each.text) for each in texts)
    tally = score(model, text_batches(pairs, codec, meta["eos_id"], model.config.context, masked=masked))
    return float(tally.scores()["bits_per_byte"])


def folder_name(name: str) -> str:
    """A variant's folder: its name without what a path or a glob would misread."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", name).strip("-")


def _link_stages(variant: Variant, run: Path, earlier: Sequence[tuple[Variant, Path]]) -> None:
    """Hard-link the stages whose settings and predecessors an earlier variant shares; the fingerprints decide.

    Published files are never written again, so a link is as good as a copy; what does not fit is rebuilt.
    """
    stages = variant.loaded.recipe.stage_names
    for number, stage in enumerate(stages):
        name = "shards" if stage == "tokenize" else f"corpus/{number + 1:02d}-{stage}"
        for other, folder in earlier:
            shared = _prefix(variant, number) == _prefix(other, number)
            if shared and (folder / name).is_dir() and not (run / name).exists():
                shutil.copytree(folder / name, run / name, copy_function=_link)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _prefix(variant: Variant, number: int) -> list[Any]:
    """Everything of a recipe that stages up to `number` depend on."""
    recipe = variant.loaded.recipe
    return [recipe.seed, recipe.sources, *((name, recipe.settings(name)) for name in recipe.stage_names[: number + 1])]


@dataclass(frozen=True)
class Variant:
    """One choice of the varied fields: a name for people and folders, and the recipe that it makes."""

    name: str
    loaded: Loaded[Recipe]


def list_variants(recipe: Path, overrides: Sequence[str], vary: Sequence[str]) -> list[Variant]:
    """Every combination of the varied fields' values, as valid recipes. Raises RecipeError."""
    choices: list[list[tuple[str, str]]] = []
    for given in vary:
        field, equals, values = given.partition("=")
        if not equals or len(split_values(values)) < 2:
            raise RecipeError(f"--vary {given}: got no `FIELD=A,B`, allowed: e.g. `quality.presets=gopher,c4`")
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
    """The recipe with the first spelling that is valid. Raises the RecipeError that says most where none is."""
    from recipes.load import load_recipe

    wrong: RecipeError | None = None
    for settings in spellings:
        try:
            return load_recipe(recipe, [*overrides, *settings])
        except RecipeError as error:
            if wrong is None or str(wrong).endswith("allowed: a list"):  # a list it is: what is wrong in it?
                wrong = error
    assert wrong is not None  # there is at least one spelling
    raise wrong


def split_values(text: str) -> list[str]:
    """Values at commas that stand in no bracket.

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


CONFIDENCE = 0.95  # of the interval that must exclude zero before one variant is called better


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pair of variants: the difference of means, its interval, and which is better if that excludes zero.

    Two-sample t interval with pooled variance (Student 1908), at CONFIDENCE; none with a single seed.
    """
    from scipy.stats import t

    found = []
    for one, other in combinations(rows, 2):
        difference = one["mean"] - other["mean"]
        count = len(one["bits_per_byte"])
        verdict: dict[str, Any] = {"one": one["variant"], "other": other["variant"], "difference": difference}
        better = one if difference < 0 else other
        worse = other if difference < 0 else one
        if count < 2:
            verdict |= {"interval": None, "better": None, "says": "one seed tells no spread, so there is no verdict"}
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
        found.append(verdict)
    return found


_COLUMNS = ["variant", "documents", "tokens", "epochs", "bits per byte", "spread", "by seed"]


def terminal_table(found: dict[str, Any]) -> TerminalTable:
    """The variants, one a line."""
    table = make_table(*_COLUMNS)
    for row in _rows(found):
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return table


def sections(found: dict[str, Any]) -> list[Section]:
    """The comparison as a page."""
    rows = found["variants"]
    names = [row["variant"] for row in rows]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean and spread",
            "marker": {"size": 12},
            "x": [row["mean"] for row in rows],
            "y": names,
            "error_x": {"type": "data", "array": [row["spread"] or 0.0 for row in rows]},
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "each seed",
            "marker": {"size": 9, "symbol": "line-ns-open"},
            "x": [score for row in rows for score in row["bits_per_byte"]],
            "y": [row["variant"] for row in rows for _ in row["bits_per_byte"]],
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "bits per byte, lower is better"}},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
    table = Table("Variants", _COLUMNS, _rows(found), note="spread: standard deviation over seeds")
    figure = Figure("Bits per byte on the held-out text", traces, table, layout, height=120 + 60 * len(rows))
    said = Table("Verdicts", ["verdict"], [[verdict["says"]] for verdict in found["verdicts"]])
    lead = f"{found['held_out_bytes']:,} bytes of held-out text, which no variant's stages saw."
    return [Section("results", "Results", lead, [said, figure, table])]


def _rows(found: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for row in found["variants"]:
        spread = f"{row['spread']:.4f}" if row["spread"] is not None else "-"
        scores = "  ".join(f"{score:.4f}" for score in row["bits_per_byte"])
        counts = [row["variant"], row["documents"], row["tokens"], round(row["epochs"], 2)]
        rows.append([*counts, f"{row['mean']:.4f}", spread, scores])
    return rows
