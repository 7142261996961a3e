"""Pass `signatures`: from texts to the shared table's columns; and the index for later corpora.

A task reads one input file, or one file of an earlier corpus's index (`against:`), and writes segments of the table
(`pipeline.dedup.table`). `exact` is a 128-bit hash of the text, composed, with case and white space folded, within its
scope. The keys that the joins read are the first half of `exact` and a hash of each band. Memory: one segment, about 1
kB a document.

The last pass of `dedup` leaves an index beside its documents:

    runs/<name>/corpus/<NN-dedup>/index/NNNNN.parquet   id, url, exact, scope, signature (and shingles, with
                                                        `verify_by: exact`) of each kept document
    runs/<name>/corpus/<NN-dedup>/manifest.json         field `index`: the settings that made the signatures

Signatures compare only if made alike, so an index of other settings is refused. An index takes about 0.5 kB a document,
and 4 bytes for each distinct shingle, about as much as the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from common.errors import PipelineError
from common.files import atomic_file, changed_files, read_manifest
from pipeline.config import DedupConfig
from pipeline.dedup.table import SEGMENT, Array, Table, save, save_keys
from pipeline.documents import read_batches, text_bytes
from pipeline.kernels.clusters import optimal_bands
from pipeline.kernels.folding import fold
from pipeline.kernels.minhash import EMPTY, I64, U8, U64, VERSION, MinHasher
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

Columns = dict[str, Any]
TEXTS = ("path", "url")
_READ = ("text", "id", "source", "date", "offset", *TEXTS)


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
        self.sources = {source.name: number for number, source in enumerate(build.sources)}

    def reads(self, rank: int) -> Sequence[Path]:
        return [*self.inputs, *self.indexes][rank : rank + 1]

    def weight(self, rank: int) -> float:
        return float([*self.inputs, *self.indexes][rank].stat().st_size)

    def process(self, rank: int, task: Task) -> TaskReport:
        hasher = make_hasher(self.settings, self.seed)
        total = max(int(self.table.starts[rank + 1] - self.table.starts[rank]), 1)
        batches = self._documents(rank, hasher, task, total)
        if rank >= len(self.inputs):
            exact = self.settings.verify_by == "exact"
            batches = read_index(self.indexes[rank - len(self.inputs)], len(self.sources), shingles=exact)
        files: list[Path] = []
        for part, pieces in groupby(_pieces(batches), key=itemgetter(0)):
            files += self._write_segment(self.table.segment(rank, part), map(itemgetter(1), pieces), hasher)
        return TaskReport(files=files)

    def _documents(self, rank: int, hasher: MinHasher, task: Task, total: int) -> Iterator[Columns]:
        seen, scope, dated = 0, self.settings.scope, self.settings.survivor == "newest"
        for table in task.read(self.inputs[rank], [*_READ, *(["language"] if scope == "language" else [])]):
            scopes = scope_names(table, scope)
            data, ends = utf8_buffer(table["text"])
            shingles = hasher.shingles(data, ends)
            columns: Columns = {
                "id": id_words(table),
                "exact": text_hashes(data, ends, scopes),
                "source": _coded(table["source"].to_pylist(), lambda name: self.sources.get(name, len(self.sources))),
                "length": np.diff(ends),
                "date": _coded(table["date"].to_pylist() if dated else [None] * table.num_rows, _date_number),
                "offset": table["offset"].to_numpy().astype(np.int64),
                "scope": _coded(scopes, _hash64).astype(np.uint64),
                "signature": hasher.minima(shingles),
                **{name: table[name] for name in TEXTS},
            }
            if self.settings.verify_by == "exact":
                columns["sets"] = shingles.sets()
            yield columns
            seen += table.num_rows
            task.beat(table.num_rows, text_bytes(table), seen / total)

    def _write_segment(self, folder: Path, pieces: Iterator[Columns], hasher: MinHasher) -> list[Path]:
        """Write one segment. What has no fixed width is written as it comes."""
        parts: list[Columns] = []
        with (
            atomic_file(folder / "strings.bin", durable=False) as strings,
            atomic_file(folder / "shingles.bin", durable=False) as sets,
        ):
            for piece in pieces:
                for name in TEXTS:
                    piece[name] = _write_texts(strings, piece[name])
                values, ends = piece.pop("sets", (np.empty(0, np.uint32), np.zeros(len(piece["id"]) + 1, np.int64)))
                starts = ends[:-1] - ends[0] + sets.tell() // 4
                values[ends[0] : ends[-1]].tofile(sets)
                parts.append(piece | {"shingles": np.column_stack([starts, np.diff(ends)])})
        columns = {name: np.concatenate([part[name] for part in parts]) for name in self.table.columns}
        arrays = [columns[name].astype(kind, copy=False) for name, (kind, _) in self.table.columns.items()]
        keys = {}
        if self.settings.exact:
            order = np.argsort(columns["exact"][:, 0], kind="stable")
            keys["exact"] = columns["exact"][order, 0], order
        if self.settings.minhash:
            keys["band"] = _sorted_bands(columns, hasher)
        return [
            *(folder / name for name in ("strings.bin", "shingles.bin")),
            save(folder / "columns.bin", *arrays),
            *(save_keys(folder / f"{name}.bin", *pair) for name, pair in keys.items()),
        ]


def _pieces(batches: Iterator[Columns]) -> Iterator[tuple[int, Columns]]:
    """(segment number, columns) of the batches, divided where a segment of SEGMENT documents ends."""
    count = 0
    for batch in batches:
        size, start = len(batch["id"]), 0
        while start < size:
            taken = min(SEGMENT - count % SEGMENT, size - start)
            piece = {name: values[start : start + taken] for name, values in batch.items() if name != "sets"}
            if "sets" in batch:
                values, ends = batch["sets"]
                piece["sets"] = values, ends[start : start + taken + 1]
            yield count // SEGMENT, piece
            count, start = count + taken, start + taken


def _write_texts(file: Any, column: pa.ChunkedArray) -> I64:
    """Append each different text once; returns int64 (rows, 2), start and size of each row's; -1 for null."""
    coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    data, ends = utf8_buffer(coded.dictionary)
    places = np.column_stack([ends[:-1] - ends[0] + file.tell(), np.diff(ends)])
    places[coded.dictionary.is_null().to_numpy(zero_copy_only=False), 1] = -1
    data[ends[0] : ends[-1]].tofile(file)
    chosen: I64 = places[coded.indices.to_numpy()]
    return chosen


