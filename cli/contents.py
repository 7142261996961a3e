"""Reading what commands need besides JSON: the run's recipe, parquet tables in part, and texts to score.

A sample takes at most ROW_GROUPS row groups (of 1,000 documents) of a folder, evenly spaced and always the same ones,
so reports of any corpus take seconds.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import PipelineError, RecipeError
from common.runfolder import Row, RunFolder

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUPS = 100
Address = tuple[Path, int, int]  # of a row: file, row group, row in the group


@lru_cache(maxsize=8)
def read_recipe(run: RunFolder) -> Row:
    """The run's resolved recipe; empty where it has none. Read once for each `RunFolder` object."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes a tenth of the time
    loaded = yaml.load(run.recipe.read_bytes(), loader) if run.recipe.is_file() else None
    return loaded if isinstance(loaded, dict) else {}


@dataclass(frozen=True)
class Sample:
    """Sampled rows of a parquet folder: `table` with the columns that exist; `total` rows are in the folder."""

    table: pa.Table
    total: int

    @property
    def scale(self) -> float:
        """Rows of the folder per sampled row."""
        return self.total / max(int(self.table.num_rows), 1)

    @property
    def complete(self) -> bool:
        """Whether every row was taken."""
        return int(self.table.num_rows) == self.total

    def __contains__(self, column: str) -> bool:
        return column in self.table.column_names

    def column(self, name: str) -> list[Any]:
        """A column's values; None for each row where the column does not exist."""
        return list(self.table[name].to_pylist()) if name in self else [None] * self.table.num_rows


def read_sample(folder: Path, columns: list[str]) -> Sample:
    """A sample of a folder's parquet files, or of one file, with those of `columns` that exist."""
    import pyarrow as pa

    groups, total = sample_groups(folder)
    tables = [read_group(path, number, columns) for path, number in groups]
    return Sample(pa.concat_tables(tables, promote_options="default") if tables else pa.table({}), total)


def sample_groups(folder: Path) -> tuple[list[tuple[Path, int]], int]:
    """At most ROW_GROUPS row groups (file, number), evenly spaced over the folder's, and the number of all its rows."""
    groups: list[tuple[Path, int]] = []
    total = 0
    for path in [folder] if folder.is_file() else sorted(folder.glob("*.parquet")):
        footer = _opened(path, path.stat().st_mtime_ns).metadata
        total += footer.num_rows
        groups += [(path, number) for number in range(footer.num_row_groups) if footer.row_group(number).num_rows]
    if len(groups) > ROW_GROUPS:
        groups = [groups[i * len(groups) // ROW_GROUPS] for i in range(ROW_GROUPS)]
    return groups, total


@lru_cache(maxsize=128)
def _opened(path: Path, _changed: int) -> pq.ParquetFile:
    """The file as of that time: its footer is read once for all columns that a report shows."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def read_group(path: Path, number: int, columns: list[str], rows: list[int] | None = None) -> pa.Table:
    """One row group, or some rows of it, with those of `columns` that exist, and texts that the file leaves out."""
    import numpy as np
    import pyarrow as pa

    from pipeline.documents import Texts

    file = _opened(path, path.stat().st_mtime_ns)
    present = [name for name in columns if name in file.metadata.schema.names]
    texts = Texts.of(path) if "text" in present else None
    read = [*present, "id"] if texts and "id" not in present else present
    table = file.read_row_group(number, columns=read, use_threads=False)  # threads take longer to begin
    if rows is not None:
        numbers = pa.py_buffer(np.array(rows, np.int64))  # given a list or an array, pyarrow would import pandas
        table = table.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, numbers]))
    return texts.fill(table).select(present) if texts else table


def read_rows(addresses: Sequence[Address], columns: list[str]) -> list[Row]:
    """The rows at these addresses, each row group read once."""
    rows: dict[Address, Row] = {}
    for (path, number), part in groupby(sorted(set(addresses)), key=lambda address: address[:2]):
        wanted = list(part)
        table = read_group(path, number, columns, [row for *_, row in wanted])
        rows.update(zip(wanted, table.to_pylist(), strict=True))
    return [rows[address] for address in addresses]


def find_rows(folder: Path, column: str, wanted: Iterable[str], columns: list[str], limit: int) -> list[Row]:
    """Sampled rows whose `column` is among `wanted`, at most `limit` of each; texts are read group by group."""
    left = dict.fromkeys(wanted, limit)
    addresses: list[Address] = []
    for path, number in sample_groups(folder)[0]:
        if not any(left.values()):
            break
        table = read_group(path, number, [column])
        if not table.num_columns:
            break
        for index, value in enumerate(table[column].to_pylist()):
            if left.get(value):
                left[value] -= 1
                addresses.append((path, number, index))
    return read_rows(addresses, columns)


def select_rows(path: Path, column: str, values: set[Any], columns: list[str] | None = None) -> list[Row]:
    """All rows of a parquet file whose `column` is one of `values`. Raises PipelineError where it is missing."""
    import pyarrow.parquet as pq

    if not path.is_file():
        raise PipelineError(f"{path} is missing; build the corpus again")
    if not values:
        return []
    rows: list[Row] = pq.read_table(path, columns=columns, filters=[(column, "in", values)]).to_pylist()
    return rows


@dataclass(frozen=True)
class Text:
    """A document to score; `name` is file and line."""

    name: str
    text: str
    source: str
    language: str


def read_texts(path: Path, limit: int | None = None, option: str = "--text") -> Iterator[Text]:
    """Documents of a .jsonl or .txt file, gzipped if it ends in .gz. Raises RecipeError naming file and line."""
    if not path.is_file():
        raise RecipeError(f"{option}: no file at {path}")
    data = path.read_bytes()
    try:
        content = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{option}: {path} is not UTF-8 (byte {error.start})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise RecipeError(f"{option}: {path} is not intact gzip ({error})") from None
    if not path.name.removesuffix(".gz").endswith(".jsonl"):
        yield Text(f"{path}:1", content, path.stem, "und")
        return
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if not lines:
        raise RecipeError(f"{option}: {path} has no documents")
    for number, line in lines[:limit]:
        try:
            row = dict(json.loads(line))
            language = row.get("language") or row.get("lang") or "und"
            values = row["text"], row.get("source") or path.stem, language
            for value in values:
                value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RecipeError(f"{option}: {path}:{number}: a lone surrogate, which is not text ({error})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RecipeError(
                f'{option}: {path}:{number}: expected a JSON object with a text "text"; "source" and "language", where '
                "given, must be texts too"
            ) from None
        yield Text(f"{path}:{number}", *values)
