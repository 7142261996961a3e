"""The command `pretrain`: its commands, and the one place where errors become messages and exit codes.

    0    done
    1    the work failed (a damaged file, a full disk, an unusable model): the message says what to do
    2    bad usage or a bad recipe
    130  stopped by Ctrl-C, 143 by SIGTERM; the same command goes on where it was

An unexpected exception is a bug and keeps its traceback. Commands import what they need when they run, so
`pretrain --help` and `pretrain check` load no heavy library.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli import ablate, evaluate, export, inspect, prepare, provenance, recipe, run, status, terminal
from cli.report import command as report
from common.errors import Interrupted, PretrainError, RecipeError

_OURS = {"common", "pipeline", "trainer", "recipes", "cli", "data"}
_RESUME = "stopped; what is finished is kept, and the same command goes on from there"


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


class Boundary(TyperGroup):
    """The process boundary: exceptions that are meant for people become a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        terminal.set_volume(0)
        terminal.set_json(False)
        try:
            with _terminable():
                return super().invoke(ctx)
        except RecipeError as error:
            _end(error, str(error), 2)
        except PretrainError as error:
            _end(error, str(error), 1)
        except BrokenPipeError:
            raise  # `pretrain inspect ... | head`: typer ends quietly
        except OSError as error:
            if stopped := _stop_behind(error):
                _end(stopped, _RESUME, _stop_code(stopped))
            _end(error, _describe(error), 1)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in _OURS:
                raise
            _end(error, f"the library `{error.name}` is missing; install pretrain with its extras (README.md)", 1)
        except Interrupted as stopped:
            _end(stopped, str(stopped), 128 + stopped.signal)
        except KeyboardInterrupt as stopped:
            _end(stopped, _RESUME, _stop_code(stopped))


def _common(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            expose_value=False,
            callback=lambda chosen: terminal.set_volume(-1) if chosen else None,
            help="Tell no progress, only errors.",
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            expose_value=False,
            callback=lambda chosen: terminal.set_volume(1) if chosen else None,
            help="Tell more: every rule's drops, every checkpoint.",
        ),
    ] = False,
) -> None:
    """The options that every command has."""


_COMMON = typer.Typer(add_completion=False)
_COMMON.command()(_common)


class Command(TyperCommand):
    """A command with the options that all have."""

    def __init__(self, name: str | None, *, params: Any = None, **rest: Any) -> None:
        super().__init__(name, params=[*(params or []), *typer.main.get_command(_COMMON).params], **rest)


app = typer.Typer(
    name="pretrain",
    cls=Boundary,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One recipe turns raw web archives into a base model that runs on your own machine.",
)
for command in (
    run.run,
    run.corpus,
    run.train,
    recipe.check,
    recipe.plan,
    recipe.schema,
    recipe.harvest,
    inspect.inspect,
    provenance.trace,
    export.export,
    evaluate.generate,
    evaluate.chat,
    report.report,
    status.status,
    ablate.ablate,
):
    app.command(cls=Command)(command)
app.command("eval", cls=Command)(evaluate.evaluate)
app.command("import", cls=Command)(export.import_model)
app.add_typer(prepare.app_quality_model, name="quality-model")
app.add_typer(prepare.app)


def main() -> None:
    """Entry point of the command `pretrain`."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # documents hold any character
    app()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that workers end and temporary files go."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The signal during whose handling an error came up, e.g. while workers that had ended already were stopped."""
    while error:
        if isinstance(error, KeyboardInterrupt):
            return error
        error = error.__context__
    return None


def _stop_code(stopped: KeyboardInterrupt) -> int:
    return 128 + (signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT)


def _describe(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.filename:
        text = f"{error.filename}: {text}"
    if error.errno == errno.ENOSPC:
        return f"{text}; free some space, then the same command goes on with what is finished"
    return text


def _end(error: BaseException, message: str, code: int) -> None:
    """Print a message with the error's notes and leave with an exit code."""
    from cli.terminal import errors

    text = "\n".join([message, *getattr(error, "__notes__", [])])
    errors().print(text, style="red" if code < 128 else None, soft_wrap=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
