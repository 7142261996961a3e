"""Shards folders: read as written, checked, and refused with the file's name where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import TrainerError
from tests.trainer.corpus import EOS, byte_tokenizer, copy_shards, pack, write_manifest, write_mds, write_shards
from trainer import cache
from trainer.cache import Cache
from trainer.config import DataConfig
from trainer.dataset import MdsDataset
from trainer.sampler import Phase
from trainer.shards import Shards, open_shards

TEXTS = ["The first document.", "A second one, longer than the first, so that it is cut.", "Third."]


def all_of(shards: Shards):
    size = len(shards.train[0].data)
    return shards.read(shards.train, np.stack((np.zeros(size, np.int64), np.arange(size)), axis=1))


@pytest.mark.parametrize("compression", [None, "zstd", "gz"])
def test_samples_come_back_as_written(tmp_path: Path, compression: str | None) -> None:
    folder = write_shards(tmp_path / "shards", {"train/a": (TEXTS, 1.5)}, length=16, compression=compression)
    shards = open_shards(folder, tmp_path / "cache")
    assert (shards.sequence_length, shards.vocab_size, shards.special.end) == (16, 257, EOS)
    assert [(stream.name, stream.weight) for stream in shards.train] == [("a", 1.5)]
    expected = pack(TEXTS, 16)
    samples = all_of(shards)
    assert np.array_equal(samples.tokens, [sample["tokens"][:-1] for sample in expected])
    assert np.array_equal(samples.targets[:-1], [sample["tokens"][1:] for sample in expected[:-1]])
    assert byte_tokenizer().decode(samples.tokens[0].tolist()) == "The first docume"


def test_documents_and_padding(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", {"train/a": (["abcde", "fg", "hijkl"], 1.0)}, length=8)
    samples = all_of(open_shards(folder, tmp_path / "cache"))
    assert samples.documents is not None
    assert samples.documents.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]]
    # 15 tokens: the second sample holds 6 and three of padding, which are never targets
    assert (samples.targets[0] >= 0).all()
    assert samples.targets[1].tolist()[5:] == [-100, -100, -100]
    assert samples.targets[1][4] == EOS


def test_decompressed_shards_are_reused_and_repaired(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", {"train/a": (TEXTS, 1.0)}, length=16)
    expected = all_of(open_shards(folder, tmp_path / "cache")).tokens
    (cached,) = (tmp_path / "cache").rglob("*.mds")
    stamp = cached.stat().st_mtime_ns
    assert np.array_equal(all_of(open_shards(folder, tmp_path / "cache")).tokens, expected)
    assert cached.stat().st_mtime_ns == stamp
    flip(cached)
    assert np.array_equal(all_of(open_shards(folder, tmp_path / "cache")).tokens, expected)
    assert sorted(folder.rglob("*.mds")) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_flipped_bit_in_a_shard_is_found_and_named(tmp_path: Path, shards: Path, compression: str | None) -> None:
    folder = write_shards(tmp_path / "shards", {"train/a": (TEXTS, 1.0)}, length=16, compression=compression)
    (shard,) = folder.rglob("shard.*")
    flip(shard)
    with pytest.raises(TrainerError, match=rf"{shard.name} is corrupted: its xxh3_128"):
        all_of(open_shards(folder, tmp_path / "cache"))


@pytest.mark.parametrize("name", ["train/first/index.json", "tokenizer.json", "token_bytes.npy"])
def test_small_files_are_checked_at_once(tmp_path: Path, shards: Path, name: str) -> None:
    folder = copy_shards(shards, tmp_path / "shards")
    flip(folder / name)
    with pytest.raises(TrainerError, match=rf"{name} is corrupted"):
        open_shards(folder, tmp_path / "cache")


def test_truncated_and_missing_files_are_named(tmp_path: Path, shards: Path) -> None:
    folder = copy_shards(shards, tmp_path / "shards")
    shard = sorted(folder.rglob("*.zstd"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(TrainerError, match=rf"{shard.name} has \d+ bytes, but the manifest lists \d+"):
        open_shards(folder, tmp_path / "cache")
    shard.unlink()
    with pytest.raises(TrainerError, match=rf"{shard.name} is missing"):
        open_shards(folder, tmp_path / "cache")


def test_what_is_no_shards_folder_says_so(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(TrainerError, match="does not exist or is not a folder"):
        open_shards(tmp_path / "nowhere", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainerError, match="not a folder of MDS shards"):
        open_shards(tmp_path / "empty", tmp_path / "cache")
    unfinished = copy_shards(shards, tmp_path / "unfinished")
    (unfinished / "manifest.json").unlink()
    with pytest.raises(TrainerError, match="unfinished; build it again"):
        open_shards(unfinished, tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"streams": {}}, "no training samples"),
        ({"streams": {"train/first": {"samples": 0, "weight": 1.0}}}, "no training samples"),
        ({"streams": {"test/first": {"samples": 1, "weight": 1.0}}}, "in no known split"),
        ({"streams": {"train/first": {"weight": 1.0}}}, "not a shards manifest"),
        ({"eos_id": None}, "not a shards manifest"),
    ],
)
def test_manifests_that_do_not_hold_are_refused(tmp_path: Path, shards: Path, change: dict, message: str) -> None:
    folder = copy_shards(shards, tmp_path / "shards")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    write_manifest(folder, manifest | change)
    with pytest.raises(TrainerError, match=message):
        open_shards(folder, tmp_path / "cache")


def test_phases_of_the_mixture(tmp_path: Path, shards: Path) -> None:
    assert open_shards(shards, tmp_path / "cache").phases(20) == [Phase(0, [1.0, 2.0])]
    folder = copy_shards(shards, tmp_path / "shards")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    first = {"start": 0.0, "weights": {"train/first": 1.0, "train/second": 2.0}}
    late = {"start": 0.9, "weights": {"train/first": 0.0, "train/second": 1.0}}
    write_manifest(folder, manifest | {"phases": [first, late]})
    opened = open_shards(folder, tmp_path / "cache")
    assert opened.phases(20) == [Phase(0, [1.0, 2.0]), Phase(18, [0.0, 1.0])]
    assert opened.phases(1) == [Phase(0, [1.0, 2.0]), Phase(1, [0.0, 1.0])]
    write_manifest(folder, manifest | {"phases": [first | {"weights": {"train/first": 1.0}}]})
    with pytest.raises(TrainerError, match="not a shards manifest"):
        open_shards(folder, tmp_path / "cache")


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    write_mds(tmp_path / "plain", [], {"tokens": "ndarray:uint16"})
    with pytest.raises(TrainerError, match="no samples"):
        open_shards(tmp_path / "plain", tmp_path / "cache")


def test_a_vocabulary_that_the_shards_exceed_is_refused(tmp_path: Path, shards: Path) -> None:
    folder = copy_shards(shards, tmp_path / "shards")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    write_manifest(folder, manifest | {"vocab_size": 100})
    opened = open_shards(folder, tmp_path / "cache")
    with pytest.raises(TrainerError, match=r"sample \d+ holds token \d+, outside the vocabulary of 100"):
        all_of(opened)


# Folders that other people's scripts wrote: no manifest, perhaps no tokenizer.


def plain(count: int, length: int, dtype: str) -> list[dict]:
    return [{"tokens": np.arange(start, start + length).astype(dtype)} for start in range(count)]


def test_a_plain_mds_folder_works(tmp_path: Path) -> None:
    write_mds(tmp_path / "set", plain(5, 9, "uint32"), {"tokens": "ndarray:uint32"})
    shards = open_shards(tmp_path / "set", tmp_path / "cache")
    assert (shards.sequence_length, shards.vocab_size, shards.special.end) == (8, 13, None)
    assert [stream.name for stream in shards.train] == ["set"]
    assert not shards.has_documents
    samples = all_of(shards)
    assert samples.documents is None
    assert samples.tokens[4].tolist() == list(range(4, 12))
    assert samples.targets[4].tolist() == list(range(5, 13))


def test_plain_splits_raw_int64_and_compression(tmp_path: Path) -> None:
    """LLM Foundry's layout: train/ and val/ folders, tokens as the bytes of int64 ids, zstd."""
    for split, count in (("train", 4), ("val", 2)):
        rows = [{"tokens": row["tokens"].tobytes()} for row in plain(count, 9, "int64")]
        write_mds(tmp_path / "set" / split, rows, {"tokens": "bytes"}, compression="zstd", hashes=["sha1"])
    byte_tokenizer().save(str(tmp_path / "set" / "tokenizer.json"))
    shards = open_shards(tmp_path / "set", tmp_path / "cache")
    assert [stream.name for stream in shards.train] == ["train"]
    assert [stream.name for stream in shards.validation] == ["val"]
    assert shards.vocab_size == 257
    assert shards.tokenizer_sha256 is not None
    assert all_of(shards).targets[3].tolist() == list(range(4, 12))
    (shard,) = (tmp_path / "set" / "train").glob("*.zstd")
    flip(shard)
    with pytest.raises(TrainerError, match=rf"{shard.name} is corrupted: its sha1"):
        all_of(open_shards(tmp_path / "set", tmp_path / "other-cache"))


