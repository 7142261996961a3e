"""`pretrain status`: how far a run is, whether it still runs, and what the next command would do.

Everything is read from the run folder, so it works beside the running process, after a crash, and on a copy. Whether a
process is at work is known from the locks of the run folder and the training folder, which a killed process loses.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.run import Json
from common.files import lock_holder

if TYPE_CHECKING:
    from common.runfolder import RunFolder


def status(
    run: Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.", show_default=False)], as_json: Json = False
) -> None:
    """Say how far a run is, running or dead.

    Example: pretrain status runs/demo
    """
    from cli.terminal import print_json, results

    found = read_status(run)
    if as_json:
        print_json(found)
    else:
        results().print(_table(found))


def read_status(run: Path) -> dict[str, Any]:
    """{run, state, process, stages: [{stage, state, ...}], training}. Raises RecipeError where there is no run."""
    from common.runfolder import RunFolder

    folder = RunFolder(run)
    holder, trainer = lock_holder(run), lock_holder(folder.train)
    named = folder.recipe.get("stages", [])  # {use: FILE:NAME} for a stage of the user's own
    wanted = [of["use"].rpartition(":")[2] if isinstance(of, dict) else str(of) for of in named] or list(folder.stages)
    building = {_name(path): path for path in [*run.glob("corpus/.[0-9]*-*.*"), *run.glob(".shards.*")]}
    stages = []
    for name in wanted:
        # A hidden folder beside a published stage is its rebuilding.
        if name in building:
            stages.append({"stage": name, "state": "building" if holder else "interrupted"} | _progress(building[name]))
        elif name in folder.stages:
            stats = folder.stages[name].stats
            counts = {key: stats.get(key) for key in ("documents_in", "documents_kept", "tokens") if key in stats}
            stages.append({"stage": name, "state": "done"} | counts)
        else:
            stages.append({"stage": name, "state": "to do"})
    training = _training(folder, running=trainer is not None)
    states = [stage["state"] for stage in stages] + ([training["state"]] if training else [])
    state = (
        "running" if holder or trainer else "finished" if all(s in ("done", "finished") for s in states) else "stopped"
    )
    return {"run": str(run), "state": state, "process": holder or trainer, "stages": stages, "training": training}


def _name(folder: Path) -> str:
    """Stage of a hidden folder `.NN-stage.<fingerprint>` or `.shards.<fingerprint>`."""
    place = folder.name[1:].rpartition(".")[0]
    return "tokenize" if place == "shards" else place[3:]


def _progress(folder: Path) -> dict[str, Any]:
    """What the tasks' heartbeats add up to, by the pass that beat last."""
    beats = sorted((folder / ".progress").glob("*-[0-9]*"), key=lambda path: path.stat().st_mtime)
    if not beats:
        return {}
    current = beats[-1].name.rpartition("-")[0]
    values = [path.read_text("ascii").split() for path in beats if path.name.rpartition("-")[0] == current]
    whole = [value for value in values if len(value) == 3]
    finished = len(list((folder / ".receipts").glob(f"{current}-*.json")))
    return {"pass": current, "tasks_finished": finished, "documents_read": sum(int(value[0]) for value in whole)}


def _training(folder: RunFolder, *, running: bool) -> dict[str, Any] | None:
    """Step, loss, rate, time left, and when the last row was written."""
    from common.runfolder import rows_of

    rows = rows_of(folder, "train")
    steps = (folder.recipe.get("train") or {}).get("steps")
    if not rows:
        return {"state": "running" if running else "to do", "steps": steps} if steps else None
    last = rows[-1]
    age = time.time() - (folder.train / "metrics.jsonl").stat().st_mtime
    rate = last.get("tokens_per_second") or 0.0
    finished = bool(folder.result) and folder.result.get("step", 0) >= last["step"]
    found = {"state": "running" if running else "finished" if finished else "stopped", "step": last["step"]}
    found |= {"steps": steps, "loss": last["loss"], "tokens_per_second": rate}
    if steps and rate and not finished:
        found["seconds_left"] = (steps - last["step"]) * last["tokens"] / last["step"] / rate
    checkpoint = folder.checkpoints[-1].name if folder.checkpoints else None
    return found | {"seconds_since_last_row": round(age, 1), "checkpoint": checkpoint}


def _table(found: dict[str, Any]) -> Any:
    from cli.terminal import duration, make_table

    process = f" ({found['process']})" if found["process"] else ""
    title = f"{found['run']}: {found['state']}{process}"
    table = make_table("stage", title=title)
    for column in ("state", ""):
        table.add_column(column)
    for stage in found["stages"]:
        said = ""
        if stage["state"] == "done":
            said = f"{stage['documents_kept']:,} of {stage['documents_in']:,} documents kept"
        elif "pass" in stage:
            said = f"pass {stage['pass']}: {stage['documents_read']:,} documents read"
            said += f", {stage['tasks_finished']:,} tasks finished"
        table.add_row(stage["stage"], stage["state"], said)
    training = found["training"]
    if training:
        said = ""
        if "step" in training:
            said = f"step {training['step']:,}" + (f" of {training['steps']:,}" if training["steps"] else "")
            said += f", loss {training['loss']:.3f}, {training['tokens_per_second']:,.0f} tokens/s"
        if training["state"] == "running" and "seconds_left" in training:
            said += f", {duration(training['seconds_left'])} left"
        if training["state"] == "stopped":
            said += f"; nothing new for {duration(training['seconds_since_last_row'])}; goes on from"
            said += f" {training['checkpoint'] or 'the first step'}"
        table.add_row("train", training["state"], said)
    return table
