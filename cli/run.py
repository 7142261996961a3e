"""The commands that make something of a recipe: `run` (all of it), `corpus`, `train`.

They print the funnel and the training run's results, keep the resolved recipe beside them in the run folder,
and leave the work to the two packages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal import set_json
from common.errors import Interrupted, RecipeError, TrainerError

if TYPE_CHECKING:
    from recipes.load import Loaded
    from recipes.mirror import Mirror
    from recipes.schema import Recipe
    from trainer.config import TrainConfig

RecipeFile = Annotated[Path, typer.Argument(help="Recipe file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, e.g. train.steps=500; repeatable."),
]
First = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Build anew from this stage on.")]
Json = Annotated[
    bool, typer.Option("--json", callback=lambda chosen: set_json(chosen) or chosen, help="Print the result as JSON.")
]
Last = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")]


def run(
    recipe: RecipeFile, overrides: Overrides = None, first: First = None, last: Last = None, as_json: Json = False
) -> None:
    """Run a recipe end to end: corpus, then training. What is already done is not done again.

    A finished model of an earlier corpus is kept as train.1, train.2, ...; a training run that is under way never
    goes on with another corpus unless `--from train` says to start over.

    Example: pretrain run recipes/demo.yaml --set train.steps=100
    """
    from recipes.load import load_recipe, training_config

    loaded = load_recipe(recipe, overrides or ())
    stages = loaded.recipe.stage_names + (["train"] if loaded.recipe.train else [])
    _check_stages(stages, first, last)
    mirror = _mirror(loaded)
    before = _fingerprint(loaded.run / "shards")
    with _explained(loaded.run, first):
        _build_corpus(loaded, recipe, mirror, first=first, last=last)
        if loaded.recipe.train and last in (None, "train"):
            shards, output = loaded.run / "shards", loaded.run / "train"
            stale = _fingerprint(shards) != before and (output / "result.json").is_file()
            if first or stale:
                _set_aside(output)
            start_over = f"pretrain run {recipe} --from train"
            _train(training_config(loaded), shards, output, start_over=start_over, mirror=mirror)
    _finish(loaded.run, as_json, mirror)


def corpus(
    recipe: RecipeFile, overrides: Overrides = None, first: First = None, last: Last = None, as_json: Json = False
) -> None:
    """Build a recipe's corpus and shards, without training.

    Example: pretrain corpus recipes/fineweb.yaml --set sources.0.limit=1000 --to quality
    """
    from recipes.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    _check_stages(loaded.recipe.stage_names, first, last)
    mirror = _mirror(loaded)
    with _explained(loaded.run, first):
        _build_corpus(loaded, recipe, mirror, first=first, last=last)
    _finish(loaded.run, as_json, mirror)


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file; its `train` section counts.")] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of MDS shards, ours or your own, or its address (s3://...); default: the recipe's.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and metrics; default: `train` in the run folder.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Model size: tiny, 124m, 350m, 1b, 3b, 8b; short for --set train.preset=...")
    ] = None,
    overrides: Overrides = None,
    skip_steps: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST", help="Leave these steps out, going back to before them where they are past."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train on shards: a recipe's, or any folder of MDS shards. Started again, it goes on where it was.

    Example: pretrain train recipes/demo.yaml

    Example: pretrain train --shards my/shards --preset 124m --set train.steps=5000

    Example: torchrun --nproc-per-node 8 --no-python pretrain train recipes/llama-1b.yaml
    """
    from recipes.load import load_recipe, load_training, training_config

    overrides = [*(overrides or ()), *([f"train.preset={preset}"] if preset else ())]
    if shards is not None:
        training = load_training(recipe, overrides)
        remote = "://" in shards
        place = training.run if recipe or remote else Path(os.path.normpath(Path(shards) / ".."))
        output = output or place / "train"
        _train(training_config(training), shards, output, skip_steps=skip_steps)
        _finish(output.parent if output.name == "train" else output, as_json)
        return
    if recipe is None:
        raise RecipeError("nothing to train on: give a recipe file or `--shards DIR` (see pretrain train --help)")
    loaded = load_recipe(recipe, overrides)
    if loaded.recipe.train is None:
        raise RecipeError(f"{recipe}: train: missing; this recipe describes no training run")
    mirror = _mirror(loaded)
    if not (loaded.run / "shards" / "manifest.json").is_file():
        raise RecipeError(f"{loaded.run / 'shards'}: no shards yet; build them with `pretrain corpus {recipe}`")
    place = output or loaded.run / "train"
    _train(training_config(loaded), loaded.run / "shards", place, skip_steps=skip_steps, mirror=mirror)
    _finish(output or loaded.run, as_json, mirror)