def test_a_broken_compressed_shard_without_hashes_is_named(tmp_path: Path) -> None:
    write_mds(tmp_path / "set", plain(4, 9, "uint16"), {"tokens": "ndarray:uint16"}, compression="zstd")
    (shard,) = (tmp_path / "set").glob("*.zstd")
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(TrainerError, match=rf"{shard.name} cannot be decompressed"):
        open_shards(tmp_path / "set", tmp_path / "cache")


def test_plain_folders_without_usable_tokens_are_refused(tmp_path: Path) -> None:
    write_mds(tmp_path / "text", [{"text": "hello"}], {"text": "str"})
    with pytest.raises(TrainerError, match="has columns text; a `tokens` column"):
        open_shards(tmp_path / "text", tmp_path / "cache")
    write_mds(tmp_path / "string", [{"tokens": "1 2 3"}], {"tokens": "str"})
    with pytest.raises(TrainerError, match="a `tokens` value is a str"):
        open_shards(tmp_path / "string", tmp_path / "cache")
    write_mds(tmp_path / "code", [{"tokens": [1, 2]}], {"tokens": "pkl"})
    with pytest.raises(TrainerError, match="unsafe type"):
        open_shards(tmp_path / "code", tmp_path / "cache")
    rows = [{"tokens": np.arange(8, dtype=np.uint16).tobytes()}]
    write_mds(tmp_path / "short", rows, {"tokens": "bytes"})
    with pytest.raises(TrainerError, match="must hold int64 ids"):
        open_shards(tmp_path / "short", tmp_path / "cache")
    ragged = [*plain(2, 5, "uint16"), *plain(1, 7, "uint16")]
    write_mds(tmp_path / "ragged", ragged, {"tokens": "ndarray:uint16"})
    with pytest.raises(
        TrainerError, match=r"sample 2 has 7 tokens, expected at most 5; set `train.data.sequence_length`"
    ):
        open_shards(tmp_path / "ragged", tmp_path / "cache", DataConfig(sequence_length=4))


