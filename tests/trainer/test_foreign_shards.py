"""Other people's MDS folders: which streams they have, which are held out, what is checked before the first step."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from common.errors import TrainerError
from tests.trainer.conftest import Recorder, small_run
from tests.trainer.corpus import byte_tokenizer, write_mds
from trainer.config import DataConfig
from trainer.loop import train
from trainer.shards import Shards, open_shards, split_of

UINT16 = {"tokens": "ndarray:uint16"}


def rows(count: int, length: int = 9, seed: int = 0, vocabulary: int = 50) -> list[dict]:
    draw = np.random.default_rng(seed)
    return [{"tokens": draw.integers(0, vocabulary, length).astype(np.uint16)} for _ in range(count)]


def streams(shards: Shards) -> tuple[list[str], list[str]]:
    return [stream.name for stream in shards.train], [stream.name for stream in shards.validation]


HELD_OUT = [
    "val", "valid", "Validation", "VAL", "dev", "Dev_2", "test", "eval", "holdout", "held-out", "hold_out", "val_small",
    "val-00", "c4-val", "validation_matched", "validSmall", "webDev", "testset", "eval.books", "x/val", "val/books",
    "evaluation-2024", "3_test_3",
]  # fmt: skip
TRAINED = [
    "train",
    "books",
    "latest",
    "values",
    "medieval",
    "developers",
    "contest-entries",
    "interval",
    "web/train-00",
]


def test_names_of_splits() -> None:
    assert {name: split_of(Path(name)) for name in HELD_OUT} == dict.fromkeys(HELD_OUT, "validation")
    assert {name: split_of(Path(name)) for name in TRAINED} == dict.fromkeys(TRAINED, "train")
    for unclear in ("train-test", "val/train", "training/unit-test", "trainval", "train_dev"):
        assert split_of(Path(unclear)) is None


def test_the_recipe_decides_where_names_do_not(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "train/../train-test", "gold")):
        write_mds(tmp_path / "set" / name, rows(4, seed=number), UINT16)
    with pytest.raises(
        TrainerError, match=r"is train-test trained on or held out\?.*train.data.validation=\[train-test"
    ):
        open_shards(tmp_path / "set", tmp_path / "cache")

    def opened(*validation: str) -> tuple[list[str], list[str]]:
        return streams(open_shards(tmp_path / "set", tmp_path / "cache", DataConfig(validation=list(validation))))

    assert opened() == (["gold", "train", "train-test"], [])
    assert opened("gold") == (["train", "train-test"], ["gold"])
    assert opened("train-*", "go*") == (["train"], ["gold", "train-test"])
    with pytest.raises(TrainerError, match=r"'silver' matches none of the data sets gold, train, train-test"):
        opened("silver")
    with pytest.raises(TrainerError, match=r"held-out data sets only"):
        opened("*")


def test_links_are_followed_and_none_is_lost(tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "set"
    for number, name in enumerate(("web", "books", "val")):
        write_mds(store / name, rows(4, seed=number), UINT16)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/web").symlink_to(store / "web")
    (folder / "books").symlink_to("../store/books")
    (folder / "val").symlink_to(store / "val")
    assert streams(open_shards(folder, tmp_path / "cache")) == (["books", "deep/web"], ["val"])
    (tmp_path / "linked").symlink_to(folder)
    assert streams(open_shards(tmp_path / "linked", tmp_path / "cache"))[1] == ["val"]
    (folder / "deep/code").symlink_to(store / "code")
    with pytest.raises(TrainerError, match=r"deep/code is a link to .*store/code, which does not exist"):
        open_shards(folder, tmp_path / "cache")
    (folder / "deep/code").unlink()
    (folder / "deep/up").symlink_to(folder)
    with pytest.raises(TrainerError, match=r"deep/up is a link to .* a folder above it"):
        open_shards(folder, tmp_path / "cache")
    (folder / "deep/up").unlink()
    (folder / "deep/same").symlink_to(store / "val")
    with pytest.raises(TrainerError, match=r"store/val is both trained on and held out"):
        open_shards(folder, tmp_path / "cache")
    (folder / "deep/same").unlink()
    (store / "web/index.json").unlink()
    with pytest.raises(TrainerError, match=r"deep/web has no index.json"):
        open_shards(folder, tmp_path / "cache")


def test_an_output_never_lies_among_the_shards(tmp_path: Path) -> None:
    write_mds(tmp_path / "mds/train", rows(8), UINT16)
    write_mds(tmp_path / "mds/other", rows(8), UINT16)
    before = sorted(tmp_path.rglob("*"))
    for shards, output in (
        ("mds", "mds/out"),
        ("mds/train", "mds/train"),
        ("mds/train", "mds/other"),
        ("mds/train", "mds"),
    ):
        with pytest.raises(TrainerError, match=r"name another folder with `--output`"):
            train(small_run(), tmp_path / shards, tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


def replace(folder: Path, **options: object) -> None:
    write_mds(folder, rows(64, 33, seed=2), UINT16, **options)


def swap_one(folder: Path) -> None:
    shard = sorted(folder.glob("*.mds"))[0]
    data = bytearray(shard.read_bytes())
    data[-40:-38] = b"\x01\x00"
    shard.write_bytes(data)


@pytest.mark.parametrize("change", [replace, swap_one])
def test_other_samples_under_the_same_index_are_refused(tmp_path: Path, change: object) -> None:
    write_mds(tmp_path / "set", rows(64, 33), UINT16)
    index = (tmp_path / "set/index.json").read_bytes()
    train(small_run(steps=2), tmp_path / "set", tmp_path / "out")
    assert train(small_run(steps=2), tmp_path / "set", tmp_path / "out").step == 2
    if change is replace:
        for path in (tmp_path / "set").iterdir():
            path.unlink()
        (tmp_path / "set").rmdir()
    change(tmp_path / "set")
    assert (tmp_path / "set/index.json").read_bytes() == index
    with pytest.raises(
        TrainerError, match=r"shards: checkpoint .*the samples differ, or their files were written again"
    ):
        train(small_run(steps=4), tmp_path / "set", tmp_path / "out")


def test_shards_with_hashes_may_be_copied(tmp_path: Path) -> None:
    write_mds(tmp_path / "set", rows(8), UINT16, hashes=["xxh64"])
    first = open_shards(tmp_path / "set", tmp_path / "cache").fingerprint
    for path in (tmp_path / "set").iterdir():
        os.utime(path, ns=(1, 1))
    assert open_shards(tmp_path / "set", tmp_path / "cache").fingerprint == first


def test_lengths_are_settled_before_the_first_step(tmp_path: Path) -> None:
    for name, samples in {
        "longer/train": rows(8, 33), "longer/val": rows(2, 65), "late": [*rows(40, 33), *rows(1, 60)],
        "short": [*rows(1, 10), *rows(8, 33)], "one": [*rows(1, 1), *rows(8, 33)], "none": rows(4, 1),
    }.items():  # fmt: skip
        write_mds(tmp_path / name, samples, UINT16)
    with pytest.raises(
        TrainerError, match=r"val: sample 0 has 65 tokens, expected at most 33; set `train.data.sequence_l"
    ):
        train(small_run(), tmp_path / "longer", tmp_path / "out")
    assert open_shards(tmp_path / "longer", tmp_path / "cache", DataConfig(sequence_length=64)).sequence_length == 64
    with pytest.raises(TrainerError, match=r"no sample has more than one token"):
        open_shards(tmp_path / "none", tmp_path / "cache")
    for name, longest in (("late", 60), ("short", 33), ("one", 33)):
        recorder = Recorder()
        result = train(small_run(steps=2), tmp_path / name, tmp_path / "out" / name, recorder)
        assert np.isfinite(result.loss)
        assert recorder.info[0]["model"]["context"] == longest - 1
        assert f"tokens; shorter ones are padded to {longest}" in recorder.warnings[0]


@pytest.mark.parametrize("anomalies", [{}, {"policy": "skip", "sigma": 6, "window": 8}])
def test_a_step_without_targets_has_no_loss(tmp_path: Path, anomalies: dict) -> None:
    """Samples of one token predict nothing: their steps are no rows of loss 0, and no part of a mean."""
    write_mds(tmp_path / "set", [*rows(8, 33), *rows(24, 1)], UINT16)
    recorder = Recorder()
    config = small_run(steps=32, global_batch_tokens=32, log_every=1, anomalies=anomalies)
    assert train(config, tmp_path / "set", tmp_path / "out", recorder).loss > 3
    assert 4 <= len(recorder.rows) <= 12
    assert min(row["loss"] for row in recorder.rows) > 3
    recorder = Recorder()
    train(small_run(steps=32, global_batch_tokens=32, log_every=8), tmp_path / "set", tmp_path / "mean", recorder)
    assert min(row["loss"] for row in recorder.rows) > 3


def test_a_sample_that_no_survey_saw_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training ends at it, with a checkpoint of the step before; and so it does at an evaluation that fails."""
    monkeypatch.setattr("trainer.shards.SURVEY", 4)
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    write_mds(tmp_path / "train", [*rows(200, 33), *rows(1, 60)], UINT16)
    with pytest.raises(TrainerError, match=r"sample 200 has 60 tokens") as raised:
        train(small_run(steps=40, checkpoint={"every": 100}), tmp_path, tmp_path.with_name("out-a"))
    (step,) = (tmp_path.with_name("out-a") / "checkpoints").glob("step-*")
    assert int(step.name[5:]) > 0
    assert raised.value.__notes__ == [
        f"The checkpoint of step {int(step.name[5:])} is written; the same command resumes from it."
    ]


