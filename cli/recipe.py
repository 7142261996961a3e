"""Commands that look at a recipe before anything runs: `check`, `schema`, `plan`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Overrides, RecipeFile, Result
from cli.terminal import duration
from common.errors import RecipeError, TrainerError
from common.runfolder import RunFolder

if TYPE_CHECKING:
    from recipes.load import Loaded
    from recipes.plan import CorpusPlan, TrainingPlan
    from recipes.schema import Recipe


def check(recipe: RecipeFile, overrides: Overrides = None) -> Result:
    """Validate a recipe and report every mistake in it, without running anything.

    Example: pretrain check recipes/demo.yaml --set train.steps=100
    """
    from recipes.load import check_paths, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    check_paths(loaded)
    value = {"recipe": str(recipe), "run": str(loaded.run), "resolved": loaded.recipe.model_dump(mode="json")}
    train = loaded.recipe.train
    training = f"; trains {_model(loaded)} for {train.steps:,} steps" if train else "; corpus only"
    stages = " > ".join(loaded.recipe.stage_names)
    return Result(value, f"{recipe}: valid; {stages}{training}; run folder {loaded.run}")


def _model(loaded: Loaded[Recipe]) -> str:
    """The model that a recipe trains. Raises RecipeError where it asks a given one for another shape."""
    from recipes.load import training_config
    from trainer.config import ModelConfig, continued_shape

    config, length = training_config(loaded), loaded.recipe.tokenize.sequence_length
    if config.initial is None:
        return f"`{config.preset}`"
    if not (state := RunFolder(Path(config.initial)).state):
        raise RecipeError(f"train.initial: {config.initial} holds no model; `pretrain import` makes one")
    given = ModelConfig(**state["model"])
    try:
        shape = continued_shape(config, given, length)
    except TrainerError as error:
        raise RecipeError(str(error)) from None
    changed = [f"{name} {value}" for name, value in shape if value != getattr(given, name)]
    text = f"`{config.initial}` ({shape.layers} layers of width {shape.width}, vocabulary {shape.vocab_size:,})"
    return f"{text} further{', with ' + ', '.join(changed) if changed else ''}"


def schema() -> Result:
    """Print the JSON Schema of recipes, with which editors complete and check them.

    Example: pretrain schema > recipe.schema.json

    Then put this first in a recipe: # yaml-language-server: $schema=recipe.schema.json
    """
    from recipes.schema import json_schema

    value = json_schema()
    return Result(value, json.dumps(value, indent=2, ensure_ascii=False))


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs that train.")] = 1,
    gpu: Annotated[str, typer.Option(help="Kind of GPU: a100, h100, h200, b200, l40s, 4090.")] = "h100",
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the GPU's peak operations that training reaches.")
    ] = 0.4,
    from_run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder of a small measured run to scale the corpus up from.")
    ] = None,
    gpu_price: Annotated[float | None, typer.Option(min=0.0, help="Price of a GPU-hour.")] = None,
    core_price: Annotated[float | None, typer.Option(min=0.0, help="Price of a core-hour.")] = None,
) -> Result:
    """Estimate what a recipe takes: parameters, operations, memory, hours, storage, and the expected loss.

    Example: pretrain plan recipes/llama-1b.yaml --gpus 8 --gpu h100 --utilisation 0.4 --gpu-price 2.5

    Example: pretrain plan big.yaml --from-run runs/small --core-price 0.04
    """
    from recipes.load import load_recipe
    from recipes.plan import mixture

    loaded = load_recipe(recipe, overrides or ())
    training = _plan_training(loaded.recipe, gpus, gpu, utilisation)
    corpus = _plan_corpus(loaded, RunFolder(from_run)) if from_run else None
    shards = next(
        (RunFolder(run).shards for run in (loaded.run, from_run) if run and RunFolder(run).shards.is_dir()), None
    )
    streams = mixture(shards, training.tokens) if shards and training else []
    costs: dict[str, float] = {}
    if training and gpu_price is not None:
        costs["training"] = training.gpu_hours * gpu_price
    if corpus and core_price is not None:
        costs["corpus"] = sum(stage.core_seconds for stage in corpus.stages) / 3600 * core_price
    lines: list[str] = []
    if training:
        lines += _training_lines(training, f"{gpus} x {gpu} at {utilisation:.0%} of peak")
    if corpus:
        lines += _corpus_lines(corpus, training)
    elif loaded.recipe.sources:
        lines.append(
            "corpus: give --from-run RUN (a small measured run of the same stages) to estimate yield and hours"
        )
    lines += [f"mixture: {row['stream']}  {row['tokens']:,.0f} tokens, {row['epochs']:.2f} epochs" for row in streams]
    lines += [f"cost: {name} {cost:,.2f}" for name, cost in costs.items()]
    parts = {"training": asdict(training) if training else None, "corpus": asdict(corpus) if corpus else None}
    return Result(parts | {"mixture": streams, "cost": costs}, *lines)


def _plan_training(recipe: Recipe, gpus: int, gpu: str, utilisation: float) -> TrainingPlan | None:
    from recipes.explain import similar
    from recipes.plan import GPUS, plan_training
    from trainer.config import resolve_model

    if gpu not in GPUS:
        raise RecipeError(f"--gpu: got {gpu!r}, allowed: {', '.join(GPUS)}{similar(gpu, GPUS)}")
    if recipe.train is None:
        return None
    shape = resolve_model(recipe.train, recipe.tokenize.tokenizer.vocab_size, recipe.tokenize.sequence_length)
    return plan_training(recipe.train, shape, gpus=gpus, gpu=gpu, utilisation=utilisation)


def _plan_corpus(loaded: Loaded[Recipe], run: RunFolder) -> CorpusPlan:
    from pipeline.read import list_inputs
    from recipes.load import load_recipe
    from recipes.plan import plan_corpus

    def stored_bytes(recipe: Loaded[Recipe]) -> int:
        return sum(item.size for item in list_inputs(list(recipe.recipe.sources), recipe.base))

    if not run.recipe.is_file() or not run.log:
        raise RecipeError(f"--from-run {run.path}: not a measured run folder (no recipe.yaml or log.jsonl in it)")
    measured = load_recipe(run.recipe)
    return plan_corpus(loaded.recipe, run, stored_bytes(loaded) / stored_bytes(measured))


def _training_lines(plan: TrainingPlan, hardware: str) -> Iterator[str]:
    from recipes.plan import OPTIMAL_TOKENS_PER_PARAMETER

    ratio = plan.tokens_per_parameter / OPTIMAL_TOKENS_PER_PARAMETER
    yield f"training: {plan.parameters:,} parameters, {plan.tokens:,} tokens, {plan.flops:.2e} operations"
    yield (
        f"  {plan.tokens_per_parameter:.1f} tokens per parameter, {ratio:.2g} times compute-optimal"
        f" ({OPTIMAL_TOKENS_PER_PARAMETER:.0f})"
    )
    if plan.loss:
        low, high = plan.loss
        yield f"  expected loss {low:.2f} to {high:.2f} nats per token (two fits of Chinchilla's law)"
    else:
        yield "  expected loss unknown: scaling laws were fitted on larger runs (70 M parameters, 5 G tokens)"
    step = duration(plan.step_seconds) if plan.step_seconds >= 1 else f"{plan.step_seconds * 1000:.3g} ms"
    yield f"  on {hardware}: a step {step}, all {duration(plan.seconds)}, {plan.gpu_hours:,.3g} GPU-hours"
    total = sum(plan.memory.values())
    yield f"  memory of one GPU: {total / 1e9:.1f} GB, {'fits' if plan.fits else 'DOES NOT FIT'}"
    for name, size in plan.memory.items():
        yield f"    {name:<18}{size / 1e9:8.2f} GB"
    yield f"  a checkpoint: {plan.checkpoint_bytes / 1e9:.2f} GB"


def _corpus_lines(plan: CorpusPlan, training: TrainingPlan | None) -> Iterator[str]:
    yield f"corpus: {plan.scale:,.2f} times the measured run's input; deduplication may keep less"
    text = max(plan.text, 1.0)
    for stage in plan.stages:
        yield (
            f"  {stage.stage:<10}{stage.documents:14,.0f} documents {stage.bytes / 1e6:12,.1f} MB"
            f" {stage.core_seconds / 3600:10,.3g} core-hours, text read {stage.text_read / 1e6:,.1f} MB"
            f" ({stage.text_read / text:.2f} times the input's), written {stage.text_written / 1e6:,.1f} MB"
            f" ({stage.text_written / text:.2f})"
        )
    if plan.tokens:
        yield f"  {plan.tokens:,.0f} tokens in {plan.shard_bytes / 1e6:,.1f} MB of shards"
        if training and training.tokens:
            yield f"  training reads {training.tokens / plan.tokens:.2f} epochs of them"
