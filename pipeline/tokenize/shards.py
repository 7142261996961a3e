"""Passes 3 and 4 of stage `tokenize`: buckets to MDS shards, and the table that leads back to documents.

Each bucket is shuffled by the documents' keys, packed and written by one task with `MDSWriter`; a last task
merges the indexes. This is the only module that imports streaming (and torch with it).
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import TokenizeConfig
from pipeline.stage import Build
from pipeline.step import CorpusStep, Heartbeat, TaskReport
from pipeline.storage import atomic_file, read_json
from pipeline.tokenize.encode import ENCODED
from pipeline.tokenize.pack import Piece, pack
from pipeline.tokenizer import Encoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # streaming's own dependencies warn on import
    from streaming import MDSWriter
    from streaming.base.util import merge_index

PIECES = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("split", pa.string()),
        ("stream", pa.string()),
        ("bytes", pa.int64()),
        ("sample", pa.int64()),
        ("offset", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


class PackStep(CorpusStep):
    """Shuffles, packs and writes one bucket of one stream per task."""

    def __init__(self, build: Build, groups: list[str]) -> None:
        super().__init__("pack", build.workdir, len(groups))
        self.groups, self.settings = groups, build.settings

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        group, settings = self.groups[rank], self.settings
        parts = sorted((self.workdir / ".scratch/encoded" / group).glob("*.parquet"))
        table = pa.concat_tables([pq.read_table(part, schema=ENCODED) for part in parts])
        table = table.sort_by([("key", "ascending"), ("id", "ascending")])
        encoder = Encoder(self.workdir / "tokenizer.json")
        documents = [np.frombuffer(tokens, encoder.dtype) for tokens in table["tokens"].to_pylist()]
        sequences = pack([len(tokens) for tokens in documents], settings.sequence_length + 1, settings.packing)
        ids = [bytes.fromhex(name) for name in table["id"].to_pylist()]
        files = self._write_shards(group, sequences, documents, ids, encoder)
        pieces = self._write_pieces(group, sequences, table.drop_columns(["tokens", "key"]).to_pylist())
        real = sum(map(len, documents))
        padding = len(sequences) * (settings.sequence_length + 1) - real
        counts = {"tokens": real, "padding": padding, "samples": len(sequences)}
        split, stream, _ = group.split("/")
        stream_counts = {**counts, "documents": len(documents), "bytes": sum(table["bytes"].to_pylist())}
        heartbeat.beat(len(documents), real, 1.0)
        return TaskReport({**counts, "streams": {f"{split}/{stream}": stream_counts}}, [*files, pieces])

    def _write_shards(
        self, group: str, sequences: list[list[Piece]], documents: list[Any], ids: list[bytes], encoder: Encoder
    ) -> list[Any]:
        settings: TokenizeConfig = self.settings
        folder = self.workdir / group
        shutil.rmtree(folder, ignore_errors=True)  # what a killed task left
        columns = {
            "tokens": f"ndarray:{encoder.dtype}",
            "doc_lengths": "ndarray:uint32",
            "doc_ids": "ndarray:uint8",
        }
        with MDSWriter(
            out=str(folder),
            columns=columns,
            compression=settings.compression,
            hashes=["xxh64"],
            size_limit=settings.shard_bytes,
        ) as writer:
            for sequence in sequences:
                tokens = np.full(settings.sequence_length + 1, encoder.eos_id, encoder.dtype)
                cuts = [documents[piece.document][piece.start : piece.start + piece.length] for piece in sequence]
                joined = np.concatenate(cuts)
                tokens[: len(joined)] = joined
                names = np.frombuffer(b"".join(ids[piece.document] for piece in sequence), np.uint8)
                lengths = np.array([piece.length for piece in sequence], np.uint32)
                writer.write({"tokens": tokens, "doc_lengths": lengths, "doc_ids": names.reshape(-1, 16)})
        return sorted(folder.iterdir())

    def _write_pieces(self, group: str, sequences: list[list[Piece]], rows: list[dict[str, Any]]) -> Any:
        split, stream, bucket = group.split("/")
        found = [
            rows[piece.document]
            | {"split": split, "stream": stream, "sample": sample, "offset": offset, "tokens": piece.length}
            for sample, sequence in enumerate(sequences)
            for piece, offset in zip(sequence, _starts(sequence), strict=True)
        ]
        path = self.workdir / f".scratch/pieces/{split}/{stream}/{bucket}.parquet"
        with atomic_file(path) as file:
            pq.write_table(pa.Table.from_pylist(found, schema=PIECES), file, compression="zstd")
        return path


class IndexStep(CorpusStep):
    """Merges each stream's indexes and the documents' places; samples are numbered within their stream."""

    def __init__(self, build: Build) -> None:
        super().__init__("index", build.workdir, 1)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        streams = sorted((self.workdir / ".scratch/pieces").glob("*/*"))
        files = [self.workdir / "documents.parquet"]
        with atomic_file(files[0]) as file, pq.ParquetWriter(file, PIECES, compression="zstd") as writer:
            for stream in streams:
                folder = self.workdir / stream.parent.name / stream.name
                buckets = [bucket.with_suffix("").name for bucket in sorted(stream.glob("*.parquet"))]
                indexes = [folder / bucket / "index.json" for bucket in buckets]
                logging.disable(logging.WARNING)  # merge_index warns of its temporary folder each time
                merge_index([str(index) for index in indexes], str(folder))
                logging.disable(logging.NOTSET)
                files.append(folder / "index.json")
                first = 0
                for bucket, index in zip(buckets, indexes, strict=True):
                    pieces = pq.read_table(stream / f"{bucket}.parquet")
                    shifted = pa.array(pieces["sample"].to_numpy() + first, pa.int64())
                    writer.write_table(pieces.set_column(PIECES.get_field_index("sample"), "sample", shifted))
                    first += sum(shard["samples"] for shard in read_json(index)["shards"])
        heartbeat.beat(0, 0, 1.0)
        return TaskReport(files=files)


def _starts(sequence: list[Piece]) -> Iterator[int]:
    position = 0
    for piece in sequence:
        yield position
        position += piece.length
