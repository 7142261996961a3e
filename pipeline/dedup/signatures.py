"""Pass `signatures`: from texts to the shared table's columns; and the index for later corpora.

A task reads one input file, or one file of an earlier corpus's index (`against:`), and writes segments of the table. A
segment holds for each document: id, exact (128-bit hash of the text, composed, with case and white space folded),
scope, signature, length, date, offset and names; and, sorted by key, the pairs (exact_key, exact_row) and (band_key,
band_row), which the joins read. Memory: one segment, about 1 kB a document.

The last pass of `dedup` leaves an index beside its documents:

    runs/<name>/corpus/<NN-dedup>/index/NNNNN.parquet   id, url, exact, scope, signature (and shingles, with
                                                        `verify_by: exact`) of each kept document
    runs/<name>/corpus/<NN-dedup>/manifest.json         field `index`: the settings that made the signatures

Signatures compare only if made alike, so an index of other settings is refused. An index takes about 0.5 kB a document,
and 4 bytes for each distinct shingle, about as much as the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from common.errors import PipelineError
from common.files import atomic_file, changed_files, read_manifest
from pipeline.config import DedupConfig
from pipeline.dedup.table import SEGMENT, Table, save_array, save_strings
from pipeline.documents import read_batches, text_bytes
from pipeline.kernels.clusters import optimal_bands
from pipeline.kernels.minhash import EMPTY, I64, U8, U64, VERSION, MinHasher
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

Columns = dict[str, Any]


def make_hasher(settings: DedupConfig, seed: int) -> MinHasher:
    """The recipe's hasher; its similarity for candidates, if any, picks bands and rows within bands x rows hashes."""
    bands, rows = settings.bands, settings.rows
    if settings.candidates_at is not None:
        bands, rows = optimal_bands(settings.candidates_at, bands * rows)
    return MinHasher(bands, rows, settings.ngram, seed)


