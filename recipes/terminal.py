"""Where the command line writes, and how it writes numbers, sizes, times and other people's text.

Progress and errors go to stderr, results to stdout, so `pretrain run ... > log` keeps the results alone. A
terminal gets colours and bars; a pipe gets plain lines. Rich honours NO_COLOR, FORCE_COLOR and COLUMNS. Every command
takes --quiet (no progress, errors still) and -v (more of it).
"""

from __future__ import annotations

import json
import os
import sys
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

_PIPE_WIDTH = 120
_volume = 0
_json = False


def set_volume(level: int) -> None:
    """How much progress is told: -1 none, 0 as usual, 1 also what only the logs would hold."""
    global _volume
    _volume = level


def set_json(chosen: bool) -> None:
    """Whether the result is wanted as JSON instead of tables."""
    global _json
    _json = chosen


def verbose() -> bool:
    """Whether more than usual was asked for."""
    return _volume > 0


def results() -> Console:
    """Console on stdout, for what a command was asked for."""
    return _console(stderr=False)


def tables() -> Console:
    """Console on stdout for what people read of a result; silent with --json."""
    console = results()
    console.quiet = _json
    return console


def messages() -> Console:
    """Console on stderr, for progress; silent with --quiet."""
    console = _console(stderr=True)
    console.quiet = _volume < 0
    return console


def errors() -> Console:
    """Console on stderr, for what ended the command; never silent."""
    return _console(stderr=True)


def make_table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the one look that all have; the first column stands left, the others right, for numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=title, title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=number > 0)
    return table


class View:
    """Lines on a console and, on a terminal, one bar below them; as a context manager it leaves no bar behind."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_bar()

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(line, soft_wrap=True)

    def start_bar(self, name: str, total: float, completed: int = 0, *columns: ProgressColumn) -> None:
        """Show a bar where the console is a terminal."""
        if self.console.is_terminal and not self.console.quiet:
            shown = TextColumn("{task.description:<9}"), BarColumn(), *columns, TextColumn("{task.fields[state]}")
            self._bars = Bars(*shown, console=self.console, transient=True)
            self._bars.add_task(name, total=total, completed=completed, state="")
            self._bars.start()

    def move_bar(self, completed: float, state: str) -> bool:
        """Move the bar and say beside it how things stand. Returns whether there is a bar."""
        if self._bars:
            self._bars.update(self._bars.task_ids[0], completed=completed, state=state)
        return self._bars is not None

    def stop_bar(self) -> None:
        """Remove the bar."""
        if self._bars:
            self._bars.stop()
            self._bars = None


def printable(text: str) -> str:
    """Other people's text without control characters (terminal escapes among them); lines are kept."""
    unwanted = {character for character in set(text) if not character.isprintable()} - {"\n", "\t"}
    return text.translate({ord(character): None for character in unwanted}) if unwanted else text


def clean(text: str, limit: int | None = None) -> str:
    """Other people's text on one printable line, cut to `limit` characters."""
    line = printable(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def megabytes(size: float) -> str:
    """Bytes as MB (10^6) with as many digits as tell something."""
    value = size / 1e6
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.1f} MB" if value >= 1 else f"{value:.3f} MB"


def duration(seconds: float) -> str:
    """Seconds as `0.4 s`, `12 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def remaining(seconds: float, fraction: float) -> str:
    """Time left when `fraction` of the work took `seconds`; empty at the very start and at the end."""
    return f"{duration(seconds * (1 - fraction) / fraction)} left" if 0.01 < fraction < 1 else ""


def print_json(value: Any) -> None:
    """A result for other programs: JSON on stdout, as it is."""
    results().print(json.dumps(value, indent=1, ensure_ascii=False), soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
