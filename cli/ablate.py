"""`ablate`: does a choice make the corpus better? Build each variant, train the same small model on it, compare.

    runs/<name>-ablation/
      <variant>/                   a run folder; stages that an earlier variant built are linked, not rebuilt
      <variant>/seed-<n>/          a training run for each seed; all see the same number of tokens
      ablation.json  report.html   bits per byte on one held-out text: mean, spread, verdicts

A variant is one combination of the varied fields' values. The held-out text is the user's own and passes through no
variant's stages, so no variant's rules chose it; bits per byte compare models with different tokenizers. Seeds are
trained round by round; each round says what the seeds so far can tell (cli.sequential), and the last one is that after
which every pair has its verdict. Costs at most variants x seeds training runs.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.contents import Text, read_texts
from cli.options import Overrides, RecipeFile, Result
from cli.sequential import ERROR, foresight, pooled_deviation, verdicts
from cli.terminal import CorpusView, TrainingView, duration, make_table, messages
from common.errors import RecipeError
from common.files import read_json, write_json
from common.runfolder import RunFolder, stage_folder

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

    from cli.report.page import Section
    from recipes.load import Loaded
    from recipes.schema import Recipe

KINDS = ("sources", "languages")  # parts of the held-out text that have verdicts of their own
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
    seeds: Annotated[
        int, typer.Option(min=1, help="Most training runs of each variant; a verdict needs two or more.")
    ] = 2,
    difference: Annotated[
        float | None, typer.Option(min=0.0, help="Smallest difference of interest, in bits per byte.")
    ] = None,
    overrides: Overrides = None,
) -> Result:
    """Build variants of a corpus, train the same small model on each, and compare them on the same held-out text.

    Seeds come in rounds, and the last is that after which every pair of variants has its verdict. One in twenty of such
    experiments calls a variant better where none is; each round says which differences the seeds can tell. With
    --difference it says how many seeds that would need, and stops too where two variants differ by less.

    Example: pretrain ablate recipes/ablation.yaml --vary quality.presets=gopher,c4,fineweb --held-out clean.jsonl
    """
    from cli.report.page import render
    from recipes.load import check_paths

    texts = [text for path in held_out for text in read_texts(path, option="--held-out")]
    variants = list_variants(recipe, overrides or [], vary)
    for variant in variants:
        check_paths(variant.loaded)
        if variant.loaded.recipe.train is None:
            raise RecipeError(f"{recipe}: train: missing; an ablation trains a small model on each variant")
    folder = variants[0].loaded.run.with_name(f"{variants[0].loaded.run.name}-ablation")
    earlier = read_json(folder / "ablation.json") if (folder / "ablation.json").is_file() else {}
    _tell([row for row in earlier.get("variants", []) if "seconds" in row], seeds, difference)
    rows = []
    for number, variant in enumerate(variants):
        messages().print(f"ablate: {variant.name} ({number + 1} of {len(variants)})", soft_wrap=True)
        rows.append(build(variant, folder, variants[:number]))
    done: list[dict[str, Any]] = []
    for seed in range(1, seeds + 1):
        for variant, row in zip(variants, rows, strict=True):
            measure(variant, folder / folder_name(variant.name), row, seed, texts)
        done = verdicts({row["variant"]: row["bits_per_byte"] for row in rows}, seeds, wished=difference)
        if seed > 1 and all(verdict["settled"] for verdict in done):
            break
        if 1 < seed < seeds:
            _tell(rows, seeds, difference)
    size = sum(len(each.text.encode()) for each in texts)
    results: dict[str, Any] = {"held_out_bytes": size, "planned_seeds": seeds, "error_rate": ERROR, "variants": rows}
    results |= {"verdicts": done, "parts": part_verdicts(rows, seeds)}
    write_json(folder / "ablation.json", results)
    page = RunFolder(folder).report
    page.write_text(render(f"{folder.name}: variants compared", [], page_sections(results)), "utf-8")
    says = [verdict["says"] for verdict in results["verdicts"]]
    return Result(results, terminal_table(results), *says, *_part_lines(results), f"report: {page}")


def _tell(rows: Sequence[dict[str, Any]], planned: int, difference: float | None) -> None:
    """Say what the experiment will tell, as far as the seeds so far show their spread."""
    deviation = pooled_deviation({row["variant"]: row["bits_per_byte"] for row in rows})
    if deviation is None:
        messages().print("ablate: what can be told is known after the second seed of each variant", soft_wrap=True)
        return
    seconds = statistics.fmean(row["seconds"] for row in rows)
    told = foresight(len(rows), planned, deviation, seconds, difference)
    messages().print(f"ablate: {told['says']} (a run: {duration(seconds)})", soft_wrap=True)


def build(variant: Variant, folder: Path, earlier: Sequence[Variant]) -> dict[str, Any]:
    """Build a variant in its folder below `folder`; returns its row without scores."""
    from pipeline.build import build_corpus
    from recipes.load import resolved_yaml

    path = folder / folder_name(variant.name)
    run = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    run.recipe.write_text(resolved_yaml(variant.loaded, path), "utf-8")
    if (forgotten := RunFolder(variant.loaded.run).forgotten).is_file():
        shutil.copy(forgotten, path)
    _link_stages(variant, path, [(other, folder / folder_name(other.name)) for other in earlier])
    with CorpusView() as view:
        build_corpus(variant.loaded.recipe, path, variant.loaded.base, observer=view)
    stats = run.stages["tokenize"].stats
    tokens = sum(entry["tokens"] for name, entry in stats["streams"].items() if name.startswith("train/"))
    row = {"variant": variant.name, "documents": stats["documents_kept"], "tokens": tokens, "bits_per_byte": []}
    return row | {kind: {} for kind in KINDS}


def measure(variant: Variant, path: Path, row: dict[str, Any], seed: int, texts: Sequence[Text]) -> None:
    """Train on a variant with a seed, and enter the model's scores into its row."""
    from cli.report.learning import training_seconds
    from recipes.load import training_config
    from trainer.loop import train

    config = training_config(variant.loaded).model_copy(update={"seed": seed, "prompts": []})
    output = path / f"seed-{seed}"
    with TrainingView() as training:
        outcome = train(config, RunFolder(path).shards, output, training)
    scored = scores(output, texts)
    values: list[float] = row["bits_per_byte"]
    values.append(scored["bits_per_byte"])
    messages().print(f"ablate: {variant.name}, seed {seed}: {values[-1]:.4f} bits per byte", soft_wrap=True)
    for kind in KINDS:
        for name, of in scored[kind].items():
            row[kind].setdefault(name, []).append(of["bits_per_byte"])
    row["mean"], row["spread"] = statistics.fmean(values), statistics.stdev(values) if seed > 1 else None
    row["epochs"] = outcome.tokens / row["tokens"]
    row["seconds"] = training_seconds(RunFolder(output))


