"""Pass `signatures`: from texts to the shared table's columns, a task per input file or earlier index.

A segment of the table holds, by document: id, exact (128-bit hash of the text with case and white space folded),
scope, signature, length, date, offset, and names; and twice sorted by key: (exact_key, exact_row) and
(band_key, band_row), what the joins read. Memory: one segment, about 1 kB a document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.config import DedupConfig
from pipeline.dedup.clusters import optimal_bands
from pipeline.dedup.index import Index, read_index
from pipeline.dedup.table import SEGMENT, Table, save_array, save_strings
from pipeline.documents import read_batches, text_bytes
from pipeline.errors import PipelineError
from pipeline.minhash import EMPTY, I64, U8, U64, MinHasher
from pipeline.stage import Build
from pipeline.step import CorpusStep, Heartbeat, TaskReport
from pipeline.storage import atomic_file

Columns = dict[str, Any]


def make_hasher(settings: DedupConfig, seed: int) -> MinHasher:
    """The recipe's hasher; `threshold` picks bands and rows within bands x rows hashes."""
    bands, rows = settings.bands, settings.rows
    if settings.threshold is not None:
        bands, rows = optimal_bands(settings.threshold, bands * rows)
    return MinHasher(bands, rows, settings.ngram, seed)


class SignatureStep(CorpusStep):
    """Writes the segments of the documents of one input, or of one file of an earlier corpus's index."""

    def __init__(self, build: Build, table: Table, indexes: list[Index]) -> None:
        super().__init__("signatures", build.workdir, len(build.inputs) + len(indexes))
        self.inputs, self.indexes, self.table = build.inputs, indexes, table
        self.settings: DedupConfig = build.settings
        self.seed = build.seed

    def weight(self, rank: int) -> float:
        files = [*self.inputs, *(index.path for index in self.indexes)]
        return float(files[rank].stat().st_size)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        hasher = make_hasher(self.settings, self.seed)
        total = max(int(self.table.starts[rank + 1] - self.table.starts[rank]), 1)
        batches = self._documents(rank, hasher, heartbeat, total)
        if rank >= len(self.inputs):
            batches = read_index(self.indexes[rank - len(self.inputs)], shingles=self.settings.verify_by == "exact")
        files: list[Path] = []
        for part, pieces in groupby(_pieces(batches), key=itemgetter(0)):
            folder = self.table.folder / f"{rank:05d}-{part:05d}"
            files += _write_segment(folder, map(itemgetter(1), pieces), hasher, self.settings)
        return TaskReport(files=files)

    def _documents(self, rank: int, hasher: MinHasher, heartbeat: Heartbeat, total: int) -> Iterator[Columns]:
        seen = 0
        for table in read_batches(self.inputs[rank]):
            texts = table["text"].to_pylist()
            scopes = scope_names(table, self.settings.scope)
            data, ends = utf8_buffer(table["text"])
            shingles = hasher.shingles(data, ends)
            columns: Columns = {
                "id": np.frombuffer(bytes.fromhex("".join(table["id"].to_pylist())), np.uint64).reshape(-1, 2),
                "exact": text_hashes(texts, scopes),
                "scope": np.array([_hash64(scope) for scope in scopes], np.uint64),
                "signature": hasher.minima(shingles),
                "length": np.diff(ends),
                "date": np.array([_date_number(date) for date in table["date"].to_pylist()], np.int64),
                "offset": table["offset"].to_numpy().astype(np.int64),
                **{name: table[name].to_pylist() for name in ("source", "path", "url")},
            }
            if self.settings.verify_by == "exact":
                columns["shingles"], shingle_ends = shingles.sets()
                columns["shingle_count"] = np.diff(shingle_ends)
            yield columns
            seen += len(texts)
            heartbeat.beat(len(texts), text_bytes(table), seen / total)


def _pieces(batches: Iterator[Columns]) -> Iterator[tuple[int, Columns]]:
    """Batches cut where a segment of SEGMENT documents ends, each with the number of its segment."""
    count = 0
    for batch in batches:
        size, start = len(batch["id"]), 0
        while start < size:
            taken = min(SEGMENT - count % SEGMENT, size - start)
            yield count // SEGMENT, _cut(batch, start, start + taken)
            count, start = count + taken, start + taken


