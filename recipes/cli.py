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
from typing import Any

import typer
from typer.core import TyperGroup

from pipeline.errors import PipelineError
from recipes import build, evaluate, export, generate, look, trace
from recipes.errors import RecipeError
from trainer.errors import Interrupted, TrainerError

_OURS = {"pipeline", "trainer", "recipes"}
_RESUME = "stopped; what is finished is kept, and the same command goes on from there"


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


class Boundary(TyperGroup):
    """The process boundary: exceptions that are meant for people become a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with _terminable():
                return super().invoke(ctx)
        except RecipeError as error:
            _end(error, str(error), 2)
        except (PipelineError, TrainerError) as error:
            _end(error, str(error), 1)
        except BrokenPipeError:
            raise  # `pretrain inspect ... | head`: typer ends quietly
        except OSError as error:
            _end(error, _describe(error), 1)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in _OURS:
                raise
            _end(error, f"the library `{error.name}` is missing; install pretrain with its extras (README.md)", 1)
        except Interrupted as stopped:
            _end(stopped, str(stopped), 128 + stopped.signal)
        except KeyboardInterrupt as stopped:
            _end(stopped, _RESUME, 128 + (signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT))


app = typer.Typer(
    name="pretrain",
    cls=Boundary,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One recipe turns raw web archives into a base model that runs on your own machine.",
)
for command in (
    build.run,
    build.corpus,
    build.train,
    look.check,
    look.schema,
    look.harvest,
    look.inspect,
    trace.trace,
    export.export,
    generate.generate,
    generate.chat,
):
    app.command()(command)
app.command("eval")(evaluate.evaluate)
app.command("import")(export.import_model)


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


def _describe(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.filename:
        text = f"{error.filename}: {text}"
    if error.errno == errno.ENOSPC:
        return f"{text}; free some space, then the same command goes on with what is finished"
    return text


def _end(error: BaseException, message: str, code: int) -> None:
    """Print a message with the error's notes and leave with an exit code."""
    from recipes.terminal import messages

    text = "\n".join([message, *getattr(error, "__notes__", [])])
    messages().print(text, style="red" if code < 128 else None, soft_wrap=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