def part_verdicts(rows: Sequence[dict[str, Any]], planned: int) -> list[dict[str, Any]]:
    """Verdicts on each source and language of the held-out text, where there are several: {kind, part, verdicts}.

    All parts of a kind share one error rate (Bonferroni).
    """
    found = []
    for kind in KINDS:
        names = sorted(rows[0][kind])
        for name in names if len(names) > 1 else ():
            compared = verdicts({row["variant"]: row[kind][name] for row in rows}, planned, ERROR / len(names))
            found.append({"kind": kind.removesuffix("s"), "part": name, "verdicts": compared})
    return found


def scores(train_dir: Path, texts: Sequence[Text]) -> dict[str, Any]:
    """Bits per byte of the newest checkpoint on the texts: over all, by source, by language."""
    from cli.evaluate import grouped
    from trainer.score import score, text_batches
    from trainer.trained import load_model, load_tokenizer

    model, meta = load_model(train_dir, "auto")
    (codec, special), masked = load_tokenizer(train_dir, meta), bool(meta["settings"].get("document_mask", True))
    pairs = ((each.name, each.text) for each in texts)
    tally = score(model, text_batches(pairs, codec, special, model.config.context, masked=masked))
    return grouped(tally, {each.name: (each.source, each.language) for each in texts})


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


def terminal_table(results: dict[str, Any]) -> TerminalTable:
    table = make_table(*_COLUMNS)
    for row in _rows(results):
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return table


def _part_lines(results: dict[str, Any]) -> list[str]:
    """The verdicts on parts of the held-out text that name a better variant."""
    return [
        f"{of['kind']} {of['part']}: {verdict['says']}"
        for of in results["parts"]
        for verdict in of["verdicts"]
        if verdict["better"]
    ]


def page_sections(results: dict[str, Any]) -> list[Section]:
    """The comparison as a page: verdicts, figure, table."""
    from cli.report.page import Block, Figure, Section, Table

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
    rate = f"{results['error_rate']:.0%} of such experiments call a variant better where none is"
    says = Table("Verdicts", ["verdict"], [[verdict["says"]] for verdict in results["verdicts"]], rate)
    parts = [[of["kind"], of["part"], each["says"]] for of in results["parts"] for each in of["verdicts"]]
    blocks: list[Block] = [says, figure, table]
    if parts:
        note = "the rate holds for all sources together, and for all languages together"
        blocks.append(Table("By source and language", ["", "part", "verdict"], parts, note))
    lead = f"{results['held_out_bytes']:,} bytes of held-out text, which passed through no variant's stages."
    return [Section("results", "Results", lead, blocks)]


def _rows(results: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for row in results["variants"]:
        spread = f"{row['spread']:.4f}" if row["spread"] is not None else "-"
        scores = "  ".join(f"{score:.4f}" for score in row["bits_per_byte"])
        counts = [row["variant"], row["documents"], row["tokens"], round(row["epochs"], 2)]
        rows.append([*counts, f"{row['mean']:.4f}", spread, scores])
    return rows