def _sorted_bands(columns: Columns, hasher: MinHasher) -> tuple[U64, Array]:
    """Band keys of all documents that have words, ascending, and their rows; keys of different scopes differ."""
    real = np.flatnonzero((columns["signature"] != EMPTY).any(axis=1))
    keys = (hasher.band_keys(columns["signature"][real]) ^ columns["scope"][real, None]).ravel()
    order = np.argsort(keys)
    return keys[order], real[order // hasher.bands]


def utf8_buffer(column: pa.ChunkedArray | pa.Array) -> tuple[U8, I64]:
    """The bytes of a text column, uint8, and the boundaries of its values in them, int64 (rows + 1,)."""
    array = column if isinstance(column, pa.Array) else column.combine_chunks()
    array = (array.fill_null("") if array.null_count else array).cast(pa.large_string())  # filling copies all
    _, ends, data = array.buffers()
    if not len(array) or data is None:
        return np.frombuffer(b"", np.uint8), np.zeros(len(array) + 1, np.int64)
    bounds = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8), bounds.copy()  # writable, as elsewhere: numba compiles once for both


def text_hashes(data: U8, ends: I64, scopes: list[str]) -> U64:
    """uint64 (texts, 2): xxh3-128 of each text, composed, with case and white space folded, within its scope."""
    prefixes = {scope: f"{scope}\0".encode("utf-8", "replace") for scope in set(scopes)}
    folded = zip(scopes, fold(data, ends), strict=True)
    digests = b"".join(xxhash.xxh3_128_digest(prefixes[scope] + text) for scope, text in folded)
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


def _coded(values: list[Any], code: Callable[[Any], int]) -> I64:
    """The number that `code` gives for each value, int64; it is asked once for each different value."""
    codes = {value: code(value) for value in set(values)}
    return np.array([codes[value] for value in values], np.int64)


def _hash64(scope: str | None) -> int:
    digest = hashlib.blake2b((scope or "").encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) if scope else 0


def _date_number(date: str | None) -> int:
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


def write_index(path: Path, parts: Iterator[Columns]) -> Path:
    """Write an index file from parts with the columns id, url, exact, scope, signature and perhaps sets."""
    with atomic_file(path, durable=False) as file:
        writer = None
        for part in parts:
            table = pa.table(
                {
                    "id": hex_ids(part["id"]),
                    "url": pa.array(part["url"]).cast(pa.string()),
                    "exact": _fixed(part["exact"]),
                    "scope": pa.array(part["scope"], pa.uint64()),
                    "signature": _fixed(part["signature"]),
                }
            )
            if "sets" in part:
                values, ends = part["sets"]
                table = table.append_column("shingles", pa.LargeListArray.from_arrays(pa.array(ends), pa.array(values)))
            writer = writer or pq.ParquetWriter(
                file, table.schema, compression="none", use_dictionary=False, write_statistics=False
            )
            writer.write_table(table)
        if writer:
            writer.close()
    return path


def read_index(path: Path, source: int, *, shingles: bool) -> Iterator[Columns]:
    """Columns of the table for an earlier corpus's documents; those that an index lacks are 0 or empty."""
    names = ["id", "url", "exact", "scope", "signature", *(["shingles"] if shingles else [])]
    for table in read_batches(path, names):
        rows = table.num_rows
        columns: Columns = {
            "id": id_words(table),
            "exact": np.frombuffer(b"".join(table["exact"].to_pylist()), np.uint64).reshape(rows, -1),
            "source": np.full(rows, source),
            **dict.fromkeys(("length", "date", "offset"), np.zeros(rows, np.int64)),
            "scope": table["scope"].to_numpy(),
            "signature": np.frombuffer(b"".join(table["signature"].to_pylist()), np.uint32).reshape(rows, -1),
            "path": pa.chunked_array([[""] * rows]),
            "url": table["url"],
        }
        if shingles:
            counts = pc.list_value_length(table["shingles"]).to_numpy()
            columns["sets"] = pc.list_flatten(table["shingles"]).to_numpy(), np.cumsum([0, *counts])
        yield columns


def id_words(table: pa.Table) -> U64:
    """uint64 (rows, 2): the 128-bit document ids."""
    return np.frombuffer(bytes.fromhex("".join(table["id"].to_pylist())), np.uint64).reshape(-1, 2)


def hex_ids(words: U64) -> pa.Array:
    """Ids as documents have them, of `id_words`."""
    digits = np.ascontiguousarray(words).tobytes().hex()
    ends = np.arange(len(words) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(ends), pa.py_buffer(digits.encode()))


def _fixed(values: Array) -> pa.Array:
    """Each row's bytes as a value of fixed size."""
    kind = pa.binary(values.dtype.itemsize * values[:1].size if len(values) else 1)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