class SignaturePass(Pass):
    """Writes the segments of the documents of one input, or of one file of an earlier corpus's index."""

    def __init__(self, build: Build[DedupConfig], table: Table, indexes: list[Path]) -> None:
        super().__init__("signatures", build.workdir, len(build.inputs) + len(indexes))
        self.inputs, self.indexes, self.table = build.inputs, indexes, table
        self.settings: DedupConfig = build.settings
        self.seed = build.seed

    def weight(self, rank: int) -> float:
        return float([*self.inputs, *self.indexes][rank].stat().st_size)

    def process(self, rank: int, task: Task) -> TaskReport:
        hasher = make_hasher(self.settings, self.seed)
        total = max(int(self.table.starts[rank + 1] - self.table.starts[rank]), 1)
        batches = self._documents(rank, hasher, task, total)
        if rank >= len(self.inputs):
            batches = read_index(self.indexes[rank - len(self.inputs)], shingles=self.settings.verify_by == "exact")
        files: list[Path] = []
        for part, pieces in groupby(_pieces(batches), key=itemgetter(0)):
            folder = self.table.folder / f"{rank:05d}-{part:05d}"
            files += _write_segment(folder, map(itemgetter(1), pieces), hasher, self.settings)
        return TaskReport(files=files)

    def _documents(self, rank: int, hasher: MinHasher, task: Task, total: int) -> Iterator[Columns]:
        seen = 0
        for table in task.read(self.inputs[rank]):
            texts = table["text"].to_pylist()
            scopes = scope_names(table, self.settings.scope)
            data, ends = utf8_buffer(table["text"])
            shingles = hasher.shingles(data, ends)
            columns: Columns = {
                "id": _id_words(table),
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
            task.beat(len(texts), text_bytes(table), seen / total)


def _pieces(batches: Iterator[Columns]) -> Iterator[tuple[int, Columns]]:
    """(segment number, columns) of the batches, divided where a segment of SEGMENT documents ends."""
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
    """Write one segment. Shingle sets, the only column without a fixed width, are written as they come."""
    files, waiting = [], []
    with ExitStack() as stack:
        if settings.verify_by == "exact":
            files = [folder / "shingles.bin"]
            shingles = stack.enter_context(atomic_file(files[0], durable=False))
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
    """Band keys of all documents that have words, ascending, and their rows; keys of different scopes differ."""
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
    """uint64 (texts, 2): xxh3-128 of each text, composed, with case and white space folded, within its scope."""
    plain = (normalize("NFC", " ".join(text.casefold().split())) for text in texts)
    folded = (f"{scope}\0{text}" for text, scope in zip(plain, scopes, strict=True))
    digests = b"".join(xxhash.xxh3_128_digest(text.encode("utf-8", "replace")) for text in folded)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def scope_names(table: pa.Table, scope: str) -> list[str]:
    """For each document the value of column `scope`, which duplicates must share; "" for `global`."""
    if scope == "global":
        return [""] * table.num_rows
    if scope not in table.column_names:
        raise PipelineError(
            f"dedup.scope is `{scope}`, but the documents have no column `{scope}`;"
            " put stage `language` before `dedup`, or choose another scope"
        )
    names: list[str] = table[scope].to_pylist()
    return names


def _hash64(scope: str) -> int:
    return int.from_bytes(hashlib.blake2b(scope.encode(), digest_size=8).digest(), "little") if scope else 0


def _date_number(date: str) -> int:
    """A sortable number of an ISO or ARC date; 0 for a missing one."""
    digits = "".join(character for character in date or "" if character.isdigit())[:14]
    return int(digits.ljust(14, "0")) if digits else 0


def signature_settings(settings: DedupConfig, seed: int, hashes: int) -> dict[str, Any]:
    """The settings that two corpora must share for their signatures to compare."""
    return {
        "version": VERSION,
        "hashes": hashes,
        "ngram": settings.ngram,
        "seed": seed,
        "scope": settings.scope,
        "verify_by": settings.verify_by,
    }


def index_folders(settings: DedupConfig, base: Path) -> list[Path]:
    """The published `dedup` folder of each corpus of `against`, which names a run folder or that folder itself."""
    folders = []
    for name in settings.against:
        given = base / name
        is_stage = (given / "index").is_dir()
        stage = given if is_stage else max((given / "corpus").glob("[0-9][0-9]-dedup"), default=given)
        if not (stage / "index").is_dir():
            raise PipelineError(
                f"dedup.against: no index in {given}; give the folder of a run whose stage `dedup` is finished"
            )
        folders.append(stage)
    return folders


def index_files(settings: DedupConfig, base: Path) -> list[Path]:
    """All index files of `against`, in order."""
    return [path for folder in index_folders(settings, base) for path in sorted((folder / "index").glob("*.parquet"))]


def open_indexes(settings: DedupConfig, base: Path, made_with: dict[str, Any]) -> list[Path]:
    """The index files of `against`, checked. Raises PipelineError for a damaged one or one of other settings."""
    for folder in index_folders(settings, base):
        manifest = read_manifest(folder) or {}
        other = manifest.get("index", {})
        for name, value in made_with.items():
            if other.get(name) != value and (name, value) != ("verify_by", "estimate"):  # which any index can serve
                raise PipelineError(
                    f"{folder}: its signatures were made with `{name}` {other.get(name)!r}, this recipe's with"
                    f" {value!r}; they cannot be compared. Use the same dedup settings and seed, or rebuild"
                    " that corpus"
                )
        listed = {name: entry for name, entry in manifest["files"].items() if name.startswith("index/")}
        if broken := changed_files(folder, {"files": listed}):
            raise PipelineError(f"{folder / broken[0]}: differs from its manifest's size or hash; rebuild that corpus")
    return index_files(settings, base)


def write_index(path: Path, parts: Iterator[dict[str, Any]]) -> Path:
    """Write an index file from parts with the columns id, url, exact, scope, signature and perhaps shingles."""
    with atomic_file(path, durable=False) as file:
        writer = None
        for part in parts:
            table = pa.table(
                {
                    "id": pa.array([value.tobytes().hex() for value in part["id"]], pa.string()),
                    "url": pa.array(part["url"], pa.string()),
                    "exact": pa.array([value.tobytes() for value in part["exact"]], pa.binary(16)),
                    "scope": pa.array(part["scope"], pa.uint64()),
                    "signature": pa.array(
                        [value.tobytes() for value in part["signature"]], pa.binary(4 * part["signature"].shape[1])
                    ),
                }
            )
            if "shingles" in part:
                sets = pa.LargeListArray.from_arrays(pa.array(part["shingle_ends"]), pa.array(part["shingles"]))
                table = table.append_column("shingles", sets)
            writer = writer or pq.ParquetWriter(file, table.schema, compression="none", use_dictionary=False)
            writer.write_table(table)
        if writer:
            writer.close()
    return path


def read_index(path: Path, *, shingles: bool) -> Iterator[dict[str, Any]]:
    """Columns of the table for an earlier corpus's documents; those that an index lacks are 0 or empty."""
    names = ["id", "url", "exact", "scope", "signature", *(["shingles"] if shingles else [])]
    for table in read_batches(path, names):
        rows = table.num_rows
        columns = {
            "id": _id_words(table),
            "exact": np.frombuffer(b"".join(table["exact"].to_pylist()), np.uint64).reshape(rows, -1),
            "scope": table["scope"].to_numpy(),
            "signature": np.frombuffer(b"".join(table["signature"].to_pylist()), np.uint32).reshape(rows, -1),
            **dict.fromkeys(("length", "date", "offset"), np.zeros(rows, np.int64)),
            **dict.fromkeys(("source", "path"), [""] * rows),
            "url": table["url"].to_pylist(),
        }
        if shingles:
            columns["shingles"] = pc.list_flatten(table["shingles"]).to_numpy()
            columns["shingle_count"] = pc.list_value_length(table["shingles"]).to_numpy().astype(np.int64)
        yield columns


def _id_words(table: pa.Table) -> U64:
    """uint64 (rows, 2): the 128-bit document ids."""
    return np.frombuffer(bytes.fromhex("".join(table["id"].to_pylist())), np.uint64).reshape(-1, 2)
