"""Where the command line writes, and how it writes numbers, sizes, times and other people's text.

Progress and errors go to stderr, results to stdout, so `pretrain run ... > log` keeps the results alone. A
terminal gets colours and bars; a pipe gets plain lines. Rich honours NO_COLOR, FORCE_COLOR and COLUMNS.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console

_PIPE_WIDTH = 120


def results() -> Console:
    """Console on stdout, for what a command was asked for."""
    return _console(stderr=False)


def messages() -> Console:
    """Console on stderr, for progress and errors."""
    return _console(stderr=True)


def printable(text: str) -> str:
    """Other people's text without control characters (terminal escapes among them); lines are kept."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


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
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
