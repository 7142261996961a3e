"""The table of the commands of `pretrain`, and the one place where results and errors are printed.

    0    done
    1    the work failed (a damaged file, a full disk, an unusable model): the message says what to do
    2    bad usage or a bad recipe
    130  stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 138 by SIGUSR1; the same command resumes

A command returns a `Result`, which is printed as JSON (--json) or for people. Errors meant for people become a message
and an exit code; any other exception is a bug and keeps its traceback. Commands import what they need when they run, so
`pretrain --help` and `pretrain check` load no heavy library.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

from cli import ablate, blame, evaluate, export, forget, inspect, mix, prepare, recipe, reproduce, run, status, terminal
from cli.options import Result, common_options
from common.errors import Interrupted, PretrainError, RecipeError
from common.runfolder import RunFolder

T = TypeVar("T")
_OURS = {"common", "pipeline", "trainer", "recipes", "cli", "data"}
_RESUME = "stopped; finished work is kept, and the same command resumes from there"


class Terminated(KeyboardInterrupt):
    def __init__(self, number: int = signal.SIGTERM) -> None:
        self.signal = number


class Boundary(TyperGroup):
    """The process boundary: turns exceptions meant for people into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        terminal.CHOICES.set(terminal.Choices())
        try:
            with _terminable():
                return super().invoke(ctx)
        except RecipeError as error:
            _end(error, str(error), 2)
        except PretrainError as error:
            _end(error, str(error), 1)
        except BrokenPipeError:  # `pretrain inspect ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python flushes at its end
        except OSError as error:
            if stopped := _stop_behind(error):
                _end(stopped, _RESUME, _stop_code(stopped))
            _end(error, _describe(error), 1)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in _OURS:
                raise
            _end(error, f"the library `{error.name}` is not installed; install pretrain with its extras (README.md)", 1)
        except Interrupted as stopped:
            _end(stopped, str(stopped), 128 + stopped.signal)
        except KeyboardInterrupt as stopped:
            _end(stopped, _RESUME, _stop_code(stopped))


_COMMON = typer.Typer(add_completion=False)
_COMMON.command()(common_options)


class Command(TyperCommand):
    """A command with the options that all have; prints the result that it returns."""

    def __init__(self, name: str | None, *, params: Any = None, **rest: Any) -> None:
        super().__init__(name, params=[*(params or []), *typer.main.get_command(_COMMON).params], **rest)

    def invoke(self, ctx: Any) -> None:
        for value in ctx.params.values():
            if isinstance(value, RunFolder) and not value.path.is_dir():
                raise RecipeError(f"{value.path}: not a run folder: it does not exist; `pretrain run RECIPE` makes one")
        result: Result | None = super().invoke(ctx)
        if result is None:
            return
        if terminal.choices().json:
            typer.echo(json.dumps(result.value, indent=1, ensure_ascii=False))
        else:
            terminal.show(*result.parts)
        if result.error:
            raise result.error


app = typer.Typer(
    name="pretrain",
    cls=Boundary,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One recipe turns raw web archives into a base model that runs on your own machine.",
)
shards = typer.Typer(no_args_is_help=True, help="Check shards, look into them, or make them of your own text.")
quality_model = typer.Typer(no_args_is_help=True, help="Train classifiers for the quality stage.")
for group, name, command in (
    (app, "run", run.run),
    (app, "corpus", run.corpus),
    (app, "train", run.train),
    (app, "check", recipe.check),
    (app, "plan", recipe.plan),
    (app, "schema", recipe.schema),
    (app, "status", status.status),
    (app, "report", status.report),
    (app, "inspect", inspect.inspect),
    (app, "trace", inspect.trace),
    (app, "blame", blame.blame),
    (app, "forget", forget.forget),
    (app, "eval", evaluate.evaluate),
    (app, "generate", evaluate.generate),
    (app, "export", export.export),
    (app, "verify", reproduce.verify),
    (app, "import", export.import_model),
    (app, "ablate", ablate.ablate),
    (app, "mix", mix.mix),
    (app, "harvest", prepare.harvest),
    (shards, "verify", prepare.verify_shards),
    (shards, "show", prepare.show_sample),
    (shards, "from-jsonl", prepare.make_shards),
    (quality_model, "train", prepare.train_quality_model),
):
    group.command(name, cls=Command)(command)
app.add_typer(shards, name="shards")
app.add_typer(quality_model, name="quality-model")


def run_command() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # documents hold any character
    sys.stderr = cast("TextIO", Messages(sys.stderr))
    app()


class Messages:
    """stderr that goes silent where nobody reads it or its disk is full: messages must not end the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            return None


@contextmanager
def _terminable() -> Iterator[None]:
    """Make signals raise as Ctrl-C does, so that workers end and temporary files are removed; nohup's stays ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The signal during whose handling `error` was raised, e.g. while stopping workers that had already ended."""
    while error:
        if isinstance(error, KeyboardInterrupt):
            return error
        error = error.__context__
    return None


def _stop_code(stopped: KeyboardInterrupt) -> int:
    return 128 + (stopped.signal if isinstance(stopped, Terminated) else signal.SIGINT)


def _describe(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.filename:
        text = f"{error.filename}: {text}"
    if error.errno == errno.ENOSPC:
        return f"{text}; free some space, then run the same command again: it resumes"
    return text


def _end(error: BaseException, message: str, code: int) -> None:
    """Print a message with the error's notes and leave with an exit code."""
    text = "\n".join([message, *getattr(error, "__notes__", [])])
    terminal.make_console(stderr=True).print(text, style="red" if code < 128 else None, soft_wrap=True)
    raise typer.Exit(code)