def test_an_evaluation_that_fails_leaves_the_checkpoint_and_is_made_up_for(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(small_run(), shards, tmp_path / "whole")

    def fail(*_: object, **__: object) -> None:
        raise TrainerError("nothing can be evaluated")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.loop.evaluate", fail)
        with pytest.raises(TrainerError, match=r"nothing can be"):
            train(small_run(), shards, tmp_path / "cut")
    assert [path.name for path in sorted((tmp_path / "cut/checkpoints").iterdir())] == [
        "step-00000004",
        "step-00000005",
    ]
    assert train(small_run(), shards, tmp_path / "cut").validation == expected.validation
    rows = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert rows[0] == rows[1]


def test_ids_with_holes_and_reserved_ids(tmp_path: Path) -> None:
    codec = byte_tokenizer()
    spec = codec.to_str().replace('"vocab":{', '"vocab":{"<eos>":300,').replace('"id":256', '"id":300')
    (tmp_path / "set").mkdir()
    (tmp_path / "set/tokenizer.json").write_text(spec)
    samples = rows(8, 33)
    samples[3]["tokens"][5] = 300
    write_mds(tmp_path / "set/web", samples, UINT16)
    shards = open_shards(tmp_path / "set", tmp_path / "cache")
    assert (shards.vocab_size, shards.special.end) == (301, 300)
    samples[3]["tokens"][5] = 307
    write_mds(tmp_path / "set/more", samples, UINT16)
    with pytest.raises(
        TrainerError, match=r"sample 3 holds token 307, .* set `train.model.vocab_size` to at least 308"
    ):
        open_shards(tmp_path / "set", tmp_path / "cache")
    assert open_shards(tmp_path / "set", tmp_path / "cache", vocab_size=512).vocab_size == 512


def test_a_manifest_decides_by_itself(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"train.data.sequence_length: .*manifest.json decides; remove the field"):
        open_shards(shards, tmp_path / "cache", DataConfig(sequence_length=8))


def test_a_shard_cut_during_the_training_is_named(tmp_path: Path) -> None:
    write_mds(tmp_path / "set", rows(64, 33), UINT16)
    shards = open_shards(tmp_path / "set", tmp_path / "cache")
    (shard,) = (tmp_path / "set").glob("*00000.mds")
    with shard.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(
        TrainerError, match=rf"{shard.name}: sample 9 cannot be decoded \(the file ends within sample 9"
    ):
        shards.train[0].data.sample(9)


SHAPES = {
    "uint8": ({"tokens": "ndarray:uint8"}, np.uint8, {}),
    "uint16": ({"tokens": "ndarray:uint16"}, np.uint16, {}),
    "int32": ({"tokens": "ndarray:int32"}, np.int32, {"compression": "zstd"}),
    "uint32": ({"tokens": "ndarray:uint32"}, np.uint32, {"compression": "gz:9", "hashes": ["sha1", "xxh64"]}),
    "int64": ({"tokens": "ndarray:int64"}, np.int64, {"compression": "br:5"}),
    "uint64": ({"tokens": "ndarray:uint64"}, np.uint64, {"compression": "bz2:9"}),
    "fixed shape": ({"tokens": "ndarray:uint16:33"}, np.uint16, {"hashes": ["md5"]}),
    "dynamic": ({"tokens": "ndarray"}, np.uint32, {"compression": "snappy"}),
    "bytes": ({"tokens": "bytes"}, np.int64, {"compression": "zstd:16"}),
    "more columns": ({"tokens": "ndarray:uint16", "source": "str", "n": "int"}, np.uint16, {"hashes": ["blake2s"]}),
    "split and linked": ({"tokens": "ndarray:uint16"}, np.uint16, {}),
    "padded": ({"tokens": "ndarray:uint16"}, np.uint16, {}),
}


def test_twelve_shapes_of_folders_train_alike(tmp_path: Path) -> None:
    """Written by streaming's MDSWriter; all of the same samples give the same loss."""
    losses = {}
    for name, (columns, dtype, options) in SHAPES.items():
        folder = tmp_path / name
        samples = [
            {"tokens": row["tokens"].astype(dtype), "source": "web", "n": number}
            for number, row in enumerate(rows(64, 33, seed=3))
        ]
        if columns["tokens"] == "bytes":
            samples = [{"tokens": sample["tokens"].tobytes()} for sample in samples]
        if name == "padded":
            samples = [{"tokens": sample["tokens"][: 20 + number % 14]} for number, sample in enumerate(samples)]
        target = folder / "train" if name == "split and linked" else folder
        write_mds(target, samples, columns, size_limit=1 << 20, **options)
        if name == "split and linked":
            write_mds(tmp_path / "store/val_00", rows(4, 33, seed=4), UINT16)
            (folder / "val_00").symlink_to(tmp_path / "store/val_00")
        result = train(small_run(steps=3, log_every=1), folder, tmp_path / "out" / name)
        losses[name] = result.loss
        assert (result.validation is not None) == (name == "split and linked")
    print("\n".join(f"{name:<18}{loss:.7f}" for name, loss in losses.items()))
    assert len({loss for name, loss in losses.items() if name not in ("padded", "split and linked")}) == 1
    assert losses["padded"] != losses["uint16"]
