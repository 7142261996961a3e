"""Shards without streaming: the bytes that its writer writes, and what its reader reads."""

from __future__ import annotations

import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.files import read_json
from common.mds import BROKEN, Shard, decompress, write_shards

COLUMNS = {"tokens": np.dtype(np.uint16), "doc_lengths": np.dtype(np.uint32), "doc_ids": np.dtype(np.uint8)}
LIMIT = 6000


def samples() -> list[dict[str, np.ndarray[Any, Any]]]:
    """One to 300 pieces a sample, so that lengths take one byte and two."""
    chance = np.random.default_rng(1)
    return [
        {
            "tokens": chance.integers(0, 65_536, size, np.uint16),
            "doc_lengths": chance.integers(1, 2**32, pieces, np.uint32),
            "doc_ids": chance.integers(0, 256, (pieces, 16), np.uint8),
        }
        for size, pieces in [(1, 1), (255, 3), (256, 1), (300, 255), (17, 256), (1000, 300), (2, 2), (900, 9)]
    ]


def write_by_streaming(folder: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("streaming", exc_type=ImportError)
        from streaming import MDSWriter
    columns = {name: f"ndarray:{dtype}" for name, dtype in COLUMNS.items()}
    with MDSWriter(out=str(folder), columns=columns, size_limit=LIMIT, **options) as writer:
        for sample in samples():
            writer.write(sample)


@pytest.mark.parametrize("compression", [None, "zstd", "zstd:7", "br:4", "bz2"])
def test_files_are_those_of_mdswriter(tmp_path: Path, compression: str | None) -> None:
    hashes = ["sha1", "xxh64"]
    write_by_streaming(tmp_path / "theirs", compression=compression, hashes=hashes)
    ours = write_shards(tmp_path / "ours", samples(), COLUMNS, compression=compression, hashes=hashes, size_limit=LIMIT)
    assert {path.name for path in ours} == {path.name for path in (tmp_path / "theirs").iterdir()}
    assert len(ours) > 3
    for path in ours:
        assert path.read_bytes() == (tmp_path / "theirs" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("compression", ["gz:6", "snappy"])
def test_other_packing_of_the_same_bytes(tmp_path: Path, compression: str) -> None:
    """gzip without a time stamp, snappy by another library."""
    write_by_streaming(tmp_path / "theirs", compression=compression)
    *ours, index = write_shards(tmp_path / "ours", samples(), COLUMNS, compression=compression, size_limit=LIMIT)
    for path, entry in zip(ours, read_json(index)["shards"], strict=True):
        size = entry["raw_data"]["bytes"]
        other = (tmp_path / "theirs" / path.name).read_bytes()
        assert decompress(compression, path.read_bytes(), size) == decompress(compression, other, size)
        assert compression == "snappy" or path.read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize("compression", [None, "zstd", "br", "bz2", "gz", "snappy"])
def test_samples_come_back(tmp_path: Path, compression: str | None) -> None:
    write_shards(tmp_path / "a", samples(), COLUMNS, compression=compression, hashes=["md5"], size_limit=LIMIT)
    entries = read_json(tmp_path / "a/index.json")["shards"]
    assert len(entries) > 1
    found = [shard[i] for shard in (Shard(tmp_path / "a", entry) for entry in entries) for i in range(len(shard))]
    for sample, expected in zip(found, samples(), strict=True):
        assert sample.keys() == expected.keys()
        assert all(np.array_equal(sample[name], expected[name]) for name in sample)
        assert all(sample[name].dtype == COLUMNS[name] for name in sample)


VALUES: dict[str, list[Any]] = {
    "ndarray": [np.arange(6, dtype=np.int32).reshape(2, 3), np.ones(300, np.float16)],
    "ndarray:float32": [np.ones((2, 300, 1), np.float32), np.zeros(4, np.float32)],
    "ndarray:uint8:2,3": [np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones((2, 3), np.uint8)],
    "bytes": [b"\x00\xff", b""],
    "str": ["é", ""],
    "int": [-(2**62), 7],
    "json": [{"a": [1, None]}, "x"],
    "str_int": [2**80, -1],
    "str_float": [0.1, -1e300],
    "str_decimal": [Decimal("0.10"), Decimal(3)],
    **{name: [1, 100] for name in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")},
    **{name: [0.5, -2.0] for name in ("float16", "float32", "float64")},
}


@pytest.mark.parametrize("compression", [None, "zstd", "br:3", "bz2", "gz:1", "snappy"])
def test_every_encoding_of_mdswriter_reads_as_by_mdsreader(tmp_path: Path, compression: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("streaming", exc_type=ImportError)
        from streaming import MDSWriter
        from streaming.base.format import reader_from_json
    rows = [{name: values[number] for name, values in VALUES.items()} for number in range(2)]
    columns = {name: name for name in VALUES}
    with MDSWriter(out=str(tmp_path / "a"), columns=columns, compression=compression) as writer:
        for row in rows:
            writer.write(row)
    (entry,) = read_json(tmp_path / "a/index.json")["shards"]
    if compression:
        packed, size = tmp_path / "a" / entry["zip_data"]["basename"], entry["raw_data"]["bytes"]
        (tmp_path / "a" / entry["raw_data"]["basename"]).write_bytes(decompress(compression, packed.read_bytes(), size))
    ours, theirs = Shard(tmp_path / "a", entry), reader_from_json(str(tmp_path / "a"), None, entry)
    for number, row in enumerate(rows):
        sample, expected = ours[number], theirs[number]
        assert sample.keys() == row.keys()
        for name, value in sample.items():
            assert type(value) is type(expected[name]), name
            assert np.array_equal(value, expected[name]), name
            assert np.array_equal(value, row[name]), name


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damage_is_noticed(tmp_path: Path, compression: str | None) -> None:
    path, _ = write_shards(tmp_path / "a", samples()[:2], COLUMNS, compression=compression, size_limit=LIMIT)
    (entry,) = read_json(tmp_path / "a/index.json")["shards"]
    whole = path.read_bytes()
    for damaged in (b"", whole[:3], whole[:-5], bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(BROKEN):
            Shard(tmp_path / "a", entry)[0]
    path.write_bytes(whole)
    with pytest.raises(BROKEN, match="unsafe type"):
        Shard(tmp_path / "a", entry | {"column_encodings": ["pkl", "pkl", "pkl"]})
    with pytest.raises(IndexError):
        Shard(tmp_path / "a", entry)[2]


def test_values_of_another_type_are_refused(tmp_path: Path) -> None:
    wrong = [{name: array.astype(np.int64) for name, array in sample.items()} for sample in samples()]
    with pytest.raises(ValueError, match="expected uint"):
        write_shards(tmp_path / "a", wrong, COLUMNS, size_limit=LIMIT)
