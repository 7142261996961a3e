"""Arguments and options that commands share, and the result that every command returns for cli/commands.py to print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import choices
from common.runfolder import RunFolder

if TYPE_CHECKING:
    from rich.console import RenderableType

    from common.errors import PretrainError
    from recipes.mirror import Mirror


class Result:
    """A command's result: `value` is printed with --json, `parts` without; then `error` is raised."""

    def __init__(self, value: Any, *parts: RenderableType, error: PretrainError | None = None) -> None:
        self.value, self.parts, self.error = value, parts, error


def _choice(field: str, *names: str, help: str) -> Any:
    """An option that sets a field of `Choices`."""
    return typer.Option(
        *names, expose_value=False, callback=lambda chosen: setattr(choices(), field, chosen), help=help
    )


def open_run(path: str, *, shards: bool = True) -> RunFolder:
    """The run folder, or the local copy of one in object storage, brought up to date; `shards`: with its samples."""
    if "://" not in path:
        return RunFolder(Path(path))
    return RunFolder(pulled(path, shards=shards).local)


def pulled(address: str, *, shards: bool = True) -> Mirror:
    """The local copy of a run folder in object storage, brought up to date."""
    from recipes.mirror import Mirror, local_copy

    mirror = Mirror(address, local_copy(address))
    mirror.pull(lambda name: shards or ".mds" not in name)
    return mirror


HELP = "Run folder, e.g. runs/demo, or its address (s3://...), from which it is copied below runs/.mirror first."
Run = Annotated[RunFolder, typer.Argument(parser=open_run, help=HELP, show_default=False)]
Step = Annotated[
    str | None,
    typer.Option(
        metavar="N|best|last", help="Checkpoint: a step, the best by held-out loss, or the last; default: last."
    ),
]
TokenizerFile = Annotated[
    Path | None, typer.Option("--tokenizer", help="The shards' tokenizer.json, where the run has no copy of it.")
]
End = Annotated[
    str | None, typer.Option("--eos", metavar="TOKEN", help="Token that ends documents, where the run does not tell.")
]
RecipeFile = Annotated[Path, typer.Argument(help="Recipe file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, e.g. train.steps=500; repeatable."),
]


def common_options(
    as_json: Annotated[bool, _choice("json", "--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, _choice("quiet", "--quiet", "-q", help="Print errors only.")] = False,
    verbose: Annotated[
        bool, _choice("verbose", "--verbose", "-v", help="Print more detail: drops by rule, every checkpoint.")
    ] = False,
) -> None:
    """The options that every command has."""
