"""`status`, how far a run is, and `report`, the run as an HTML page.

Both read only the run folder, so they work during the run, after a crash, and on a copy. Whether a process is at
work is known from the locks on the run folder and the training folder, which the system frees when a process dies.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.contents import read_recipe
from cli.options import Result, open_run
from cli.terminal import duration, make_table, megabytes
from common.files import MANIFEST, lock_holder
from common.runfolder import RunFolder, pass_progress

if TYPE_CHECKING:
    from rich.table import Table


def status(
    run: Annotated[str, typer.Argument(help="Run folder, e.g. runs/demo, or its address.", show_default=False)],
) -> Result:
    """Say how far a run is and whether it is running.

    Example: pretrain status runs/demo

    Example: pretrain status s3://bucket/runs/demo
    """
    if "://" not in run:
        state = read_status(Path(run))
    else:
        with TemporaryDirectory() as folder:
            state = read_status(Path(folder), _copy_facts(run, Path(folder))) | {"run": run}
    return Result(state, _table(state))


def _copy_facts(address: str, folder: Path) -> str | None:
    """Copy what tells how far the run at an address is. Returns the process that builds its corpus, if any."""
    from pipeline.depot import Depot

    depot = Depot(address, folder)
    names = [str(path.relative_to(folder)) for path in depot.names(folder)]
    told = ("stats.json", MANIFEST, "recipe.yaml", "log.jsonl", "metrics.jsonl", "result.json", "state.json")
    depot.get(folder / name for name in names if name.endswith(told) or "/.progress/" in name)
    for name in names:
        if "/.receipts/" in name:  # their number is enough
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    return depot.holder()


def read_status(path: Path, builder: str | None = None) -> dict[str, Any]:
    """{run, state, process, stages: [{stage, state, ...}], training}. Raises RecipeError where there is no run.

    builder: the process that builds the corpus, where the lock is not in the folder.
    """
    run = RunFolder.open(path)
    builder, trainer = builder or lock_holder(path), lock_holder(run.trained)
    stages = []
    named = read_recipe(run).get("stages", run.stages)  # {use: FILE:NAME} for a stage of the user's own
    for name in (of["use"].rpartition(":")[2] if isinstance(of, dict) else str(of) for of in named):
        if name in run.building:  # first, since a published stage may be under rebuilding
            stages.append(
                {"stage": name, "state": "building" if builder else "interrupted"} | pass_progress(run.building[name])
            )
        elif name in run.stages:
            stats = run.stages[name].stats
            counts = {key: stats[key] for key in ("documents_in", "documents_kept", "tokens") if key in stats}
            stages.append({"stage": name, "state": "done"} | counts)
        else:
            stages.append({"stage": name, "state": "to do"})
    training = _training(run, running=trainer is not None)
    states = {part["state"] for part in (*stages, training) if part}
    state = "running" if builder or trainer else "finished" if states <= {"done", "finished"} else "stopped"
    return {"run": str(path), "state": state, "process": builder or trainer, "stages": stages, "training": training}


def _training(run: RunFolder, *, running: bool) -> dict[str, Any] | None:
    """{state, step, steps, loss, tokens_per_second, seconds_left, ...}; None where the recipe trains nothing."""
    rows = run.records("train")
    steps = (read_recipe(run).get("train") or {}).get("steps")
    if not rows:
        return {"state": "running" if running else "to do", "steps": steps} if steps else None
    last = rows[-1]
    rate = last.get("tokens_per_second") or 0.0
    finished = run.result.get("step", -1) >= last["step"]
    training = {"state": "running" if running else "finished" if finished else "stopped", "step": last["step"]}
    training |= {"steps": steps, "loss": last["loss"], "tokens_per_second": rate}
    if steps and rate and not finished:
        training["seconds_left"] = (steps - last["step"]) * last["tokens"] / last["step"] / rate
    training["seconds_since_last_row"] = round(run.seconds_since_last_record(time.time()), 1)
    return training | {"checkpoint": run.checkpoints[-1].name if run.checkpoints else None}


def _table(status: dict[str, Any]) -> Table:
    process = f" ({status['process']})" if status["process"] else ""
    table = make_table("stage", title=f"{status['run']}: {status['state']}{process}")
    table.add_column("state")
    table.add_column("")
    for stage in status["stages"]:
        detail = ""
        if stage["state"] == "done":
            detail = f"{stage['documents_kept']:,} of {stage['documents_in']:,} documents kept"
        elif "pass" in stage:
            detail = f"pass {stage['pass']}: {stage['documents_read']:,} documents read"
            detail += f", {stage['tasks_finished']:,} tasks finished"
        table.add_row(stage["stage"], stage["state"], detail)
    if training := status["training"]:
        table.add_row("train", training["state"], _training_detail(training))
    return table


def _training_detail(training: dict[str, Any]) -> str:
    if "step" not in training:
        return ""
    detail = f"step {training['step']:,}" + (f" of {training['steps']:,}" if training["steps"] else "")
    detail += f", loss {training['loss']:.3f}, {training['tokens_per_second']:,.0f} tokens/s"
    if training["state"] == "running" and "seconds_left" in training:
        detail += f", {duration(training['seconds_left'])} left"
    if training["state"] == "stopped":
        detail += f"; last record {duration(training['seconds_since_last_row'])} ago; resumes from "
        detail += training["checkpoint"] or "the first step"
    return detail


def report(
    runs: Annotated[
        list[RunFolder],
        typer.Argument(
            parser=lambda path: open_run(path, shards=False),
            help="Run folder or its address; give several to compare them.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="File to write; default: report.html in the run folder, or here for a comparison."),
    ] = None,
    core_price: Annotated[
        float | None, typer.Option(min=0, metavar="PRICE", help="Price of a core-hour, to show the stages' cost.")
    ] = None,
    gpu_price: Annotated[
        float | None, typer.Option(min=0, metavar="PRICE", help="Price of a GPU-hour, to show the training's cost.")
    ] = None,
) -> Result:
    """Write a run's report as one HTML file, finished or not; several runs are compared on one page.

    Example: pretrain report runs/demo

    Example: pretrain report runs/a runs/b --output a-b.html
    """
    from cli.report.learning import Prices
    from cli.report.write import write_report

    page = write_report([run.path for run in runs], output, Prices(core_price, gpu_price))
    size = page.stat().st_size
    return Result({"report": str(page), "bytes": size}, f"{page} ({megabytes(size)})")
