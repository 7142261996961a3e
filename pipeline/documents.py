"""Documents between stages: columns, ids, counts, and parquet files of kept and dropped rows.

One row is one document. Column names follow FineWeb (`text, id, url, source, ...`), so DuckDB, Polars and `datasets`
open a stage's `data/*.parquet` as they are. A dropped row keeps its columns and gains DROP_FIELDS. Files are written
row group by row group (zstd) and read in whole row groups: memory is bounded by one batch, and the same rows give the
same bytes. Counts are nested dictionaries of numbers that add up over tasks in any order.

A text is written once: a stage that another follows leaves `text` null where it is what an earlier stage wrote, and
names that stage's file in its own metadata (`TEXTS`). Readers of this module put the texts back: both files hold their
documents in the same order, so one pass over the earlier file's ids and texts is enough.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.errors import PipelineError
from common.files import atomic_file

RESERVING_POOL = pa.default_memory_pool()  # takes a gigabyte of addresses at once, which a task's limit allows for
if "jemalloc" in pa.supported_memory_backends():  # keeps the pages of a batch for the next one: fewer page faults
    pa.set_memory_pool(pa.jemalloc_memory_pool())

BATCH_ROWS = 1000
BATCH_BYTES = 32 << 20  # a batch ends with the document that takes it past this
TEXTS = b"texts"  # in a file's metadata: path, from its folder, of the file that has the texts left out
Counts = dict[str, Any]
BASE_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("date", pa.string()),
        ("media_type", pa.string()),
        ("charset", pa.string()),
        ("charset_from", pa.string()),
        ("page_kind", pa.string()),
        ("extract_confidence", pa.float32()),
        ("metadata", pa.string()),
        ("bytes", pa.int64()),  # of `text` in UTF-8
    ]
)
DROP_FIELDS = [
    pa.field("stage", pa.string()),
    pa.field("rule", pa.string()),
    pa.field("value", pa.float64()),
    pa.field("threshold", pa.float64()),
    pa.field("detail", pa.string()),
]


def open_text(path: Path) -> IO[str]:
    """A UTF-8 file, unpacked if its name ends in .gz, without a byte-order mark."""
    return cast("IO[str]", (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig"))


def document_id(path: str, offset: int) -> str:
    """Id of a document: blake2b-128 of its source path and offset, 32 hexadecimal digits.

    `path` is `<source name>/<path below the source's glob root>`, so that ids do not depend on the location of a
    checkout or a bucket; `offset` is the record's byte offset, line or row number.
    """
    return hashlib.blake2b(f"{path}\0{offset}".encode(), digest_size=16).hexdigest()


def storable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which JSON may hold as escapes and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def text_sizes(table: pa.Table) -> pa.ChunkedArray:
    """UTF-8 bytes of each text; of one that was not read, its column `bytes`."""
    if "text" not in table.column_names:
        return table["bytes"]
    sizes = pc.binary_length(table["text"]).cast(pa.int64())
    return pc.coalesce(sizes, table["bytes"]) if "bytes" in table.column_names else sizes


def text_bytes(table: pa.Table) -> int:
    """UTF-8 bytes of all texts, whether they were read or not."""
    return int(pc.sum(text_sizes(table)).as_py() or 0)


def present_bytes(table: pa.Table) -> int:
    """UTF-8 bytes of the texts that are not left out."""
    return int(pc.sum(pc.binary_length(table["text"])).as_py() or 0)


def count_documents(side: str, table: pa.Table) -> Counts:
    """Counts of one table for `side` (in, kept): documents, text bytes, and documents by source."""
    by_source = Counter(table["source"].to_pylist())
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


def append_columns(table: pa.Table, fields: Iterable[pa.Field], columns: Iterable[Sequence[Any]]) -> pa.Table:
    """The table with a column for each field; `columns` holds their values, a list or array each."""
    for field, values in zip(fields, columns, strict=True):
        table = table.append_column(field, pa.array(values, field.type))
    return table


def replace_texts(table: pa.Table, texts: list[str]) -> pa.Table:
    """The table with other texts."""
    return table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))


def read_batches(
    path: Path,
    columns: list[str] | None = None,
    *,
    rows: int = BATCH_ROWS,
    fill: bool = True,
    count: Callable[[int], None] = lambda size: None,
) -> Iterator[pa.Table]:
    """Tables of at most `rows` documents in file order, of BATCH_BYTES of text where no row group alone has more.

    fill: put back texts that the file leaves out; count: called with the bytes of text that are read, from any file.
    Raises PipelineError on a damaged file.
    """
    has_text = columns is None or "text" in columns
    texts = Texts.of(path, count) if fill and has_text else None
    wanted = [*columns, "id"] if texts and columns and "id" not in columns else columns
    with _readable(path), pq.ParquetFile(path) as file:
        groups = (
            pa.Table.from_batches([batch])
            for number in range(file.metadata.num_row_groups)
            for batch in file.iter_batches(rows, [number], wanted, use_threads=False)
        )
        for table in regroup(groups, rows):
            if has_text:
                count(present_bytes(table))
            if texts:
                filled = texts.fill(table)
                yield filled if wanted == columns else filled.drop_columns(["id"])
            else:
                yield table


def regroup(tables: Iterable[pa.Table], rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """The rows in tables of at most `rows`, and BATCH_BYTES of text: small ones, which filters leave, together."""
    together: list[pa.Table] = []
    held = size = 0
    for table in tables:
        more = text_bytes(table) if {"text", "bytes"} & set(table.column_names) else 0
        if together and (held + table.num_rows > rows or size + more > BATCH_BYTES):
            yield pa.concat_tables(together).combine_chunks()
            together, held, size = [], 0, 0
        if table.num_rows:
            together.append(table)
            held, size = held + table.num_rows, size + more
    if together:
        yield pa.concat_tables(together).combine_chunks()


class Texts:
    """Puts back the texts that a file leaves to an earlier stage's; tables must come in the file's order.

    Row groups of the earlier file without a document of the table are not read.
    """

    def __init__(self, path: Path, count: Callable[[int], None] = lambda size: None) -> None:
        self.path, self._count = path, count
        self._file = pq.ParquetFile(path)
        self._groups = iter(range(self._file.metadata.num_row_groups))
        self._held = pa.table({name: pa.nulls(0, pa.string()) for name in ("id", "text")})

    @classmethod
    def of(cls, path: Path, count: Callable[[int], None] = lambda size: None) -> Texts | None:
        """For the documents of the file at `path`; None where it leaves out no text."""
        with _readable(path):
            source = text_source(path)
        if source is None:
            return None
        with _readable(source):
            return cls(source, count)

    def fill(self, table: pa.Table) -> pa.Table:
        """The table with all texts. Raises PipelineError where the earlier file lacks one."""
        ids = table["id"].combine_chunks()
        while (rows := pc.index_in(ids, value_set=self._held["id"].combine_chunks())).null_count:
            number = next(self._groups, None)
            if number is None:
                raise PipelineError(f"{self.path}: lacks texts of the stages after it; delete its folder to rebuild it")
            with _readable(self.path):
                if pc.any(pc.is_in(self._file.read_row_group(number, ["id"])["id"], value_set=ids)).as_py():
                    more = self._file.read_row_group(number, ["text", "id"]).select(["id", "text"])
                    self._count(present_bytes(more))
                    self._held = pa.concat_tables([self._held, more])
        found = self._held["text"].take(rows)
        self._held = self._held.slice(max(rows.to_pylist(), default=-1) + 1)
        return table.set_column(
            table.schema.get_field_index("text"), "text", pc.coalesce(table["text"], found)
        ).combine_chunks()


def text_source(path: Path) -> Path | None:
    """The file that has the texts which the one at `path` leaves out; None where it leaves out none."""
    name = (read_schema(path).metadata or {}).get(TEXTS)
    return Path(os.path.normpath(path.parent / name.decode())) if name else None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise PipelineError(f"{path}: cannot read documents: {error}") from error


def read_rows(path: Path) -> int:
    """Number of documents in a parquet file, from its footer."""
    with _readable(path):
        return int(pq.read_metadata(path).num_rows)


def sizes_known(path: Path) -> bool:
    """Whether column `bytes` has the size of every text in a parquet file, by its footer."""
    with _readable(path):
        footer = pq.read_metadata(path)
    if "bytes" not in footer.schema.names:
        return False
    number = footer.schema.names.index("bytes")
    statistics = [footer.row_group(group).column(number).statistics for group in range(footer.num_row_groups)]
    return all(of is not None and of.null_count == 0 for of in statistics)


def read_schema(path: Path) -> pa.Schema:
    return pq.read_schema(path)


@contextmanager
def parquet_file(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Function that appends rows to a parquet file, which appears complete at the end of the block, or not at all.

    A table's columns are brought into the file's order and types.
    """
    repeating = [name for name in schema.names if name not in ("text", "id")]
    with (
        atomic_file(path, durable=False) as file,
        pq.ParquetWriter(file, schema, compression="zstd", compression_level=3, use_dictionary=repeating) as writer,
    ):

        def write(table: pa.Table) -> None:
            if table.num_rows:
                chosen = table.select(schema.names)
                writer.write_table(chosen if chosen.schema.equals(schema) else chosen.cast(schema))

        yield write