def _cut(columns: Columns, low: int, high: int) -> Columns:
    cut = {name: values[low:high] for name, values in columns.items() if name != "shingles"}
    if "shingles" in columns:
        first, last = columns["shingle_count"][:low].sum(), columns["shingle_count"][:high].sum()
        cut["shingles"] = columns["shingles"][first:last]
    return cut


def _merge(parts: list[Columns]) -> Columns:
    def joined(name: str) -> Any:
        values = [part[name] for part in parts]
        return list(chain.from_iterable(values)) if isinstance(values[0], list) else np.concatenate(values)

    return {name: joined(name) for name in parts[0]}


def _write_segment(folder: Path, pieces: Iterator[Columns], hasher: MinHasher, settings: DedupConfig) -> list[Path]:
    """Sets of shingles, the one column whose size the texts decide, go to their file as they come."""
    files, waiting = [], []
    with ExitStack() as stack:
        if settings.verify_by == "exact":
            files = [folder / "shingles.bin"]
            shingles = stack.enter_context(atomic_file(files[0]))
        for piece in pieces:
            if files:
                shingles.write(piece.pop("shingles").tobytes())
            waiting.append(piece)
    columns = _merge(waiting)
    arrays = {name: columns[name] for name in ("id", "exact", "scope", "signature", "length", "date", "offset")}
    if settings.verify_by == "exact":
        arrays["shingle_count"] = columns["shingle_count"]
        arrays["shingle_ends"] = np.concatenate([[0], np.cumsum(columns["shingle_count"])])
    if settings.exact:
        order = np.lexsort((columns["exact"][:, 1], columns["exact"][:, 0]))
        arrays["exact_key"], arrays["exact_row"] = columns["exact"][order], order.astype(np.uint32)
    if settings.minhash:
        arrays["band_key"], arrays["band_row"] = _sorted_bands(columns, hasher)
    files += [save_array(folder / f"{name}.npy", array) for name, array in arrays.items()]
    return [*files, save_strings(folder / "names.parquet", {name: columns[name] for name in ("source", "path", "url")})]


def _sorted_bands(columns: Columns, hasher: MinHasher) -> tuple[U64, Any]:
    """Band keys of all documents that have words, ascending, and their rows; scopes never meet."""
    real = np.flatnonzero((columns["signature"] != EMPTY).any(axis=1))
    keys = (hasher.band_keys(columns["signature"][real]) ^ columns["scope"][real, None]).ravel()
    order = np.argsort(keys, kind="stable")
    return keys[order], np.repeat(real, hasher.bands)[order].astype(np.uint32)


def utf8_buffer(column: pa.ChunkedArray) -> tuple[U8, I64]:
    """The bytes of a text column, uint8, and the boundaries of its values in them, int64 (rows + 1,)."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    array = array.fill_null("").cast(pa.large_string())
    _, ends, data = array.buffers()
    if not len(array) or data is None:
        return np.frombuffer(b"", np.uint8), np.zeros(len(array) + 1, np.int64)
    bounds = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8), bounds.copy()  # writable, as elsewhere: numba compiles once for both


def text_hashes(texts: list[str], scopes: list[str]) -> U64:
    """uint64 (texts, 2): xxh3-128 of each text with case and white space folded, within its scope."""
    folded = (f"{scope}\0{' '.join(text.casefold().split())}" for text, scope in zip(texts, scopes, strict=True))
    digests = b"".join(xxhash.xxh3_128_digest(text.encode("utf-8", "replace")) for text in folded)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def scope_names(table: pa.Table, scope: str) -> list[str]:
    """What each document must have in common with another to be its duplicate."""
    if scope == "global":
        return [""] * table.num_rows
    if scope not in table.column_names:
        raise PipelineError(
            f"dedup.scope is `{scope}`, but its documents have no column `{scope}`;"
            " put stage `language` before `dedup`, or use another scope"
        )
    names: list[str] = table[scope].to_pylist()
    return names


def _hash64(scope: str) -> int:
    return int.from_bytes(hashlib.blake2b(scope.encode(), digest_size=8).digest(), "little") if scope else 0


def _date_number(date: str) -> int:
    """A sortable number of an ISO or ARC date; 0 where there is none."""
    digits = "".join(character for character in date or "" if character.isdigit())[:14]
    return int(digits.ljust(14, "0")) if digits else 0
