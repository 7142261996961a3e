"""Anyone's MDS folder through the commands: what the start tells, which checkpoint and which tokenizer are used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.cli.conftest import RECIPE
from tests.cli.test_cli import pretrain
from tests.trainer.corpus import EOS, byte_tokenizer, write_mds

SHAPE = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 64}
TRAIN = SHAPE | {"compile": "false", "precision": "fp32", "device": "cpu", "global_batch_tokens": 256, "steps": 6}
TRAIN |= {"checkpoint.every": 2, "checkpoint.keep_last": 2, "evaluation.every": 2, "optimizer.lr": 0.01}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on shards without a tokenizer, whose held-out samples are ever less like what it learns."""
    home = tmp_path_factory.mktemp("home")
    byte_tokenizer().save(str(home / "bytes.json"))
    draw = np.random.default_rng(0)
    for name, low, high, count in (("web", 0, 60, 64), ("books", 0, 60, 32), ("val_small", 100, EOS + 1, 8)):
        samples = [{"tokens": draw.integers(low, high, 33).astype(np.uint16)} for _ in range(count)]
        samples[0]["tokens"][-1] = EOS
        write_mds(home / "shards" / name, samples, {"tokens": "ndarray:uint16"})
    settings = [f"train.{'model.' if name in SHAPE else ''}{name}={value}" for name, value in TRAIN.items()]
    told = pretrain("train", "--shards", str(home / "shards"), *(each for one in settings for each in ("--set", one)))
    (home / "told.txt").write_text(told[1])
    return home


def test_the_start_names_every_stream(home: Path) -> None:
    lines = (home / "told.txt").read_text().splitlines()
    assert [line for line in lines if "trains on" in line or "holds out" in line] == [
        "train: trains on books (32 samples, 1,056 tokens), web (64 samples, 2,112 tokens)",
        "train: holds out val_small (8 samples, 264 tokens)",
    ]


def test_every_command_takes_the_best_the_last_or_a_step(home: Path) -> None:
    rows = [json.loads(line) for line in (home / "train/metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if row["kind"] == "eval"}
    best = min(losses, key=losses.__getitem__)
    assert best == 2  # not among the two newest, and kept beside them
    codec = ["--tokenizer", str(home / "bytes.json"), "--eos", "<eos>"]
    for asked, step in (("best", best), ("last", 6), ("4", 4)):
        report = json.loads(pretrain("eval", str(home), "--step", asked, "--json")[0])
        (scored,) = report["checkpoints"]
        assert (scored["step"], scored["sets"]["held-out"]["loss"]) == (step, pytest.approx(losses[step], rel=1e-6))
        target = str(home / f"hf-{asked}")
        out = pretrain("export", str(home), "--step", asked, "--output", target, *codec)[0]
        assert out.startswith(f"{target}: step {step} as f32")
    greedy = ["--prompt", "a", "--tokens", "3", "--temperature", "0", "--json", *codec]
    texts = [pretrain("generate", str(home), *greedy, "--step", asked)[0] for asked in ("best", "2", "last", "6")]
    assert (texts[0], texts[2]) == (texts[1], texts[3])
    both = json.loads(pretrain("eval", str(home), "--step", "best", "--step", "last", "--json")[0])
    assert [each["step"] for each in both["checkpoints"]] == [2, 6]
    for command in ("export", "eval", "generate"):
        prompt = ["--prompt", "a"] if command == "generate" else []
        wrong = pretrain(command, str(home), "--step", "newest", *prompt, *codec, code=1)[1]
        assert "expected a number, `best` or `last`" in wrong


def test_a_tokenizer_is_asked_for_and_taken(home: Path) -> None:
    text = home / "text.txt"
    text.write_text("Some text.")
    for command in (["generate", "--prompt", "a", "--tokens", "2"], ["export"], ["eval", "--text", str(text)]):
        name, *options = command
        assert "`--tokenizer FILE`" in pretrain(name, str(home), *options, code=1)[1]
        options += ["--output", str(home / "taken")] if name == "export" else []
        pretrain(name, str(home), *options, "--tokenizer", str(home / "bytes.json"), "--eos", "<eos>")
    assert (home / "taken/tokenizer.json").is_file()


def test_check_tells_what_a_given_model_becomes(home: Path, folder: Path) -> None:
    """folder: the current directory, with a recipe and its texts."""
    exported, given = str(folder / "hf"), str(folder / "given")
    pretrain("export", str(home), "--output", exported, "--tokenizer", str(home / "bytes.json"), "--eos", "<eos>")
    pretrain("import", given, "--hf", exported)
    recipe = yaml.safe_load(RECIPE)
    recipe["train"] |= {"initial": "given", "model": {"rope_base": 5e5}}
    recipe["tokenize"] |= {"tokenizer": {"path": "given/tokenizer.json"}, "sequence_length": 64}
    (folder / "more.yaml").write_text(yaml.safe_dump(recipe))
    out = pretrain("check", "more.yaml")[0]
    assert "(1 layers of width 32, vocabulary 257) further, with context 64, rope_base 500000.0 for 4 steps" in out
    for field, message in {
        "train.preset=124m": "`preset` and `initial` exclude each other",
        "train.model.layers=5": "model.layers is 5, the given model's 1; its weights decide that",
        "train.initial=nowhere": "train.initial: got 'nowhere', which does not exist",
        "train.initial=texts": "train.initial: texts holds no model; `pretrain import` makes one",
    }.items():
        assert message in pretrain("check", "more.yaml", "--set", field, code=2)[1]
