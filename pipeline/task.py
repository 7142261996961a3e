"""Passes and their tasks: receipts, progress, verdicts on documents.

A stage is one or more passes; a pass is a datatrove `PipelineStep` that an executor runs once for each of its tasks. A
task writes its files, then a receipt that lists them with hashes and holds the task's counts. A task with a valid
receipt is not run again, so a killed pass resumes with the tasks that are left; datatrove's own completion markers,
which know only the rank, are not used.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
from datatrove.pipeline.base import PipelineStep

from common.errors import PipelineError
from common.files import hash_file, read_json, write_json
from pipeline.crashes import Record
from pipeline.documents import (
    DROP_FIELDS,
    Counts,
    add_counts,
    append_columns,
    count_documents,
    parquet_file,
    read_batches,
    read_rows,
    read_schema,
    text_bytes,
)

HEARTBEAT_SECONDS = 0.5


@dataclass
class TaskReport:
    """Result of a task. counts: of the stage's stats.json; notes: counts for later passes alone; files: written."""

    counts: Counts = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    notes: Counts = field(default_factory=dict)


class Task:
    """What a running task is given: it reports its progress here, and reads documents.

    progress: file for its progress, rewritten twice a second at most; record: file for the document at hand, in a
    search for the one that crashes the task.
    """

    def __init__(self, progress: Path, record: Record | None = None) -> None:
        self.record = record
        self._progress = progress
        self._documents = self._bytes = 0
        self._next = 0.0

    def beat(self, documents: int, size: int, fraction: float) -> None:
        """Add documents and bytes of text just read; `fraction` of the task is now done."""
        self._documents += documents
        self._bytes += size
        now = time.monotonic()
        if now >= self._next or fraction >= 1.0:
            self._next = now + HEARTBEAT_SECONDS
            self._progress.write_text(f"{self._documents} {self._bytes} {fraction:.4f}", encoding="ascii")

    def read(self, path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """`read_batches`; in a search for a crash one document at a time, each recorded while it is worked on."""
        if self.record is None:
            yield from read_batches(path, columns)
            return
        for row, table in enumerate(read_batches(path, columns, rows=1)):
            self.record.write(str(path), row)
            yield table
            self.record.clear()


class Pass(PipelineStep):  # type: ignore[misc]  # datatrove is untyped
    """One pass of a stage. Subclasses implement `process`; it may run in any process, in any order."""

    type = "corpus"

    def __init__(self, name: str, workdir: Path, tasks: int) -> None:
        self.name = name
        super().__init__()
        self.workdir = workdir
        self.tasks = tasks

    @abstractmethod
    def process(self, rank: int, task: Task) -> TaskReport:
        """Do task `rank`, writing files below the work folder."""

    def weight(self, rank: int) -> float:
        """Size of task `rank` relative to the others, for the progress bar."""
        return 1.0

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Do the task unless it has a receipt whose files still have the same content."""
        if self.receipt(rank) is not None:
            return
        path = self.progress_path(rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        report = self.process(rank, Task(path))
        files = {str(file.relative_to(self.workdir)): hash_file(file) for file in report.files}
        write_json(self._receipt_path(rank), {"counts": report.counts, "notes": report.notes, "files": files})

    def receipt(self, rank: int) -> dict[str, Any] | None:
        """{counts, notes, files} of a finished task, or None where it must run (again)."""
        path = self._receipt_path(rank)
        if not path.is_file():
            return None
        receipt: dict[str, Any] = read_json(path)
        for name, expected in receipt["files"].items():
            file = self.workdir / name
            if not file.is_file() or hash_file(file) != expected:
                path.unlink()
                return None
        return receipt

    def unfinished(self) -> list[int]:
        """Ranks of the tasks without a valid receipt."""
        return [rank for rank in range(self.tasks) if self.receipt(rank) is None]

    def total(self, kind: Literal["counts", "notes"]) -> Counts:
        """Sum of the counts or notes of all tasks. Raises PipelineError where one is not finished."""
        total = Counts()
        for rank in range(self.tasks):
            receipt = self.receipt(rank)
            if receipt is None:
                raise PipelineError(f"task {rank} of pass `{self.name}` has no receipt; run the recipe again")
            add_counts(total, receipt[kind])
        return total

    def progress_path(self, rank: int) -> Path:
        """File with `documents bytes fraction` of a task that runs or has run."""
        return self.workdir / ".progress" / f"{self.name}-{rank:05d}"

    def _receipt_path(self, rank: int) -> Path:
        return self.workdir / ".receipts" / f"{self.name}-{rank:05d}.json"


class FilesPass(Pass):
    """A pass over parquet files. files: those of each task."""

    def __init__(self, name: str, workdir: Path, files: Sequence[Sequence[Path]]) -> None:
        super().__init__(name, workdir, len(files))
        self.files = files

    def weight(self, rank: int) -> float:
        return float(sum(path.stat().st_size for path in self.files[rank]))

    def read(self, rank: int, task: Task, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The documents of a task's files, with those of `columns` that exist; reports progress."""
        paths = self.files[rank]
        total, seen = max(sum(map(read_rows, paths)), 1), 0
        for path in paths:
            present = columns and [name for name in read_schema(path).names if name in columns]
            for table in task.read(path, present):
                yield table
                seen += table.num_rows
                task.beat(table.num_rows, text_bytes(table), seen / total)


class Verdict(NamedTuple):
    """Why a document is dropped: the rule, the value that broke it, the rule's threshold, and what else helps."""

    rule: str
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None


Verdicts = Sequence[Verdict | None]  # of a table's documents in order, None for those kept


@dataclass
class VerdictWriter:
    """Writes kept and dropped documents of one task, in input order, and counts them."""

    stage: str
    files: list[Path]
    write_kept: Callable[[pa.Table], None]
    write_dropped: Callable[[pa.Table], None]
    counts: Counts = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(cls, workdir: Path, stage: str, rank: int, schema: pa.Schema) -> Iterator[Self]:
        """Writer of data/NNNNN.parquet with `schema` and dropped/NNNNN.parquet with DROP_FIELDS after it."""
        files = [workdir / f"{side}/{rank:05d}.parquet" for side in ("data", "dropped")]
        with (
            parquet_file(files[0], schema) as write_kept,
            parquet_file(files[1], pa.schema([*schema, *DROP_FIELDS])) as write_dropped,
        ):
            yield cls(stage, files, write_kept, write_dropped)

    def write(self, table: pa.Table, verdicts: Verdicts) -> None:
        """Append a table's documents to the two files."""
        is_kept = pa.array([verdict is None for verdict in verdicts], pa.bool_())
        kept = table.filter(is_kept)
        dropped = [(self.stage, *verdict) for verdict in verdicts if verdict is not None]
        self.write_kept(kept)
        if dropped:
            rejected = table.filter(pc.invert(is_kept))
            self.write_dropped(append_columns(rejected, DROP_FIELDS, zip(*dropped, strict=True)))
        add_counts(self.counts, count_documents("in", table))
        add_counts(self.counts, count_documents("kept", kept))
        rules = Counter(verdict.rule for verdict in verdicts if verdict is not None)
        add_counts(self.counts, {"documents_dropped": len(dropped), "dropped": rules})


class Judge(ABC):
    """What one task of a `DocumentPass` knows while it runs."""

    @abstractmethod
    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        """The next documents with the added columns, and a verdict on each; kept ones may get another text."""

    def report(self) -> TaskReport:
        """Counts, files and notes besides those of the documents."""
        return TaskReport()


class DocumentPass(FilesPass):
    """A pass with one task per input file that adds columns, and keeps or drops each document."""

    def __init__(self, stage: str, workdir: Path, inputs: Sequence[Path], added: Sequence[pa.Field] = ()) -> None:
        super().__init__(stage, workdir, [[path] for path in inputs])
        self.inputs = inputs
        self.added = added

    @abstractmethod
    def open(self, rank: int) -> Judge:
        """A judge of the documents of input file `rank`."""

    def process(self, rank: int, task: Task) -> TaskReport:
        judge = self.open(rank)
        schema = pa.schema([*read_schema(self.inputs[rank]), *self.added])
        with VerdictWriter.open(self.workdir, self.name, rank, schema) as writer:
            for table in self.read(rank, task):
                writer.write(*judge.judge(table))
        more = judge.report()
        add_counts(writer.counts, more.counts)
        return TaskReport(writer.counts, [*writer.files, *more.files], more.notes)
