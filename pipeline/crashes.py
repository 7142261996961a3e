"""Find the document that crashes the process which works on it, and build the stage without it.

A task that dies or fails on every attempt is run twice more with a `Record`, a file that names the document at hand
and so outlives the process. Where both runs end at the same document, it is to blame. It is left out of the stage's
input and written among its dropped documents by rule `crashed`, so that in = kept + dropped holds; the result depends
neither on the executor nor on how the process died. Costs nothing until a task has failed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import PretrainError
from common.files import atomic_file, read_json, write_json
from pipeline.documents import (
    DROP_FIELDS,
    TEXTS,
    Counts,
    Texts,
    count_documents,
    parquet_file,
    read_schema,
    text_source,
)

RULE = "crashed"
INPUTS = Path(".crashed/input/data")  # in a work folder: input files without documents that are left out
DETAIL = "crashed its worker process on every attempt"
DETAIL_READING = "reading past this point crashed the worker on every attempt"


@dataclass(frozen=True, order=True)
class Position:
    """Position of a reader: at a document, or (`reading`) past it, on the way to the next.

    file: key of an input file, or path of a parquet file; offset: of a raw document (-1: none was read yet), or row
    number.
    """

    file: str
    offset: int
    reading: bool = False


class Record:
    """File that names the document at hand; written in a search for a crash only."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, file: str, offset: int, *, reading: bool = False) -> None:
        """The task is now at this `Position`."""
        os.pwrite(self._descriptor, json.dumps([file, offset, reading]).encode() + b"\n", 0)

    def clear(self) -> None:
        """The task works on no document."""
        self.write("", -1)


@contextmanager
def recording(path: Path) -> Iterator[Record]:
    """A record at `path`, which remains only where a document may have ended the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        yield Record(descriptor)
        path.unlink()
    except (PretrainError, OSError) as error:
        if is_final(error):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def is_final(error: BaseException | None) -> bool:
    """Whether no document is to blame for a task's error: a message for people, a full disk."""
    wants_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, (PretrainError, OSError)) and not wants_memory


def recorded(path: Path) -> Position | None:
    """Where the process that left this record ended; None where no document is to blame."""
    line = path.read_bytes().partition(b"\n")[0] if path.is_file() else b""
    position = Position(*json.loads(line)) if line else None
    return position if position and position.file else None


def read_positions(workdir: Path) -> tuple[Position, ...]:
    """The documents that this building of a stage leaves out."""
    path = workdir / ".crashed/positions.json"
    return tuple(Position(**entry) for entry in read_json(path)) if path.is_file() else ()


def leave_out(workdir: Path, positions: Iterable[Position], *, afresh: bool) -> None:
    """Leave these documents out from now on. `afresh`: discard the results of other tasks, too."""
    if afresh:
        shutil.rmtree(workdir)
    write_json(workdir / ".crashed/positions.json", [asdict(position) for position in sorted(positions)])


def without(inputs: tuple[Path, ...], positions: tuple[Position, ...], workdir: Path) -> tuple[Path, ...]:
    """The stage's input files; for each with documents left out one without them, in the work folder's INPUTS."""
    files = {path.name: path for path in inputs}
    for name in {position.file for position in positions} & files.keys():
        path, rows = files[name], [position.offset for position in positions if position.file == name]
        table, source = pq.read_table(path), text_source(path)
        kept = table.filter(pa.array(np.isin(np.arange(table.num_rows), rows, invert=True)))
        files[name] = workdir / INPUTS / name
        texts = {TEXTS: os.path.relpath(source, files[name].parent)} if source else None
        with atomic_file(files[name]) as file:
            pq.write_table(kept.replace_schema_metadata(texts), file)
    return tuple(files.values())


def original(position: Position, positions: tuple[Position, ...]) -> Position:
    """A position in a file of `without`, as a position in the stage's own input."""
    row, name = position.offset, Path(position.file).name
    for other in sorted(positions):
        row += other.file == name and other.offset <= row
    return Position(name, row)


def left_out(inputs: Sequence[Path], positions: tuple[Position, ...]) -> Iterator[pa.Table]:
    """The rows left out, a table for each file that has some."""
    for path in inputs:
        rows = [position.offset for position in sorted(positions) if position.file == path.name]
        if rows:
            table, texts = pq.read_table(path).take(rows), Texts.of(path)
            yield (texts.fill(table) if texts else table).replace_schema_metadata(None)


def write_left_out(workdir: Path, stage: str, inputs: Sequence[Path], positions: tuple[Position, ...]) -> Counts:
    """Write the rows left out of a stage's input to dropped/crashed.parquet. Returns their counts."""
    tables = list(left_out(inputs, positions))
    if not tables:
        return {}
    table = pa.concat_tables(tables)
    others = sorted((workdir / "dropped").glob("*.parquet"))
    schema = read_schema(others[0]) if others else pa.schema([*table.schema, *DROP_FIELDS])
    reasons = {"stage": stage, "rule": RULE, "detail": DETAIL, "failed_rules": RULE}
    for column in schema:
        if column.name not in table.column_names:
            value = pa.scalar(reasons.get(column.name), column.type)
            table = table.append_column(column, pa.repeat(value, table.num_rows))
    with parquet_file(workdir / "dropped/crashed.parquet", schema) as write:
        write(table)
    dropped = {"documents_dropped": table.num_rows, "dropped": {RULE: table.num_rows}}
    return {**count_documents("in", table), **dropped}
