"""Shared by the scripts of benchmarks/: options, the line on machine and versions, tables, bars, and the result.

A script backs one claim. It prints a table and ends with one line of JSON, {"name": ..., "bars": {title: {"value",
"bar", "holds"}}}; it exits with 1 if a bar does not hold, and with 2 if it could not measure.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"  # real data next to the checkout


class Bar(NamedTuple):
    """A measured value and the bar that it is held to."""

    value: float
    bar: float
    holds: bool


def at_least(value: float, bar: float) -> Bar:
    return Bar(float(value), bar, bool(value >= bar))


def at_most(value: float, bar: float) -> Bar:
    return Bar(float(value), bar, bool(value <= bar))


def options(description: str | None, quick: str | None = "smaller input, ends within a minute") -> ArgumentParser:
    """A parser whose --help shows the script's docstring, with --quick unless `quick` (its help text) is None."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def show_machine(*packages: str) -> None:
    """Print processor, vector instructions that the figures depend on, Python, and the packages' versions."""
    print(f"{processor()}; Python {platform.python_version()}", *map(_versioned, packages), sep=", ", flush=True)


def processor() -> str:
    """Model and cores of the processor, and which of AVX-512 and AMX it has."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    model = re.search(r"model name\s*:\s*(.+)", text)
    flags = set((re.search(r"^flags\s*:\s*(.+)", text, re.MULTILINE) or [""])[0].split())
    vectors = {"AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 BF16": "avx512_bf16", "AMX": "amx_tile"}
    known = " ".join(name for name, flag in vectors.items() if flag in flags)
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {known or 'no AVX2'}"


def _versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def table(first: str, columns: dict[str, str], width: int = 16) -> Callable[..., None]:
    """Print a table's header; returns a function that prints a row.

    first: title of the first column, `width` characters wide, left-aligned. columns: {title: number format, such as
    ".1f" or ",.0f"}, right-aligned; a text in a row is printed as it is.
    """
    widths = [max(len(title), 9) for title in columns]

    def row(name: object, *values: object) -> None:
        cells = [
            f"{value if isinstance(value, str) else format(value, form):>{size}}"
            for value, form, size in zip(values, columns.values(), widths, strict=True)
        ]
        print(f"{name!s:<{width}}", *cells, sep="  ", flush=True)

    row(first, *columns)
    return row


def finite(value: float, what: str) -> float:
    """The value. Raises FloatingPointError where it is none: then what was timed is no training."""
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} is {value}: not a training, nothing measured")
    return float(value)


def finish(name: str, bars: dict[str, Bar], **more: Any) -> int:
    """Print the result as the last line, with the fields `more` before the bars; returns the exit code."""
    for title, bar in bars.items():
        if not math.isfinite(bar.value):
            print(f"{name}: `{title}` is {bar.value}: not a measurement, no result", file=sys.stderr)
            return 2
    figures = {title: bar._asdict() | {"value": round(bar.value, 4)} for title, bar in bars.items()}
    print(json.dumps({"name": name, **more, "bars": figures}, allow_nan=False))
    return 0 if all(bar.holds for bar in bars.values()) else 1


def blank_columns(schema: Any, rows: int) -> dict[str, Any]:
    """Columns of a pyarrow schema: empty texts, and nulls of any other type."""
    import pyarrow as pa

    return {
        field.name: pa.array([""] * rows) if field.type == pa.string() else pa.nulls(rows, field.type)
        for field in schema
    }