def _check_stages(stages: Sequence[str], first: str | None, last: str | None) -> None:
    """Raise RecipeError where `--from` or `--to` names no stage of the recipe, or they are the wrong way round."""
    from recipes.explain import similar

    for option, stage in (("--from", first), ("--to", last)):
        if stage is not None and stage not in stages:
            raise RecipeError(f"{option}: got {stage!r}, allowed: {', '.join(stages)}{similar(stage, stages)}")
    if first and last and stages.index(first) > stages.index(last):
        raise RecipeError(f"--from {first} comes after --to {last}; the recipe's stages: {', '.join(stages)}")


@contextmanager
def _explained(run: Path, first: str | None) -> Iterator[None]:
    """Add to errors from below what they cannot know: the run folder, and how to go on after `--from`."""
    try:
        yield
    except OSError as error:
        error.add_note(f"The run folder is {run}.")
        raise
    except (KeyboardInterrupt, Interrupted) as stopped:
        if first:
            stopped.add_note(f"Leave out `--from {first}` then: it starts over.")
        raise


def _mirror(loaded: Loaded[Recipe]) -> Mirror | None:
    """The local copy's tie to a run folder in object storage, brought up to date; None where the folder is local."""
    from recipes.mirror import Mirror, is_remote

    if not is_remote(loaded.address):
        return None
    mirror = Mirror(loaded.address, loaded.run)
    mirror.pull()
    return mirror


def _build_corpus(
    loaded: Loaded[Recipe], path: Path, mirror: Mirror | None, *, first: str | None, last: str | None
) -> None:
    from recipes.load import check_paths

    check_paths(loaded)
    _require_one_process(
        f"a corpus is built by one process: build it with `pretrain corpus {path}`, then start "
        f"`torchrun --nproc-per-node N --no-python pretrain train {path}`"
    )
    from cli.terminal import CorpusView, funnel_table, messages, tables, truth_table
    from pipeline.build import build_corpus
    from recipes.mirror import pushing

    with CorpusView(messages()) as view:
        build_corpus(
            loaded.recipe,
            loaded.run,
            loaded.base,
            first=None if first == "train" else first,
            last=None if last == "train" else last,
            observer=pushing(view, mirror),
            begin=lambda: _keep_recipe(loaded, path),
        )
    if mirror:
        mirror.push()
    console = tables()
    console.print(funnel_table(view.stats, view.seconds))
    if loaded.recipe.truth:
        from data.truth import score

        console.print(truth_table(score(loaded.run, loaded.base / loaded.recipe.truth)))


def _fingerprint(shards: Path) -> str | None:
    """Fingerprint of the published shards, None before there are any."""
    from common.files import read_manifest

    manifest = read_manifest(shards)
    return manifest["fingerprint"] if manifest else None


def _keep_recipe(loaded: Loaded[Recipe], path: Path) -> None:
    """Write the run folder's recipe.yaml: every default filled in, and runnable as it is."""
    from common.files import atomic_file
    from recipes.load import resolved_yaml

    place = loaded.run / "recipe.yaml"
    text = f"# {path.name}, every default filled in; paths are relative to this file.\n"
    text += resolved_yaml(loaded, loaded.run)
    with atomic_file(place) as file:
        file.write(text.encode())


def _set_aside(folder: Path) -> None:
    """Rename an earlier training run to the first free `train.N`: to start over is not to delete."""
    from cli.terminal import messages

    if folder.exists():
        number = 1
        while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(kept)
        messages().print(f"train: starts over; the earlier training run is kept in {kept}", soft_wrap=True)


def _train(
    config: TrainConfig,
    shards: Path | str,
    output: Path,
    *,
    start_over: str = "give another `--output`",
    skip_steps: str | None = None,
    mirror: Mirror | None = None,
) -> None:
    """Train and print the result. start_over: what to use where an earlier run in `output` cannot go on."""
    from cli.terminal import TrainingView, messages, tables, training_summary
    from recipes.mirror import pushing
    from trainer.loop import train as train_model

    if int(os.environ.get("RANK", "0")) > 0:  # under torchrun the first process speaks for all
        train_model(config, shards, output, None, skip_steps)
        return
    resuming = (output / "checkpoints").exists()
    with TrainingView(messages()) as view:
        try:
            result = train_model(config, shards, output, pushing(view, mirror), skip_steps)
        except TrainerError as error:
            if resuming and not view.started:
                error.add_note(f"To train from the start instead and keep the earlier run: {start_over}")
            raise
    tables().print(training_summary(result))


def _finish(run: Path, as_json: bool, mirror: Mirror | None = None) -> None:
    """Write the report of what is done, and print the result as JSON where that was asked for."""
    if os.environ.get("RANK", "0") != "0":
        return
    from importlib.util import find_spec

    from cli.terminal import messages, print_json, tables
    from common.runfolder import RunFolder, summary

    if find_spec("plotly") and find_spec("jinja2"):
        from cli.report.write import write_report

        tables().print(f"report: {write_report([run])}", soft_wrap=True)
    else:
        messages().print("report: left out; it needs the extra `report` (jinja2, plotly)", soft_wrap=True)
    if mirror:
        mirror.push()
    if as_json:
        print_json(summary(RunFolder(run)))


def _require_one_process(message: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(message)
