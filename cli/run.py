"""The commands that work through a recipe: `run` (corpus and training), `corpus`, `train`.

They show progress, then the funnel and the training result, write the resolved recipe and the report into the run
folder, and leave the work to `pipeline` and `trainer`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from cli.options import Overrides, RecipeFile, Result
from cli.terminal import CorpusView, TrainingView, funnel_table, messages, show, training_summary, truth_table
from common.errors import Interrupted, RecipeError, TrainerError
from common.runfolder import TRAIN, RunFolder

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

    from pipeline.depot import Depot
    from recipes.load import Loaded
    from recipes.mirror import Mirror
    from recipes.schema import Recipe
    from trainer.config import TrainConfig

First = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Rebuild from this stage on.")]
Last = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")]


def run(recipe: RecipeFile, overrides: Overrides = None, first: First = None, last: Last = None) -> Result | None:
    """Run a recipe end to end: corpus, then training. Finished stages are not built again.

    If the corpus changed, an earlier finished model is kept as train.1, train.2, ...; an unfinished training run never
    continues on another corpus: `--from train` starts it over.

    Example: pretrain run recipes/demo.yaml --set train.steps=100
    """
    from recipes.load import load_recipe, training_config

    loaded = load_recipe(recipe, overrides or ())
    stages = loaded.recipe.stage_names + ([TRAIN] if loaded.recipe.train else [])
    _check_stages(stages, first, last)
    mirror, folder = _mirror(loaded), RunFolder(loaded.run)
    before = folder.fingerprint
    with _annotated(loaded.run, first):
        _build_corpus(loaded, recipe, mirror, first, last)
        if loaded.recipe.train and last in (None, TRAIN):
            stale = folder.fingerprint != before and bool(folder.result)
            if (first or stale) and (kept := folder.set_training_aside()):
                messages().print(f"train: starts over; the earlier training run is kept in {kept}", soft_wrap=True)
            start_over = f"pretrain run {recipe} --from train"
            _train(training_config(loaded), folder.shards, folder.train, start_over=start_over, mirror=mirror)
    return _finish(loaded.run, mirror)


def corpus(recipe: RecipeFile, overrides: Overrides = None, first: First = None, last: Last = None) -> Result | None:
    """Build a recipe's corpus and shards, without training.

    Example: pretrain corpus recipes/fineweb.yaml --set sources.0.limit=1000 --to quality
    """
    from recipes.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    _check_stages(loaded.recipe.stage_names, first, last)
    mirror = _mirror(loaded) if loaded.recipe.executor.type == "local" else None
    with _Reporter(loaded, mirror) as reporter:
        with _annotated(loaded.run, first):
            _build_corpus(loaded, recipe, mirror, first, last, reporter)
        if mirror is None and (depot := depot_of(loaded)):  # a cluster's corpus may be larger than this machine
            return Result(RunFolder(depot.run).summary(), f"report: pretrain report {loaded.address}")
        return _finish(loaded.run, mirror, reporter.write)


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file, of which the `train` section is used.")] = None,
    shards: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder or address (s3://...) of MDS shards; default: the recipe's."),
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
        typer.Option(metavar="FIRST:LAST", help="Skip these steps; if trained already, return to before them first."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write profile.txt to the output: where the time of steps 4 to 6 goes.")
    ] = False,
) -> Result | None:
    """Train on shards: a recipe's, or any folder of MDS shards. Started again, it resumes.

    Example: pretrain train recipes/demo.yaml

    Example: pretrain train --shards my/shards --preset 124m --set train.steps=5000

    Example: torchrun --nproc-per-node 8 --no-python pretrain train recipes/llama-1b.yaml
    """
    from recipes.load import load_recipe, load_training, training_config

    overrides = [*(overrides or ()), *([f"train.preset={preset}"] if preset else ())]
    if shards is not None:
        training = load_training(recipe, overrides)
        folder = training.run if recipe or "://" in shards else Path(os.path.normpath(Path(shards) / ".."))
        output = output or RunFolder(folder).train
        if "://" not in shards and output.resolve() == Path(shards).resolve():
            raise RecipeError(f"{output} holds the shards; say with `--output DIR` where the model shall go")
        _train(training_config(training), shards, output, skip_steps=skip_steps, profile=profile)
        return _finish(output.parent if output.name == TRAIN else output)
    if recipe is None:
        raise RecipeError("nothing to train on: give a recipe file or `--shards DIR` (see pretrain train --help)")
    loaded = load_recipe(recipe, overrides)
    if loaded.recipe.train is None:
        raise RecipeError(f"{recipe}: train: missing; this recipe describes no training run")
    mirror, run = _mirror(loaded), RunFolder(loaded.run)
    if run.fingerprint is None:
        raise RecipeError(f"{run.shards}: no shards yet; build them with `pretrain corpus {recipe}`")
    folder = output or run.train
    _train(training_config(loaded), run.shards, folder, skip_steps=skip_steps, profile=profile, mirror=mirror)
    return _finish(output or loaded.run, mirror)


def _check_stages(stages: Sequence[str], first: str | None, last: str | None) -> None:
    """Raise RecipeError where `--from` or `--to` is no stage of the recipe, or `--from` comes after `--to`."""
    from recipes.explain import similar

    for option, stage in (("--from", first), ("--to", last)):
        if stage is not None and stage not in stages:
            raise RecipeError(f"{option}: got {stage!r}, allowed: {', '.join(stages)}{similar(stage, stages)}")
    if first and last and stages.index(first) > stages.index(last):
        raise RecipeError(f"--from {first} comes after --to {last}; the recipe's stages: {', '.join(stages)}")


@contextmanager
def _annotated(run: Path, first: str | None) -> Iterator[None]:
    """Annotate errors with the run folder and with how to resume after `--from`."""
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
    """For a run folder in object storage: the updated mirror of its local copy; None where the folder is local."""
    from recipes.mirror import Mirror, is_remote

    if not is_remote(loaded.address):
        return None
    mirror = Mirror(loaded.address, loaded.run)
    mirror.pull()
    return mirror


def _build_corpus(
    loaded: Loaded[Recipe],
    path: Path,
    mirror: Mirror | None,
    first: str | None,
    last: str | None,
    reporter: _Reporter | None = None,
) -> None:
    from recipes.load import check_paths

    check_paths(loaded)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            f"a corpus is built by one process: build it with `pretrain corpus {path}`, then start "
            f"`torchrun --nproc-per-node N --no-python pretrain train {path}`"
        )
    from pipeline.build import build_corpus
    from pipeline.lookup import bring_up_to_date

    depot = depot_of(loaded)
    run = depot.run if depot else loaded.run
    with CorpusView(after_stage=reporter.after_stage if reporter else lambda stage: None) as view:
        build_corpus(
            loaded.recipe,
            run,
            loaded.base.absolute() if depot else loaded.base,
            first=None if first == TRAIN else first,
            last=None if last == TRAIN else last,
            observer=view,
            begin=lambda: _keep_recipe(loaded, path, run, depot),
            depot=depot,
        )
    show(funnel_table(view.stats, view.seconds))
    if depot and not mirror:
        return
    if mirror:
        mirror.pull()
    bring_up_to_date(RunFolder(loaded.run))
    if mirror:
        mirror.push()
    if loaded.recipe.truth:
        from data.truth import score

        show(truth_table(score(loaded.run, loaded.base / loaded.recipe.truth)))


def _has_workers(loaded: Loaded[Recipe]) -> bool:
    """Whether the corpus is built by processes of this machine besides this one."""
    return loaded.recipe.executor.type == "local" and loaded.recipe.executor.workers != 1


def depot_of(loaded: Loaded[Recipe]) -> Depot | None:
    """For a run folder in object storage: as the controller of its corpus sees it."""
    from recipes.mirror import CONTROLLERS, is_remote, local_copy

    if not is_remote(loaded.address):
        return None
    from pipeline.depot import Depot

    return Depot(loaded.address, local_copy(loaded.address, CONTROLLERS))


def _keep_recipe(loaded: Loaded[Recipe], path: Path, run: Path, depot: Depot | None) -> None:
    """Write the run folder's recipe.yaml: the recipe with every default filled in, which can itself be run."""
    from common.files import write_atomically
    from recipes.load import resolved_yaml

    head = f"# {path.name}, every default filled in; paths are relative to this file.\n"
    write_atomically(RunFolder(run).recipe, (head + resolved_yaml(loaded, run)).encode())
    if depot:
        depot.put([RunFolder(run).recipe])


