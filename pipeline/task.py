"""Passes and their tasks: receipts, progress, verdicts on documents.

A stage is one or more passes; a pass is a datatrove `PipelineStep` that an executor runs once for each of its tasks. A
task writes its files, then a receipt that lists them with hashes and holds the task's counts. A task with a valid
receipt is not run again, so a killed pass resumes with the tasks that are left; datatrove's own completion markers,
which know only the rank, are not used.

A pass over documents (`DocumentPass`) may follow another: each document kept by the first is handed on in memory, so
one reading of it serves both stages, and each task leaves a receipt in the work folder of either. Such a receipt names
the hash of the file that the task would have read, by which a later start checks it.

In a stage that another follows, `text` is written only where the stage changed it (`pipeline.documents.TEXTS`), and
with a dropped document where the stage read it.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
from datatrove.pipeline.base import PipelineStep

from common.errors import PipelineError
from common.files import changed_files, describe, hash_file, missing_files, read_json, write_json
from pipeline.crashes import Record
from pipeline.documents import (
    DROP_FIELDS,
    TEXTS,
    Counts,
    Texts,
    add_counts,
    append_columns,
    count_documents,
    parquet_file,
    present_bytes,
    read_batches,
    read_rows,
    read_schema,
    regroup,
    replace_texts,
    text_bytes,
    text_sizes,
)

HEARTBEAT_SECONDS = 0.5
_CHANGED = "text written again"  # a column in memory; no stage has one of this name


@dataclass
class TaskReport:
    """Result of a task. counts: of the stage's stats.json; notes: counts for later passes alone; files: written.

    text_written: bytes of documents' texts in those files; seconds: of work; ahead: passes that followed, with theirs.
    """

    counts: Counts = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    notes: Counts = field(default_factory=dict)
    text_written: int = 0
    seconds: float = 0.0
    ahead: list[tuple[DocumentPass, TaskReport]] = field(default_factory=list)


class Task:
    """What a running task is given: it reports its progress here, and reads documents.

    progress: file for its progress, rewritten twice a second at most; record: file for the document at hand, in a
    search for the one that crashes the task.
    """

    def __init__(self, progress: Path, record: Record | None = None) -> None:
        self.record = record
        self.text_read = 0  # bytes of documents' texts
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

    def read(self, path: Path, columns: list[str] | None = None, *, fill: bool = True) -> Iterator[pa.Table]:
        """`read_batches`; in a search for a crash one document at a time, each recorded while it is worked on."""
        if self.record is None:
            yield from read_batches(path, columns, fill=fill, count=self.count_text)
            return
        for row, table in enumerate(read_batches(path, columns, rows=1, fill=fill, count=self.count_text)):
            self.record.write(str(path), row)
            yield table
            self.record.clear()

    def count_text(self, size: int) -> None:
        """Add bytes of text that were read."""
        self.text_read += size


class Pass(PipelineStep):  # type: ignore[misc]  # datatrove is untyped
    """One pass of a stage. Subclasses implement `process`; it may run in any process, in any order.

    ahead: passes of the next stages that take over each kept document in memory, where `process` offers them.
    """

    type = "corpus"
    ahead: tuple[DocumentPass, ...] = ()

    def __init__(self, name: str, workdir: Path, tasks: int) -> None:
        self.name = name
        super().__init__()
        self.workdir = workdir
        self.tasks = tasks

    @abstractmethod
    def process(self, rank: int, task: Task) -> TaskReport:
        """Do task `rank`, writing files below the work folder."""

    def reads(self, rank: int) -> Sequence[Path]:
        """Files of the run folder that task `rank` reads; a name may be a pattern, whose `*` takes a `/` too.

        With a run folder in object storage the task finds these alone, and the files that have their texts.
        """
        return ()

    def weight(self, rank: int) -> float:
        """Size of task `rank` relative to the others, for the progress bar."""
        return 1.0

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Do the task unless it has a receipt whose files still have the same content."""
        if self.receipt(rank, verify=True) is not None:
            return
        path = self.progress_path(rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        started, task = time.time(), Task(path)
        report = self.process(rank, task)
        seconds = time.time() - started
        before = report.files[0] if report.files else None
        for following, its in report.ahead:
            assert before is not None  # a pass that another follows writes the file which that one would read
            following.write_receipt(rank, its, input={"name": f"data/{before.name}", "xxh3": hash_file(before)})
            before = its.files[0]
        report.seconds = seconds - sum(its.seconds for _, its in report.ahead)
        self.write_receipt(rank, report, text_read=task.text_read, worked=[started, seconds])
        pa.default_memory_pool().release_unused()  # so that a process's peak is that of one task

    def write_receipt(self, rank: int, report: TaskReport, *, text_read: int = 0, **more: Any) -> None:
        """Enter task `rank` as finished."""
        files = {str(file.relative_to(self.workdir)): describe(file) for file in report.files}
        effort = {"seconds": report.seconds, "text_read": text_read, "text_written": report.text_written}
        entry = {"counts": report.counts, "notes": report.notes, "files": files, "effort": effort}
        write_json(self.receipt_path(rank), entry | more)

    def kept_schema(self) -> pa.Schema | None:
        """Columns of the documents that it keeps for the next stage; None of a pass that keeps none."""
        return None

    def receipt(self, rank: int, *, verify: bool = False) -> dict[str, Any] | None:
        """{counts, notes, files, effort} of a finished task, or None where it must run (again).

        verify: compare its files with their hashes, as is done once before a pass runs.
        """
        path = self.receipt_path(rank)
        if not path.is_file():
            return None
        receipt: dict[str, Any] = read_json(path)
        damaged = changed_files if verify else missing_files
        if damaged(self.workdir, receipt):
            path.unlink()
            return None
        return receipt

    def unfinished(self, *, verify: bool = True) -> list[int]:
        """Ranks of the tasks without a valid receipt."""
        return [rank for rank in range(self.tasks) if self.receipt(rank, verify=verify) is None]

    def receipts(self) -> Iterator[dict[str, Any]]:
        """Receipts of all tasks. Raises PipelineError where one is not finished."""
        for rank in range(self.tasks):
            receipt = self.receipt(rank)
            if receipt is None:
                raise PipelineError(f"task {rank} of pass `{self.name}` has no receipt; run the recipe again")
            yield receipt

    def total(self, kind: Literal["counts", "notes"]) -> Counts:
        """Sum of the counts or notes of all tasks. Raises PipelineError where one is not finished."""
        total = Counts()
        for receipt in self.receipts():
            add_counts(total, receipt[kind])
        return total

    def progress_path(self, rank: int) -> Path:
        """File with `documents bytes fraction` of a task that runs or has run."""
        return self.workdir / ".progress" / f"{self.name}-{rank:05d}"

    def receipt_path(self, rank: int) -> Path:
        return self.workdir / ".receipts" / f"{self.name}-{rank:05d}.json"


class FilesPass(Pass):
    """A pass over parquet files. files: those of each task."""

    def __init__(self, name: str, workdir: Path, files: Sequence[Sequence[Path]]) -> None:
        super().__init__(name, workdir, len(files))
        self.files = files

    def reads(self, rank: int) -> Sequence[Path]:
        return self.files[rank]

    def weight(self, rank: int) -> float:
        return float(sum(path.stat().st_size for path in self.files[rank]))

    def read(self, rank: int, task: Task, columns: list[str] | None = None, *, fill: bool = True) -> Iterator[pa.Table]:
        """The documents of a task's files, with those of `columns` that exist; reports progress.

        fill: with the texts that the files leave out.
        """
        paths = self.files[rank]
        total, seen = max(sum(map(read_rows, paths)), 1), 0
        for path in paths:
            present = columns and [name for name in read_schema(path).names if name in columns]
            for table in task.read(path, present, fill=fill):
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
    text_written: int = 0

    @classmethod
    @contextmanager
    def open(cls, workdir: Path, stage: str, rank: int, schema: pa.Schema, texts: Path | None = None) -> Iterator[Self]:
        """Writer of data/NNNNN.parquet with `schema` and dropped/NNNNN.parquet with DROP_FIELDS after it.

        texts: the file that has the texts which these files leave out, if they do.
        """
        files = [workdir / f"{side}/{rank:05d}.parquet" for side in ("data", "dropped")]
        left = {TEXTS: os.path.relpath(texts, files[0].parent).encode()} if texts else None
        with (
            parquet_file(files[0], pa.schema(schema, left)) as write_kept,
            parquet_file(files[1], pa.schema([*schema, *DROP_FIELDS], left)) as write_dropped,
        ):
            yield cls(stage, files, write_kept, write_dropped)

    def write(self, table: pa.Table, verdicts: Verdicts, own: pa.ChunkedArray | None = None) -> pa.Table:
        """Append a table's documents to the two files. own: texts to write of kept ones, if not those of the table.

        Returns the kept documents.
        """
        if "bytes" in table.column_names:
            table = table.set_column(table.schema.get_field_index("bytes"), "bytes", text_sizes(table))
        is_kept = pa.array([verdict is None for verdict in verdicts], pa.bool_())
        kept = table.filter(is_kept)
        self._write(self.write_kept, kept if own is None else replace_texts(kept, own.filter(is_kept)))
        dropped = [(self.stage, *verdict) for verdict in verdicts if verdict is not None]
        if dropped:
            rejected = table.filter(pc.invert(is_kept))
            self._write(self.write_dropped, append_columns(rejected, DROP_FIELDS, zip(*dropped, strict=True)))
        add_counts(self.counts, count_documents("in", table))
        add_counts(self.counts, count_documents("kept", kept))
        rules = Counter(verdict.rule for verdict in verdicts if verdict is not None)
        add_counts(self.counts, {"documents_dropped": len(dropped), "dropped": rules})
        return kept

    def _write(self, write: Callable[[pa.Table], None], table: pa.Table) -> None:
        write(table)
        self.text_written += present_bytes(table)

    def report(self, more: TaskReport, seconds: float = 0.0) -> TaskReport:
        """The task's report, with another's added."""
        add_counts(self.counts, more.counts)
        return TaskReport(self.counts, [*self.files, *more.files], more.notes, self.text_written, seconds)


class Judge(ABC):
    """What one task of a `DocumentPass` knows while it runs."""

    @abstractmethod
    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        """The next documents with the added columns, and a verdict on each; kept ones may get another text."""

    def report(self) -> TaskReport:
        """Counts, files and notes besides those of the documents."""
        return TaskReport()


class DocumentPass(FilesPass):
    """A pass with one task per input file that adds columns, and keeps or drops each document.

    texts: for each input file the one of an earlier stage that has its texts. With them texts are written only where
    they changed, without them all are.
    """

    def __init__(
        self,
        stage: str,
        workdir: Path,
        inputs: Sequence[Path],
        added: Sequence[pa.Field] = (),
        texts: Sequence[Path] = (),
    ) -> None:
        super().__init__(stage, workdir, [[path] for path in inputs])
        self.inputs, self.texts = inputs, texts
        self.added = added

    @abstractmethod
    def open(self, rank: int) -> Judge:
        """A judge of the documents of input file `rank`."""

    def process(self, rank: int, task: Task) -> TaskReport:
        schema = read_schema(self.inputs[rank])
        with self.judging(rank, schema) as judging:
            ahead = follow(self.ahead, rank, self.output_schema(schema), judging.through(self._documents(rank, task)))
        report = judging.report()
        report.ahead = ahead
        return report

    def kept_schema(self) -> pa.Schema | None:
        return self.output_schema(read_schema(self.inputs[0])) if self.inputs else None

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        """Columns of its kept documents, of those of its input."""
        return pa.schema([*schema, *self.added])

    @contextmanager
    def judging(self, rank: int, schema: pa.Schema) -> Iterator[Judging]:
        """The judging of the documents of input file `rank`, whose columns are `schema`."""
        texts = self.texts[rank] if self.texts else None
        judge = self.open(rank)
        with VerdictWriter.open(self.workdir, self.name, rank, self.output_schema(schema), texts) as writer:
            yield Judging(judge, writer, whole=texts is None)

    def _documents(self, rank: int, task: Task) -> Iterator[pa.Table]:
        """The documents of input file `rank`, with the column `_CHANGED`."""
        source = Texts.of(self.inputs[rank], task.count_text)
        for table in self.read(rank, task, fill=False):
            yield source.fill(table).append_column(_CHANGED, table["text"]) if source else table


@dataclass
class Judging:
    """One task of a `DocumentPass` at work. whole: whether all texts are written; seconds: of work."""

    judge: Judge
    writer: VerdictWriter
    whole: bool
    seconds: float = 0.0

    def through(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Judge and write the documents of the tables. Returns those kept, with the column `_CHANGED`.

        The column has a document's text where no earlier file has it, else null; without it all are null.
        """
        for table in tables:
            started = time.perf_counter()
            changed = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
            if _CHANGED in table.column_names:
                changed, table = table[_CHANGED], table.drop_columns([_CHANGED])
            judged, verdicts = self.judge.judge(table)
            if not judged["text"].equals(table["text"]):
                left = pc.and_(pc.is_null(changed), pc.equal(judged["text"], table["text"]))
                changed = pc.if_else(left, pa.scalar(None, pa.string()), judged["text"])
            kept = self.writer.write(judged, verdicts, None if self.whole else changed)
            changed = changed.filter(pa.array([verdict is None for verdict in verdicts], pa.bool_()))
            self.seconds += time.perf_counter() - started
            yield kept.append_column(_CHANGED, changed)

    def report(self) -> TaskReport:
        """The task's report, once all documents are judged."""
        return self.writer.report(self.judge.report(), self.seconds)


def follow(
    passes: Sequence[DocumentPass], rank: int, schema: pa.Schema, tables: Iterator[pa.Table]
) -> list[tuple[DocumentPass, TaskReport]]:
    """Draw the documents that task `rank` keeps, with columns `schema`, through the passes that follow."""
    with ExitStack() as stack:
        judgings = []
        for following in passes:
            judgings.append(stack.enter_context(following.judging(rank, schema)))
            schema = following.output_schema(schema)
            tables = judgings[-1].through(regroup(tables))
        for _ in tables:
            pass
    return [(following, judging.report()) for following, judging in zip(passes, judgings, strict=True)]
