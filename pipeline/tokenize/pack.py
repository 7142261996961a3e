"""Pack documents into sequences of one length: passes `pack` and `index` of stage `tokenize`.

`concat` lays documents end to end and cuts wherever a sequence is full: only the last one is padded. `best_fit` (Ding
et al. 2024) cuts only documents longer than a sequence and puts each piece where it fits best, longest first: fewer
cut documents, some padding. Both are functions of the documents in their order.

A task of `pack` takes as many buckets as make up `_TASK_BYTES`, and holds one in memory: it is sorted by the documents'
shuffle keys, packed, and written to MDS shards. `index`, one task, merges the buckets' indexes, and the tables of
pieces that lead from a sample back to its documents.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.files import atomic_file, read_json, write_json
from common.mds import write_shards
from pipeline.config import TokenizeConfig
from pipeline.documents import Counts, add_counts, append_columns
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport
from pipeline.tokenize.encode import ENCODED, bundle, encoder_of, special_ids
from pipeline.tokenize.tokenizer import Encoder

PIECES = pa.schema(
    [
        *(ENCODED.field(name) for name in ("id", "copy", "url", "source", "language")),
        ("split", pa.string()),
        ("stream", pa.string()),
        ("bytes", pa.int64()),
        ("sample", pa.int64()),
        ("offset", pa.int64()),
        ("tokens", pa.int64()),
    ]
)
_TASK_BYTES = 64_000_000  # of encoded buckets


class Piece(NamedTuple):
    """Tokens `start` to `start + length` of a document, by its number."""

    document: int
    start: int
    length: int


def pack(lengths: list[int], size: int, packing: str = "concat") -> list[list[Piece]]:
    """Sequences as lists of pieces whose lengths sum to at most `size`; every token is in exactly one.

    >>> pack([3, 4], 5)
    [[Piece(document=0, start=0, length=3), Piece(document=1, start=0, length=2)],
     [Piece(document=1, start=2, length=2)]]
    """
    return _best_fit(lengths, size) if packing == "best_fit" else _concat(lengths, size)


def _concat(lengths: list[int], size: int) -> list[list[Piece]]:
    sequences: list[list[Piece]] = []
    room = 0
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            if room == 0:
                sequences.append([])
                room = size
            taken = min(room, length - start)
            sequences[-1].append(Piece(document, start, taken))
            start += taken
            room -= taken
    return sequences


def _best_fit(lengths: list[int], size: int) -> list[list[Piece]]:
    pieces = [
        Piece(document, start, min(size, length - start))
        for document, length in enumerate(lengths)
        for start in range(0, length, size)
    ]
    sequences: list[list[Piece]] = []
    rooms: list[tuple[int, int]] = []  # (room left, sequence), sorted
    for piece in sorted(pieces, key=lambda piece: (-piece.length, piece)):
        tightest = bisect_left(rooms, (piece.length, -1))
        if tightest < len(rooms):
            room, sequence = rooms.pop(tightest)
        else:
            room, sequence = size, len(sequences)
            sequences.append([])
        sequences[sequence].append(piece)
        if room > piece.length:
            insort(rooms, (room - piece.length, sequence))
    # They were filled longest first; sorted by first document they are in the shuffle's order again.
    return sorted(sequences, key=min)


class PackPass(Pass):
    """Shuffles, packs and writes buckets, each to shards of its own."""

    def __init__(self, build: Build[TokenizeConfig], groups: Sequence[tuple[str, int]]) -> None:
        self.bundles = bundle(groups, _TASK_BYTES)
        super().__init__("pack", build.workdir, len(self.bundles))
        self.settings: TokenizeConfig = build.settings

    def reads(self, rank: int) -> Sequence[Path]:
        encoded = [self.workdir / f".scratch/encoded/{group}/*" for group in self.bundles[rank]]
        return [self.workdir / "tokenizer.json", *encoded]

    def process(self, rank: int, task: Task) -> TaskReport:
        encoder = encoder_of(self.workdir)
        report = TaskReport()
        for number, group in enumerate(self.bundles[rank]):
            add_counts(report.counts, self._pack(group, encoder, report.files))
            task.beat(0, 0, (number + 1) / len(self.bundles[rank]))
        return report

    def _pack(self, group: str, encoder: Encoder, files: list[Path]) -> Counts:
        parts = sorted((self.workdir / ".scratch/encoded" / group).glob("*.parquet"))
        table = pa.concat_tables([pq.read_table(part, schema=ENCODED) for part in parts])
        table = table.sort_by([("key", "ascending"), ("id", "ascending"), ("copy", "ascending")])
        documents = [np.frombuffer(tokens, encoder.dtype) for tokens in table["tokens"].to_pylist()]
        size = self.settings.sequence_length + 1
        sequences = pack([len(tokens) for tokens in documents], size, self.settings.packing)
        ids = np.frombuffer(bytes.fromhex("".join(table["id"].to_pylist())), np.uint8).reshape(-1, 16)
        samples = _samples(sequences, documents, ids, special_ids(self.settings, encoder)[1], size)
        files += write_shards(
            self.workdir / group,
            samples,
            {"tokens": encoder.dtype, "doc_lengths": np.dtype(np.uint32), "doc_ids": np.dtype(np.uint8)},
            compression=self.settings.compression,
            hashes=self.settings.hashes,
            size_limit=self.settings.shard_bytes,
        )
        files.append(self._write_pieces(group, sequences, table.drop_columns(["tokens", "key"])))
        tokens = sum(map(len, documents))
        pieces = np.bincount([piece.document for sequence in sequences for piece in sequence])
        counts = {
            "tokens": tokens,
            "padding": len(sequences) * size - tokens,
            "samples": len(sequences),
            "cut_documents": int((pieces > 1).sum()),
        }
        of_documents = {"documents": len(documents), "bytes": sum(table["bytes"].to_pylist())}
        return {**counts, "streams": {group.rpartition("/")[0]: {**counts, **of_documents}}}

    def _write_pieces(self, group: str, sequences: list[list[Piece]], rows: pa.Table) -> Path:
        split, stream, bucket = group.split("/")
        pieces = [piece for sequence in sequences for piece in sequence]
        lengths = [np.array([piece.length for piece in sequence]) for sequence in sequences]
        offsets = np.concatenate([np.cumsum(row) - row for row in lengths])
        samples = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
        columns: dict[str, Any] = {"split": [split] * len(pieces), "stream": [stream] * len(pieces), "sample": samples}
        columns |= {"offset": offsets, "tokens": np.concatenate(lengths)}
        rows = rows.take([piece.document for piece in pieces])
        table = append_columns(rows, map(PIECES.field, columns), columns.values())
        path = self.workdir / f".scratch/pieces/{split}/{stream}/{bucket}.parquet"
        with atomic_file(path, durable=False) as file:
            pq.write_table(table.select(PIECES.names).cast(PIECES), file, compression="zstd")
        return path


class IndexPass(Pass):
    """Merges each stream's shard indexes, and all pieces into documents.parquet; samples are numbered by stream."""

    def __init__(self, build: Build[TokenizeConfig]) -> None:
        super().__init__("index", build.workdir, 1)

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.workdir / name for name in (".scratch/pieces/*", "*/index.json", ".receipts/encode-*")]

    def process(self, rank: int, task: Task) -> TaskReport:
        streams = sorted((self.workdir / ".scratch/pieces").glob("*/*"))
        files = [self.workdir / "documents.parquet"]
        with atomic_file(files[0], durable=False) as file, pq.ParquetWriter(file, PIECES, compression="zstd") as writer:
            for stream in streams:
                folder = self.workdir / stream.parent.name / stream.name
                buckets = [bucket.with_suffix("").name for bucket in sorted(stream.glob("*.parquet"))]
                files.append(merge_index(folder, buckets))
                first = 0
                for bucket in buckets:
                    pieces = pq.read_table(stream / f"{bucket}.parquet")
                    shifted = pa.array(pieces["sample"].to_numpy() + first, pa.int64())
                    writer.write_table(pieces.set_column(PIECES.get_field_index("sample"), "sample", shifted))
                    first += sum(shard["samples"] for shard in read_json(folder / bucket / "index.json")["shards"])
        task.beat(0, 0, 1.0)
        return TaskReport({"languages": self._fertility()}, files)

    def _fertility(self) -> Counts:
        """Bytes per token of each language, from the counts of the encoding tasks."""
        total = Counts()
        for path in sorted((self.workdir / ".receipts").glob("encode-*.json")):
            add_counts(total, read_json(path)["counts"].get("languages", {}))
        return {name: {"bytes_per_token": round(of["bytes"] / max(of["tokens"], 1), 4)} for name, of in total.items()}


def merge_index(folder: Path, buckets: Sequence[str]) -> Path:
    """Write the index of a stream over the shards of its buckets, as streaming's merge_index does."""
    shards = []
    for bucket in buckets:
        for shard in read_json(folder / bucket / "index.json")["shards"]:
            for data in (shard["raw_data"], shard["zip_data"]):
                if data:
                    data["basename"] = f"{bucket}/{data['basename']}"
            shards.append(shard)
    write_json(folder / "index.json", {"version": 2, "shards": shards})
    return folder / "index.json"


def _samples(
    sequences: list[list[Piece]], documents: list[Any], ids: Any, end: int, size: int
) -> Iterator[dict[str, Any]]:
    """The samples of docs/format.md; the end token fills what a sequence leaves free."""
    for sequence in sequences:
        parts = [documents[piece.document][piece.start : piece.start + piece.length] for piece in sequence]
        padding = np.full(size - sum(map(len, parts)), end, documents[0].dtype)
        yield {
            "tokens": np.concatenate([*parts, padding]),
            "doc_lengths": np.array([piece.length for piece in sequence], np.uint32),
            "doc_ids": ids[[piece.document for piece in sequence]],
        }
