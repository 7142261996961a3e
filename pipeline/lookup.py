"""Where each document of a corpus is: a sorted index in the run folder, built after the last stage.

    runs/<name>/lookup/tables.json         paths of the tables that hold documents, by number
    runs/<name>/lookup/<key>.npy           hashes of ids, addresses and clusters, ascending
    runs/<name>/lookup/<key>-places.npy    for each hash: number of the table << 32 | row
    runs/<name>/lookup/pieces.npy, pieces-places.npy    hashes of ids, and stream, sample, offset, tokens of each piece

A document lies in one table: the dropped ones of the stage that dropped it, else the kept ones of the last stage with
texts. A look-up is a binary search in mapped files and the reading of a row group of each table that it names: its time
grows with what is found, not with the corpus. Hashes have 64 bits; the row that is read settles a collision. Building
takes about 4 s and 100 MB for each million documents, the index 76 bytes a document. The index names the stages that it
describes, and is built again where they changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import xxhash

from common.errors import PipelineError
from common.files import publish_folder, read_json, read_manifest, write_json
from common.runfolder import Row, RunFolder
from pipeline.documents import read_batches, read_schema

U64 = np.ndarray[Any, np.dtype[np.uint64]]
KEYS = ("id", "url", "cluster")
_PIECE = ["id", "split", "stream", "sample", "offset", "tokens"]
COLUMNS = ("id", "url", "source", "path", "offset", "cluster", "cluster_size", "stage", "rule", "value", "threshold")


class Piece(NamedTuple):
    """Tokens `offset` to `offset + tokens` of a sample of `<split>/<stream>`, which a document fills."""

    stream: str
    sample: int
    offset: int
    tokens: int


def hash_key(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def bring_up_to_date(run: RunFolder) -> None:
    """Build the index unless it describes the published stages. Raises PipelineError where there is none."""
    stages = {name: stage.manifest.get("fingerprint") for name, stage in run.stages.items()}
    if not run.text_stages:
        raise PipelineError(f"{run.path}: no finished stage, so no document to look up; build the corpus first")
    manifest = read_manifest(run.lookup)
    if manifest and manifest["stages"] == stages:
        return
    building = run.lookup.with_name(f".{run.lookup.name}.partial")
    building.mkdir(exist_ok=True)
    tables = list(_tables(run))
    write_json(building / "tables.json", [str(table.relative_to(run.path)) for table in tables])
    for key in KEYS:
        _save(building, key, *_keys(tables, key))
    streams = _write_pieces(run.documents, building)
    publish_folder(building, run.lookup, {"stages": stages, "streams": streams})


def _tables(run: RunFolder) -> Iterator[Path]:
    """The tables that hold each document once."""
    for stage in run.stages.values():
        yield from sorted(stage.dropped.glob("*.parquet"))
    yield from sorted([*run.text_stages.values()][-1].data.glob("*.parquet"))


def _keys(tables: list[Path], key: str) -> tuple[list[U64], list[U64]]:
    """(hashes, places) of the tables' values of a column; of clusters only those of several documents."""
    hashes, places = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for number, path in enumerate(tables):
        if key not in read_schema(path).names:
            continue
        row = 0
        for table in read_batches(path, [key, "cluster_size"] if key == "cluster" else [key], rows=100_000):
            rows = np.arange(row, row + table.num_rows, dtype=np.uint64)
            row += table.num_rows
            found = _hashes(table[key].to_pylist())
            if key == "cluster":
                is_shared = np.array(table["cluster_size"].to_pylist()) > 1  # to_numpy would import pandas, 0.2 s
                found, rows = found[is_shared], rows[is_shared]
            hashes.append(found)
            places.append(rows | np.uint64(number << 32))
    return hashes, places


def _hashes(values: Iterable[str | None]) -> U64:
    return np.array([hash_key(value or "") for value in values], np.uint64)


def _write_pieces(documents: Path, building: Path) -> list[str]:
    """Write the index of documents.parquet, where there is one. Returns the streams by number."""
    streams: dict[str, int] = {}
    hashes, places = [np.empty(0, np.uint64)], [np.empty((0, 4), np.int64)]
    for table in read_batches(documents, _PIECE, rows=100_000) if documents.is_file() else ():
        names = [
            f"{split}/{of}" for split, of in zip(*(table[c].to_pylist() for c in ("split", "stream")), strict=True)
        ]
        numbers = np.array([streams.setdefault(name, len(streams)) for name in names], np.int64)
        hashes.append(_hashes(table["id"].to_pylist()))
        places.append(np.column_stack([numbers, *(table[name].to_pylist() for name in _PIECE[3:])]))
    _save(building, "pieces", hashes, places)
    return [*streams]


def _save(building: Path, name: str, hashes: list[U64], places: list[Any]) -> None:
    """Write an index, sorted by hash."""
    joined = np.concatenate(hashes)
    order = np.argsort(joined, kind="stable")
    np.save(building / f"{name}.npy", joined[order])
    np.save(building / f"{name}-places.npy", np.concatenate(places)[order])


class Lookup:
    """The index of a run folder, opened for look-ups."""

    def __init__(self, run: RunFolder) -> None:
        """Raises PipelineError where there is no index."""
        manifest = read_manifest(run.lookup)
        if manifest is None:
            raise PipelineError(f"{run.lookup}: no index of documents; `pretrain forget` builds it")
        self.run, self.streams = run.path, manifest["streams"]
        self.tables: list[str] = read_json(run.lookup / "tables.json")
        self.folder = run.lookup

    def find(self, key: str, *values: str) -> list[Row]:
        """The documents (COLUMNS that exist) whose `id`, `url` or `cluster` is one of `values`, by table and row."""
        wanted = set(values)
        places = np.unique(np.concatenate([np.empty(0, np.uint64), *(self._places(key, value) for value in wanted)]))
        return [row for row in self._rows(places) if row[key] in wanted]

    def pieces(self, document: str) -> list[Piece]:
        """Where a document's tokens are in the shards."""
        found = self._places("pieces", document)
        return [Piece(self.streams[stream], *rest) for stream, *rest in found.tolist()]

    def _places(self, name: str, value: str) -> Any:
        keys = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        key = np.uint64(hash_key(value))
        cut = slice(np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right"))
        return np.array(np.load(self.folder / f"{name}-places.npy", mmap_mode="r")[cut])

    def _rows(self, places: U64) -> Iterator[Row]:
        """The rows at these places, by table and row."""
        numbers, rows = places >> np.uint64(32), (places & np.uint64(0xFFFFFFFF)).astype(np.int64)
        for number in np.unique(numbers).tolist():
            yield from _read_rows(self.run / self.tables[number], np.sort(rows[numbers == number]))


def _read_rows(path: Path, rows: Any) -> Iterator[Row]:
    """Rows of a table by number, ascending; reads the row groups that hold them."""
    with pq.ParquetFile(path, memory_map=True) as file:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        groups = np.searchsorted(ends, rows, side="right")
        for group in np.unique(groups).tolist():
            inside = rows[groups == group] - (ends[group - 1] if group else 0)
            yield from file.read_row_group(group, columns=columns).take(inside).to_pylist()