def _train(
    config: TrainConfig,
    shards: Path | str,
    output: Path,
    *,
    start_over: str = "give another `--output`",
    skip_steps: str | None = None,
    profile: bool = False,
    mirror: Mirror | None = None,
) -> None:
    """Train and show the result. start_over: advice where the training run in `output` cannot be resumed."""
    from recipes.mirror import pushing
    from trainer.loop import train as train_model

    if int(os.environ.get("RANK", "0")) > 0:  # under torchrun only the first process reports
        train_model(config, shards, output, None, skip_steps, profile)
        return
    resuming = (output / "checkpoints").exists()
    with TrainingView() as view:
        try:
            result = train_model(config, shards, output, pushing(view, mirror), skip_steps, profile)
        except TrainerError as error:
            if resuming and not view.started:
                error.add_note(f"To train from the start instead and keep the earlier run: {start_over}")
            raise
    with suppress(OSError):  # nobody reads it: the training is complete all the same
        show(training_summary(result))


class _Reporter:
    """Writes the report of a corpus: where there are workers, in a process of its own.

    The process starts during the last stage, which leaves processors idle, and writes while this one ends its work.
    """

    def __init__(self, loaded: Loaded[Recipe], mirror: Mirror | None) -> None:
        self._run = loaded.run
        self._stages = loaded.recipe.stage_names[-2:] if _has_workers(loaded) and not mirror else []
        self._worker: ProcessPoolExecutor | None = None
        self._report: Future[Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._worker:
            self._worker.shutdown()

    def after_stage(self, stage: str) -> None:
        if stage not in self._stages:
            return
        if not self._worker:
            from pipeline.workers import start_worker

            self._worker = start_worker(_load_report)
            self._worker.submit(int)
        if stage == self._stages[-1]:
            self._report = self._worker.submit(_write_report, self._run)

    def write(self, run: Path) -> Path:
        return self._report.result() if self._report else _write_report(run)


def _load_report() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself answers Ctrl-C
    with suppress(ImportError):  # the extra `report`
        from cli.report.write import get_ready

        get_ready()


def _write_report(run: Path) -> Path:
    from cli.report.write import write_report

    return write_report([run])


def _finish(
    run: Path, mirror: Mirror | None = None, write_report: Callable[[Path], Path] = _write_report
) -> Result | None:
    """Write the report of a run folder or a training folder; None in torchrun's other processes."""
    if os.environ.get("RANK", "0") != "0":
        return None
    from importlib.util import find_spec

    parts = []
    if find_spec("plotly") and find_spec("jinja2"):
        parts.append(f"report: {write_report(run)}")
    else:
        messages().print("report: not written; it needs the extra `report` (jinja2, plotly)", soft_wrap=True)
    if mirror:
        mirror.push()
    return Result(RunFolder(run).summary(), *parts)
