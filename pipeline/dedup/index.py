"""The index that `dedup` leaves beside its documents, and reading those of earlier corpora (`against:`).

    runs/<name>/corpus/<NN-dedup>/index/NNNNN.parquet   id, url, exact, scope, signature (and shingles, with
                                                        `verify_by: exact`) of each kept document
    runs/<name>/corpus/<NN-dedup>/manifest.json         field `index`: what the signatures were made with

Signatures compare only if they were made alike, so an index made otherwise is refused. About 0.5 kB a document, and 4
bytes for each of its distinct shingles, about as much as its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import DedupConfig
from pipeline.documents import read_batches
from pipeline.errors import PipelineError
from pipeline.minhash import U64, VERSION
from pipeline.storage import atomic_file, changed_files, read_manifest


@dataclass(frozen=True)
class Index:
    """One file of an earlier corpus's index."""

    path: Path

    @property
    def rows(self) -> int:
        """Number of its documents."""
        return int(pq.read_metadata(self.path).num_rows)


def signature_settings(settings: DedupConfig, seed: int, hashes: int) -> dict[str, Any]:
    """What two corpora must have in common for their signatures to compare."""
    alike = {"version": VERSION, "hashes": hashes, "ngram": settings.ngram, "seed": seed, "scope": settings.scope}
    return alike | {"verify_by": settings.verify_by}


def index_folders(settings: DedupConfig, base: Path) -> list[Path]:
    """The published `dedup` folder of each corpus of `against`: a run folder or that folder itself."""
    folders = []
    for name in settings.against:
        place = base / name
        found = [place] if (place / "index").is_dir() else sorted((place / "corpus").glob("[0-9][0-9]-dedup"))
        if not found or not (found[-1] / "index").is_dir():
            raise PipelineError(
                f"dedup.against: no index at {place}; give the folder of a run whose stage `dedup` is finished"
            )
        folders.append(found[-1])
    return folders


def index_files(settings: DedupConfig, base: Path) -> list[Path]:
    """All index files of `against`, in order."""
    return [path for folder in index_folders(settings, base) for path in sorted((folder / "index").glob("*.parquet"))]


def open_indexes(settings: DedupConfig, base: Path, made_with: dict[str, Any]) -> list[Index]:
    """The indexes of `against`, checked. Raises PipelineError for a damaged one or one made otherwise."""
    for folder in index_folders(settings, base):
        manifest = read_manifest(folder) or {}
        other = manifest.get("index", {})
        for name, value in made_with.items():
            if other.get(name) != value and (name, value) != ("verify_by", "estimate"):  # which needs less
                raise PipelineError(
                    f"{folder}: its signatures were made with `{name}` {other.get(name)!r}, this recipe's with"
                    f" {value!r}; they cannot be compared. Use the same dedup settings and seed, or build that"
                    " corpus anew"
                )
        listed = {name: entry for name, entry in manifest["files"].items() if name.startswith("index/")}
        if broken := changed_files(folder, {"files": listed}):
            raise PipelineError(f"{folder / broken[0]}: the file is not what its manifest says; build that corpus anew")
    return [Index(path) for path in index_files(settings, base)]


def write_index(path: Path, parts: Iterator[dict[str, Any]]) -> Path:
    """Write an index file from columns id, url, exact, scope, signature, shingles (as in `pipeline.dedup.table`)."""
    with atomic_file(path) as file:
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


def read_index(index: Index, *, shingles: bool) -> Iterator[dict[str, Any]]:
    """Columns of the shared table for an earlier corpus's documents; they have no text, so no length or date."""
    names = ["id", "url", "exact", "scope", "signature", *(["shingles"] if shingles else [])]
    for table in read_batches(index.path, names):
        rows = table.num_rows
        nothing = np.zeros(rows, np.int64)
        columns = {
            "id": _words(bytes.fromhex("".join(table["id"].to_pylist())), rows, np.uint64),
            "exact": _words(b"".join(table["exact"].to_pylist()), rows, np.uint64),
            "scope": table["scope"].to_numpy(),
            "signature": _words(b"".join(table["signature"].to_pylist()), rows, np.uint32),
            "length": nothing,
            "date": nothing,
            "offset": nothing,
            "source": [""] * rows,
            "path": [""] * rows,
            "url": table["url"].to_pylist(),
        }
        if shingles:
            columns["shingles"] = pc.list_flatten(table["shingles"]).to_numpy()
            columns["shingle_count"] = pc.list_value_length(table["shingles"]).to_numpy().astype(np.int64)
        yield columns


def _words(data: bytes, rows: int, dtype: Any) -> U64:
    return np.frombuffer(data, dtype).reshape(rows, -1)
