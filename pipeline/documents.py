"""Documents between stages: columns, ids, counts, and parquet files of kept and dropped rows.

One row is one document. Column names follow FineWeb (`text, id, url, source, ...`), so DuckDB, Polars and `datasets`
open a stage's `data/*.parquet` as they are. A dropped row keeps its columns and gains DROP_FIELDS. Files are written
row group by row group (zstd) and read in whole row groups: memory is bounded by one batch, and the same rows give the
same bytes. Counts are nested dictionaries of numbers that add up over tasks in any order.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.errors import PipelineError
from common.files import atomic_file

BATCH_ROWS = 1000
BATCH_BYTES = 32 << 20  # a batch ends with the document that takes it past this
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
        ("metadata", pa.string()),
    ]
)
DROP_FIELDS = [
    pa.field("stage", pa.string()),
    pa.field("rule", pa.string()),
    pa.field("value", pa.float64()),
    pa.field("threshold", pa.float64()),
    pa.field("detail", pa.string()),
]


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


def text_bytes(table: pa.Table) -> int:
    """UTF-8 bytes in the `text` column."""
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


def read_batches(path: Path, columns: list[str] | None = None, *, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """Tables of at most `rows` documents in file order, of BATCH_BYTES where no row group alone has more.

    Raises PipelineError on a damaged file.
    """
    try:
        with pq.ParquetFile(path) as file:
            for groups in _batches_of_groups(file.metadata):
                for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=columns):
                    yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise PipelineError(f"{path}: cannot read documents: {error}") from error


def _batches_of_groups(metadata: pq.FileMetaData) -> Iterator[list[int]]:
    """Numbers of the row groups to read together, because filters leave small ones."""
    together: list[int] = []
    rows = size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if together and (rows + group.num_rows > BATCH_ROWS or size + group.total_byte_size > BATCH_BYTES):
            yield together
            together, rows, size = [], 0, 0
        together.append(number)
        rows, size = rows + group.num_rows, size + group.total_byte_size
    if together:
        yield together


def read_rows(path: Path) -> int:
    """Number of documents in a parquet file, from its footer."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise PipelineError(f"{path}: cannot read documents: {error}") from error


def read_schema(path: Path) -> pa.Schema:
    return pq.read_schema(path)


@contextmanager
def parquet_file(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Function that appends rows to a parquet file, which appears complete at the end of the block, or not at all.

    A table's columns are brought into the file's order and types.
    """
    with atomic_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd", compression_level=3) as writer:

        def write(table: pa.Table) -> None:
            if table.num_rows:
                writer.write_table(table.select(schema.names).cast(schema))

        yield write
