"""The commands that make something of a recipe: `run` (all of it), `corpus`, `train`.

They print the funnel and the training run's results, keep the resolved recipe beside them in the run folder,
and leave the work to the two packages.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recipes.errors import RecipeError

if TYPE_CHECKING:
    from recipes.load import Loaded
    from recipes.schema import Recipe
    from trainer.config import TrainConfig

RecipeFile = Annotated[Path, typer.Argument(help="Recipe file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, e.g. quality.presets=[c4]; repeatable."),
]
First = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Build anew from this stage on.")]
Last = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")]


def run(recipe: RecipeFile, overrides: Overrides = None, first: First = None, last: Last = None) -> None:
    """Run a recipe end to end: corpus, then training. What is already done is not done again.

    Example: pretrain run recipes/demo.yaml --set train.steps=100
    """
    from recipes.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    corpus_stages: list[str] = list(loaded.recipe.stages)
    stages = [*corpus_stages, "train"] if loaded.recipe.train else corpus_stages
    _check_stages(stages, first, last)
    _build_corpus(loaded, recipe, first=first, last=last)
    if loaded.recipe.train and last in (None, "train"):
        if first:
            _set_aside(loaded.run / "train")
        _train(loaded.recipe.train, loaded.run / "shards", loaded.run / "train")


def corpus(recipe: RecipeFile, overrides: Overrides = None, first: First = None, last: Last = None) -> None:
    """Build a recipe's corpus and shards, without training.

    Example: pretrain corpus recipes/fineweb.yaml --set sources.0.limit=1000 --to quality
    """
    from recipes.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    _check_stages(list(loaded.recipe.stages), first, last)
    _build_corpus(loaded, recipe, first=first, last=last)


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file; its `train` section counts.")] = None,
    shards: Annotated[
        Path | None, typer.Option(help="Folder of MDS shards, ours or your own; default: the recipe's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and metrics; default: `train` in the run folder.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Train on shards: a recipe's, or any folder of MDS shards. Started again, it goes on where it was.

    Example: pretrain train recipes/demo.yaml

    Example: pretrain train --shards my/shards --set train.preset=124m

    Eight GPUs: torchrun --nproc-per-node 8 -m recipes.cli train recipes/llama-1b.yaml
    """
    from recipes.load import load_recipe, load_training

    if shards is not None:
        training = load_training(recipe, overrides or ())
        place = training.run if recipe else shards.resolve().parent
        _train(training.recipe.train, shards, output or place / "train")
        return
    if recipe is None:
        raise RecipeError("nothing to train on: give a recipe file or `--shards DIR` (see pretrain train --help)")
    loaded = load_recipe(recipe, overrides or ())
    if loaded.recipe.train is None:
        raise RecipeError(f"{recipe}: train: missing; this recipe describes no training run")
    if not (loaded.run / "shards" / "manifest.json").is_file():
        raise RecipeError(f"{loaded.run / 'shards'}: no shards yet; build them with `pretrain corpus {recipe}`")
    _train(loaded.recipe.train, loaded.run / "shards", output or loaded.run / "train")


def _check_stages(stages: list[str], first: str | None, last: str | None) -> None:
    """Raise RecipeError where `--from` or `--to` names no stage of the recipe, or they are the wrong way round."""
    from recipes.explain import similar

    for option, stage in (("--from", first), ("--to", last)):
        if stage is not None and stage not in stages:
            raise RecipeError(f"{option}: got {stage!r}, allowed: {', '.join(stages)}{similar(stage, stages)}")
    if first and last and stages.index(first) > stages.index(last):
        raise RecipeError(f"--from {first} comes after --to {last}; the recipe's stages: {', '.join(stages)}")


def _build_corpus(loaded: Loaded[Recipe], path: Path, *, first: str | None, last: str | None) -> None:
    from recipes.load import check_paths

    check_paths(loaded)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("a corpus is built by one process: run `pretrain corpus` first, then torchrun with `train`")
    from pipeline.runner import build_corpus
    from recipes.funnel import CorpusView, funnel_table, truth_table
    from recipes.terminal import messages, results

    _keep_recipe(loaded, path)
    with CorpusView(messages()) as view:
        build_corpus(
            loaded.recipe,
            loaded.run,
            loaded.base,
            first=None if first == "train" else first,
            last=None if last == "train" else last,
            observer=view,
        )
    console = results()
    console.print(funnel_table(view.stats, view.seconds))
    if loaded.recipe.truth:
        from pipeline.truth import score

        console.print(truth_table(score(loaded.run, loaded.base / loaded.recipe.truth)))


def _keep_recipe(loaded: Loaded[Recipe], path: Path) -> None:
    """Write the run folder's recipe.yaml: every default filled in, and runnable as it is."""
    from pipeline.storage import atomic_file
    from recipes.load import resolved_yaml

    place = loaded.run / "recipe.yaml"
    text = f"# {path.name}, every default filled in; paths are relative to this file.\n"
    text += resolved_yaml(loaded, loaded.run)
    with atomic_file(place) as file:
        file.write(text.encode())


def _set_aside(folder: Path) -> None:
    """Rename an earlier training run to the first free `train.N`: to start over is not to delete."""
    from recipes.terminal import messages

    if folder.exists():
        number = 1
        while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(kept)
        messages().print(f"train: starts over; the earlier training run is kept in {kept}", soft_wrap=True)


def _train(config: TrainConfig, shards: Path, output: Path) -> None:
    from recipes.terminal import messages, results
    from recipes.training import TrainingView
    from trainer.train import train as train_model

    with TrainingView(messages()) as view:
        train_model(config, shards, output, view)
    results().print(view.summary())
