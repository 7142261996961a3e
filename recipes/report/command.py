"""The command `pretrain report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folder; several are compared.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write; default: report.html in the run folder, of a comparison in this one."),
    ] = None,
) -> None:
    """Write a run's report as one HTML file, at any time; several runs are set side by side.

    Example: pretrain report runs/demo

    Example: pretrain report runs/a runs/b --output a-b.html
    """
    from recipes.report.write import write_report

    place = write_report(runs, output)
    typer.echo(f"{place} ({place.stat().st_size / 1e6:.1f} MB)")
