"""`blame`: which documents a training step stumbled over: their losses at that moment, the most unusual first.

An anomalous step has its account already. Of any other step the losses are in the table that `record_losses` writes, or
the step is repeated from the checkpoint before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.options import Result, Run
from cli.terminal import TrainingView, clean, messages
from common.errors import RecipeError
from common.runfolder import ACCOUNT, LOSSES, Row, RunFolder

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trainer.pieces import PieceLoss

_EXCERPT = 200  # characters


def blame(
    run: Run,
    step: Annotated[int, typer.Option(min=1, help="Training step, as metrics.jsonl numbers it.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, max=100, help="Number of documents to show.")] = 10,
) -> Result:
    """Name the documents of a training step by how unusual their losses were at that moment.

    For each: loss in nats a token, its excess over the step's median, address, source, language and the beginning of
    its text. A step that was no anomaly, in a run without `train.record_losses`, is repeated from the checkpoint before
    it, which takes as long as those steps took.

    Example: pretrain blame runs/demo --step 120
    """
    told = _account(run, step)
    value = told | {"documents": told["documents"][:limit]}
    return Result(value, *_lines(value))


def _account(run: RunFolder, step: int) -> Row:
    """The account of a step: written at the anomaly, from the recorded losses, or from a repetition."""
    from common.files import read_json
    from trainer.pieces import account
    from trainer.replay import replay
    from trainer.shards import open_as_trained

    if (path := run.trained / ACCOUNT.format(step)).is_file():
        told: Row = read_json(path)
        return told
    if run.fingerprint is None:
        raise RecipeError(f"{run.path}: no finished shards; `pretrain corpus RECIPE` makes them")
    if pieces := recorded(run, step):
        shards = open_as_trained(run.shards, run.trained / "shards-cache", run.state)
        return account(shards, step, "recorded", pieces)
    messages().print(f"blame: repeats the steps from the checkpoint before step {step}", soft_wrap=True)
    with TrainingView() as view:
        return replay(run.trained, run.shards, step, view)


def recorded(run: RunFolder, step: int) -> list[PieceLoss]:
    """The losses of a step's pieces in the run's tables; empty without `record_losses`."""
    from cli.contents import select_rows
    from trainer.pieces import PieceLoss

    for path in (run.trained / LOSSES).glob("*-*.parquet"):
        first, last = map(int, path.stem.split("-"))
        if first <= step <= last:
            rows = select_rows(path, "step", {step})
            return [PieceLoss(**{name: row[name] for name in row if name != "step"}) for row in rows]
    return []


def _lines(told: Row) -> Iterator[RenderableType]:
    yield Text(f"step {told['step']:,}: mean loss {_show(told['loss'])} ({clean(told['reason'], 300)})", "bold")
    worst = told["sequences"][0]
    highest = f"{worst['stream']}/{worst['sample']}, {_show(worst['loss'])}"
    yield f"highest of its {len(told['sequences']):,} sequences: {highest}"
    for row in told["documents"]:
        where = " ".join(str(row[name]) for name in ("source", "language") if row[name]) or row["stream"]
        start, end = row["span"]
        yield Text(
            f"  {_show(row['loss'])} ({_show(row['above'], '+')})  {clean(row['url'] or row['id'] or '', 120)}", "cyan"
        )
        yield f"    {where}; {row['stream']}/{row['sample']}, {start}-{end}: {clean(row['excerpt'] or '', _EXCERPT)}"


def _show(value: Any, sign: str = "") -> str:
    return "no number" if value is None else f"{value:{sign}.3f}"
