"""The datatrove step that all stages are made of: tasks with receipts, counts, and a heartbeat.

A stage is one or more passes; a pass is a `CorpusStep` that a datatrove executor runs once per task. A task
writes its files, then a receipt that lists them with hashes and holds the task's counts. A task whose receipt
holds is not run again, so a killed pass goes on where it was; datatrove's own completion markers, which know
only the rank, are not used. Counts are nested dictionaries of integers that add up over tasks in any order.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from common.files import hash_file, read_json, write_json
from pipeline.crashes import DETAIL, RULE, Place, left_out
from pipeline.documents import DROP_FIELDS, ParquetFile, read_batches, read_rows, read_schema, text_bytes

# datatrove logs every task to the terminal; what matters reaches the observer and the run's own log.
logger.disable("datatrove")

HEARTBEAT_SECONDS = 0.5
Counts = dict[str, Any]


@dataclass
class TaskReport:
    """What a task did: counts that add up over tasks, and the files that it wrote."""

    counts: Counts = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


@dataclass
class Heartbeat:
    """Tells the main process how far a task is, by a small file that is rewritten twice a second at most."""

    path: Path
    documents: int = 0
    bytes: int = 0
    _next: float = 0.0

    def beat(self, documents: int, size: int, fraction: float) -> None:
        """Add documents and bytes of text just read; `fraction` of the task is now done."""
        self.documents += documents
        self.bytes += size
        now = time.monotonic()
        if now >= self._next or fraction >= 1.0:
            self._next = now + HEARTBEAT_SECONDS
            self.path.write_text(f"{self.documents} {self.bytes} {fraction:.4f}", encoding="ascii")


class CorpusStep(PipelineStep):  # type: ignore[misc]  # datatrove is untyped
    """One pass of a stage. Subclasses implement `process`; it may run in any process, in any order."""

    type = "corpus"

    def __init__(self, name: str, workdir: Path, tasks: int) -> None:
        self.name = name
        super().__init__()
        self.workdir = workdir
        self.tasks = tasks

    @abstractmethod
    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        """Do task `rank`, writing files below the work folder."""

    def weight(self, rank: int) -> float:
        """Size of task `rank` relative to the others, for the progress bar."""
        return 1.0

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Do the task unless its receipt says that it is done and its files are still what they were."""
        if self.receipt(rank) is not None:
            return
        beats = self.workdir / ".progress"
        beats.mkdir(parents=True, exist_ok=True)
        report = self.process(rank, Heartbeat(beats / f"{self.name}-{rank:05d}"))
        files = {str(file.relative_to(self.workdir)): hash_file(file) for file in report.files}
        write_json(self._receipt_path(rank), {"counts": report.counts, "files": files})

    def receipt(self, rank: int) -> Counts | None:
        """Counts of a finished task, or None where it must run (again)."""
        path = self._receipt_path(rank)
        if not path.is_file():
            return None
        receipt = read_json(path)
        for name, expected in receipt["files"].items():
            file = self.workdir / name
            if not file.is_file() or hash_file(file) != expected:
                path.unlink()
                return None
        counts: Counts = receipt["counts"]
        return counts

    def _receipt_path(self, rank: int) -> Path:
        return self.workdir / ".receipts" / f"{self.name}-{rank:05d}.json"


@dataclass
class Verdicts:
    """A table of documents and what becomes of each: `rules[i]` is None where document i is kept."""

    table: pa.Table
    rules: list[str | None]
    values: list[float | None]
    thresholds: list[float | None]
    details: list[str | None]


class VerdictWriter:
    """Writes kept and dropped documents of one task, in input order, and counts them.

    Files: data/NNNNN.parquet with `schema`, dropped/NNNNN.parquet with DROP_FIELDS after it.
    """

    def __init__(self, workdir: Path, stage: str, rank: int, schema: pa.Schema) -> None:
        self.stage = stage
        self.counts = Counts()
        self.files = [workdir / f"data/{rank:05d}.parquet", workdir / f"dropped/{rank:05d}.parquet"]
        self._kept = ParquetFile(self.files[0], schema)
        self._dropped = ParquetFile(self.files[1], pa.schema([*schema, *DROP_FIELDS]))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._kept)
        self._stack.enter_context(self._dropped)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, verdicts: Verdicts) -> None:
        """Append a table's documents to the two files."""
        kept = pa.array([rule is None for rule in verdicts.rules], pa.bool_())
        survivors = verdicts.table.filter(kept)
        reasons = [verdicts.rules, verdicts.values, verdicts.thresholds, verdicts.details]
        rejected = verdicts.table
        for drop_field, column in zip(DROP_FIELDS, [[self.stage] * len(kept), *reasons], strict=True):
            rejected = rejected.append_column(drop_field, pa.array(column, drop_field.type))
        rejected = rejected.filter(pc.invert(kept))
        self._kept.write(survivors)
        self._dropped.write(rejected)
        add_counts(self.counts, count_documents("in", verdicts.table))
        add_counts(self.counts, count_documents("kept", survivors))
        add_counts(self.counts, {"documents_dropped": rejected.num_rows})
        for rule in rejected["rule"].to_pylist():
            add_counts(self.counts, {"dropped": {rule: 1}})


def write_left_out(workdir: Path, stage: str, inputs: tuple[Path, ...], places: tuple[Place, ...]) -> Counts:
    """Write the rows left out of a stage's input to dropped/crashed.parquet. Returns their counts."""
    tables = list(left_out(inputs, places))
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
    with ParquetFile(workdir / "dropped/crashed.parquet", schema) as file:
        file.write(table)
    return {
        **count_documents("in", table),
        "documents_dropped": table.num_rows,
        "dropped": {RULE: table.num_rows},
    }


class DocumentStep(CorpusStep):
    """A pass with one task per input parquet file that adds columns, and keeps or drops each document."""

    def __init__(self, stage: str, workdir: Path, inputs: Sequence[Path], added: Sequence[pa.Field] = ()) -> None:
        super().__init__(stage, workdir, len(inputs))
        self.inputs = inputs
        self.added = added

    @abstractmethod
    def judge(self, table: pa.Table, rank: int) -> Verdicts:
        """Verdicts on up to BATCH_ROWS documents, whose table carries the added columns."""

    def weight(self, rank: int) -> float:
        return float(self.inputs[rank].stat().st_size)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        total = max(read_rows(self.inputs[rank]), 1)
        schema = pa.schema([*read_schema(self.inputs[rank]), *self.added])
        with VerdictWriter(self.workdir, self.name, rank, schema) as writer:
            seen = 0
            for table in read_batches(self.inputs[rank]):
                writer.write(self.judge(table, rank))
                seen += table.num_rows
                heartbeat.beat(table.num_rows, text_bytes(table), seen / total)
        return TaskReport(writer.counts, writer.files)


def count_documents(side: str, table: pa.Table) -> Counts:
    """Counts of one table for `side` (in, kept): documents, text bytes, and documents by source."""
    by_source: Counts = {}
    for source in table["source"].to_pylist():
        by_source[source] = by_source.get(source, 0) + 1
    return {
        f"documents_{side}": table.num_rows,
        f"bytes_{side}": text_bytes(table),
        "sources": {source: {side: count} for source, count in by_source.items()},
    }


def add_counts(total: Counts, more: Counts) -> None:
    """Add `more` into `total`, key by key."""
    for key, value in more.items():
        if isinstance(value, dict):
            add_counts(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value