def test_other_formats_and_broken_indexes_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_mds(folder, plain(4, 9, "uint16"), {"tokens": "ndarray:uint16"})
    index = json.loads((folder / "index.json").read_bytes())
    for content, message in (
        ("{", "not an MDS index"),
        ('{"shards": 3}', "`shards` must be a list"),
        (json.dumps(index | {"shards": [index["shards"][0] | {"version": 9}]}), "cannot be read as MDS"),
        (json.dumps(index | {"shards": [{"format": "mds", "version": 2}]}), "cannot be read as MDS"),
    ):
        (folder / "index.json").write_text(content)
        with pytest.raises(TrainerError, match=message):
            MdsDataset(folder, Cache(tmp_path / "cache", 10**6))


def test_a_damaged_sample_without_hashes_is_named(tmp_path: Path) -> None:
    write_mds(tmp_path / "set", plain(4, 9, "uint16"), {"tokens": "ndarray:uint16"})
    (shard,) = (tmp_path / "set").glob("*.mds")
    data = bytearray(shard.read_bytes())
    data[-9 * 2 - 1] = 200  # the last sample's length
    shard.write_bytes(data)
    with pytest.raises(TrainerError, match=rf"{shard.name}: sample 3 cannot be decoded"):
        open_shards(tmp_path / "set", tmp_path / "cache")


def test_few_shards_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "OPEN", 2)
    write_mds(tmp_path / "set", plain(2000, 9, "uint16"), {"tokens": "ndarray:uint16"})
    data = MdsDataset(tmp_path / "set", Cache(tmp_path / "cache", 10**6))
    assert len(data.shards) > 5
    for index in np.random.default_rng(1).permutation(2000).tolist():
        assert data.sample(index)["tokens"].tolist() == list(range(index, index + 9))
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert len([path for path in links if path.is_relative_to(tmp_path)]) <= 3  # one may be collected later
