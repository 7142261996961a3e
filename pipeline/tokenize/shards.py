"""MDS shards, written with `MDSWriter` and read back with streaming's own reader.

This is the only module that imports streaming (and torch with it).
"""

from __future__ import annotations

import shutil
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import zstd  # type: ignore[import-untyped]

from pipeline.config import TokenizeConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # streaming's own dependencies warn on import
    from streaming import MDSWriter
    from streaming.base.compression import decompress
    from streaming.base.format import reader_from_json
    from streaming.base.hashing import get_hash

# What readers raise on damaged shards.
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zlib.error, zstd.Error, brotli.error)


def write_shards(
    folder: Path, samples: Iterable[dict[str, Any]], dtype: np.dtype[Any], settings: TokenizeConfig
) -> list[Path]:
    """Write samples of docs/format.md to `folder`, index.json included. Returns the files."""
    shutil.rmtree(folder, ignore_errors=True)  # what a killed task left
    columns = {"tokens": f"ndarray:{dtype}", "doc_lengths": "ndarray:uint32", "doc_ids": "ndarray:uint8"}
    with MDSWriter(
        out=str(folder),
        columns=columns,
        compression=settings.compression,
        hashes=settings.hashes,
        size_limit=settings.shard_bytes,
    ) as writer:
        for sample in samples:
            writer.write(sample)
    return sorted(folder.iterdir())


def file_hash(algorithm: str, path: Path) -> str:
    """Hash of a file's content by the name that index.json gives it."""
    return str(get_hash(algorithm, path.read_bytes()))


def read_shard(folder: Path, entry: dict[str, Any], scratch: Path) -> Any:
    """A reader (`len(reader)`, `reader[i]`) of one entry of index.json; a compressed shard is unpacked in `scratch`.

    Raises one of BROKEN where entry or file are not what MDS prescribes.
    """
    reader = reader_from_json(str(folder), None, entry)
    if reader.zip_data is not None:
        raw = decompress(reader.compression, (folder / reader.zip_data.basename).read_bytes())
        (scratch / "shard.mds").write_bytes(raw)
        reader.dirname, reader.raw_data.basename = str(scratch), "shard.mds"
    return reader
