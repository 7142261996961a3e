"""The command `pretrain report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.run import Json


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folder; several are compared.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write; default: report.html in the run folder, of a comparison in this one."),
    ] = None,
    core_price: Annotated[
        float | None, typer.Option(min=0, metavar="PRICE", help="What an hour of a core costs, for the stages' cost.")
    ] = None,
    gpu_price: Annotated[
        float | None, typer.Option(min=0, metavar="PRICE", help="What an hour of a training GPU costs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's report as one HTML file, at any time; several runs are set side by side.

    Example: pretrain report runs/demo

    Example: pretrain report runs/a runs/b --output a-b.html
    """
    from cli.report.learning import Prices
    from cli.report.write import write_report
    from cli.terminal import megabytes, print_json

    place = write_report(runs, output, Prices(core_price, gpu_price))
    size = place.stat().st_size
    if as_json:
        print_json({"report": str(place), "bytes": size})
    else:
        typer.echo(f"{place} ({megabytes(size)})")
