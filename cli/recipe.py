"""The commands around a run: `check`, `schema`, `harvest`.

`pretrain plan`: what a recipe will take and give, before anything runs.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.run import Json, Overrides, RecipeFile
from cli.terminal import print_json
from common.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from recipes.load import Loaded
    from recipes.plan import CorpusPlan, TrainingPlan
    from recipes.schema import Recipe

RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.", show_default=False)]


def check(recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Validate a recipe and say everything that is wrong with it, without running anything.

    Example: pretrain check recipes/demo.yaml --set train.steps=100
    """
    from recipes.load import check_paths, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    check_paths(loaded)
    if as_json:
        print_json({"recipe": str(recipe), "run": str(loaded.run), "resolved": loaded.recipe.model_dump(mode="json")})
        return
    train = loaded.recipe.train
    training = f"; trains `{train.preset}` for {train.steps:,} steps" if train else "; corpus only"
    typer.echo(f"{recipe}: valid; {' > '.join(loaded.recipe.stage_names)}{training}; run folder {loaded.run}")


def schema() -> None:
    """Print the JSON Schema of recipes, from which editors complete and check them.

    Example: pretrain schema > recipe.schema.json

    Then put this first in a recipe: # yaml-language-server: $schema=recipe.schema.json
    """
    import json

    from recipes.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def harvest(
    output: Annotated[Path, typer.Argument(help="Folder for the WARC files.", show_default=False)],
    limit_mb: Annotated[int | None, typer.Option(min=1, help="Stop after this many MB of HTML.")] = None,
    as_json: Json = False,
) -> None:
    """Render the documentation installed on this machine as web pages in WARC files, to try recipes on.

    Example: pretrain harvest data/harvest --limit-mb 30
    """
    from data.harvest import harvest as write_pages

    if output.is_file():
        raise RecipeError(f"{output}: this is a file; give a folder for the WARC files")
    report = write_pages(output, limit_bytes=None if limit_mb is None else limit_mb * 1_000_000)
    if as_json:
        print_json({"output": str(output), **asdict(report)})
        return
    typer.echo(
        f"{output}: {report.pages:,} pages of {report.packages:,} packages in {report.files:,} WARC files"
        f" ({report.html_bytes / 1e6:.1f} MB of HTML)"
    )


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that train.")] = 1,
    gpu: Annotated[str, typer.Option(help="Kind of GPU: a100, h100, h200, b200, l40s, 4090.")] = "h100",
    utilisation: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the peak that is reached.")] = 0.4,
    from_run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Measured run folder to scale the corpus up from.")
    ] = None,
    gpu_price: Annotated[float | None, typer.Option(min=0.0, help="Price of a GPU-hour.")] = None,
    core_price: Annotated[float | None, typer.Option(min=0.0, help="Price of a core-hour.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a recipe will take: parameters, operations, memory, hours, storage, and the loss to expect.

    Example: pretrain plan recipes/llama-1b.yaml --gpus 8 --gpu h100 --utilisation 0.4 --gpu-price 2.5

    Example: pretrain plan big.yaml --from-run runs/small --core-price 0.04
    """
    from cli.terminal import results
    from recipes.load import load_recipe
    from recipes.plan import mixture

    loaded = load_recipe(recipe, overrides or ())
    training = _training(loaded.recipe, gpus, gpu, utilisation)
    corpus = _corpus(loaded, from_run) if from_run else None
    shards = next((run / "shards" for run in (loaded.run, from_run) if run and (run / "shards").is_dir()), None)
    streams = mixture(shards, training.tokens) if shards and training else []
    costs = _costs(training, corpus, gpu_price, core_price)
    if as_json:
        parts = {"training": training, "corpus": corpus}
        typer.echo(json.dumps({key: _plain(part) for key, part in parts.items()} | {"mixture": streams, "cost": costs}))
        return
    console = results()
    if training:
        _show_training(console, training, f"{gpus} x {gpu} at {utilisation:.0%} of peak")
    if corpus:
        _show_corpus(console, corpus, loaded.recipe.train is not None and training is not None, training)
    elif loaded.recipe.sources:
        console.print("corpus: give --from-run RUN (a small measured run of the same stages) for its yield and hours")
    for row in streams:
        console.print(f"mixture: {row['stream']}  {row['tokens']:,.0f} tokens, {row['epochs']:.2f} epochs")
    for name, cost in costs.items():
        console.print(f"cost: {name} {cost:,.2f}")


def _training(recipe: Recipe, gpus: int, gpu: str, utilisation: float) -> TrainingPlan | None:
    from recipes.explain import similar
    from recipes.plan import GPUS, plan_training
    from trainer.shapes import resolve_model

    if gpu not in GPUS:
        raise RecipeError(f"--gpu: got {gpu!r}, allowed: {', '.join(GPUS)}{similar(gpu, GPUS)}")
    if recipe.train is None:
        return None
    shape = resolve_model(recipe.train, recipe.tokenize.tokenizer.vocab_size, recipe.tokenize.sequence_length)
    return plan_training(recipe.train, shape, gpus=gpus, gpu=gpu, utilisation=utilisation)


def _corpus(loaded: Loaded[Recipe], run: Path) -> CorpusPlan:
    from recipes.load import load_recipe
    from recipes.plan import plan_corpus

    if not (run / "recipe.yaml").is_file() or not (run / "log.jsonl").is_file():
        raise RecipeError(f"--from-run {run}: not a run folder (no recipe.yaml or log.jsonl)")
    measured = load_recipe(run / "recipe.yaml")
    return plan_corpus(loaded.recipe, loaded.base, measured.recipe, run, measured.base)


def _costs(
    training: TrainingPlan | None, corpus: CorpusPlan | None, gpu_price: float | None, core_price: float | None
) -> dict[str, float]:
    costs = {}
    if training and gpu_price is not None:
        costs["training"] = training.gpu_hours * gpu_price
    if corpus and core_price is not None:
        costs["corpus"] = sum(stage.core_seconds for stage in corpus.stages) / 3600 * core_price
    return costs


def _plain(part: TrainingPlan | CorpusPlan | None) -> Any:
    return dataclasses.asdict(part) if part else None


def _show_training(console: Console, plan: TrainingPlan, place: str) -> None:
    from cli.terminal import duration
    from recipes.plan import OPTIMAL_TOKENS_PER_PARAMETER

    ratio = plan.tokens_per_parameter / OPTIMAL_TOKENS_PER_PARAMETER
    console.print(f"training: {plan.parameters:,} parameters, {plan.tokens:,} tokens, {plan.flops:.2e} operations")
    console.print(
        f"  {plan.tokens_per_parameter:.1f} tokens a parameter, {ratio:.2g} times compute-optimal"
        f" ({OPTIMAL_TOKENS_PER_PARAMETER:.0f})"
    )
    if plan.loss:
        console.print(
            f"  expected loss {plan.loss[0]:.2f} to {plan.loss[1]:.2f} nats a token (two fits of Chinchilla's law)"
        )
    else:
        console.print("  expected loss unknown: scaling laws were fitted on larger runs (70 M parameters, 5 G tokens)")
    step = plan.step_seconds
    console.print(
        f"  on {place}: a step {duration(step) if step >= 1 else f'{step * 1000:.3g} ms'}, all"
        f" {duration(plan.seconds)}, {plan.gpu_hours:,.3g} GPU-hours"
    )
    total = sum(plan.memory.values())
    console.print(f"  memory of one GPU: {total / 1e9:.1f} GB, {'fits' if plan.fits else 'DOES NOT FIT'}")
    for name, size in plan.memory.items():
        console.print(f"    {name:<18}{size / 1e9:8.2f} GB")
    console.print(f"  a checkpoint: {plan.checkpoint_bytes / 1e9:.2f} GB")


def _show_corpus(console: Console, plan: CorpusPlan, training: bool, trained: TrainingPlan | None) -> None:
    console.print(f"corpus: {plan.scale:,.2f} times the measured run's input; deduplication may keep less")
    for stage in plan.stages:
        console.print(
            f"  {stage.stage:<10}{stage.documents:14,.0f} documents {stage.bytes / 1e6:12,.1f} MB"
            f" {stage.core_seconds / 3600:10,.3g} core-hours"
        )
    if plan.tokens:
        console.print(f"  {plan.tokens:,.0f} tokens in {plan.shard_bytes / 1e6:,.1f} MB of shards")
        if training and trained and trained.tokens:
            console.print(f"  training reads {trained.tokens / plan.tokens:.2f} epochs of them")
