"""Generation: greedy text that was learnt, samples that follow the seed alone, and clear refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from common.errors import TrainerError
from tests.trainer.conftest import SMALL, continue_tokens, small_model, small_run
from tests.trainer.corpus import EOS, VOCABULARY, byte_tokenizer, write_shards
from trainer.generate import Sampling, candidates, choose, generate
from trainer.loop import train
from trainer.model import Transformer
from trainer.trained import load_model

LINE = "the quick brown fox jumps."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt one line by heart, and where it ends."""
    folder = tmp_path_factory.mktemp("line")
    shards = write_shards(folder / "shards", {"train/a": ([LINE] * 100, 1.0)}, length=40)
    config = small_run(
        steps=80,
        global_batch_tokens=640,
        micro_batch=16,
        model=SMALL | {"width": 64},
        optimizer={"lr": 0.01, "muon_lr": 0.02},
        schedule={"warmup": 5},
        checkpoint={"every": 80},
    )
    train(config, shards, folder / "train")
    return folder / "train"


def test_greedy_recites_what_was_learnt_and_stops_at_its_end(run: Path) -> None:
    first, second = generate(run, ["the quick", "the quick brown f"], Sampling(temperature=0))
    assert first.prompt + first.text == LINE
    assert second.prompt + second.text == LINE
    assert (first.finish, first.tokens) == ("eos", len(LINE) - len("the quick"))


def test_length_and_context_end_a_text_too(run: Path) -> None:
    (short,) = generate(run, ["the quick"], Sampling(temperature=0, max_tokens=3))
    assert (short.text, short.finish) == (" br", "length")
    model, _ = load_model(run)
    ((tokens, finish),) = continue_tokens(model, [[1] * 39], Sampling(temperature=0), eos=None)
    assert (len(tokens), finish) == (1, "context")


def test_samples_follow_the_seed_and_not_the_batch(run: Path) -> None:
    model = Transformer(small_model(vocab_size=VOCABULARY, context=24), seed=2)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]
    sampling = Sampling(max_tokens=10, temperature=1.0, seed=3)
    together = continue_tokens(model, prompts, sampling, eos=None)
    assert together == continue_tokens(model, prompts, sampling, eos=None)
    assert together[:1] == continue_tokens(model, prompts[:1], sampling, eos=None)
    other = continue_tokens(model, prompts, Sampling(max_tokens=10, temperature=1.0, seed=4), eos=None)
    assert together != other
    assert len({tuple(tokens) for tokens, _ in together}) == 3


def test_an_empty_prompt_starts_a_document(run: Path) -> None:
    (completion,) = generate(run, [""], Sampling(max_tokens=5, seed=1))
    assert completion.tokens <= 5
    assert generate(run, []) == []


def frequencies(sampling: Sampling) -> np.ndarray:
    scores = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
    draw = np.random.default_rng(1)
    return np.bincount([choose(scores, sampling, draw) for _ in range(4000)], minlength=4) / 4000


def test_sampling_draws_from_the_declared_distribution() -> None:
    np.testing.assert_allclose(frequencies(Sampling(temperature=1)), [0.1, 0.4, 0.2, 0.3], atol=0.03)
    squared = np.array([0.01, 0.16, 0.04, 0.09])
    np.testing.assert_allclose(frequencies(Sampling(temperature=0.5)), squared / squared.sum(), atol=0.03)
    np.testing.assert_allclose(frequencies(Sampling(temperature=1, top_k=2)), [0, 4 / 7, 0, 3 / 7], atol=0.03)
    np.testing.assert_allclose(frequencies(Sampling(temperature=1, top_p=0.69)), [0, 4 / 7, 0, 3 / 7], atol=0.03)
    np.testing.assert_allclose(frequencies(Sampling(temperature=1, top_p=1e-9)), [0, 1, 0, 0])
    np.testing.assert_allclose(frequencies(Sampling(temperature=0)), [0, 1, 0, 0])


@pytest.mark.parametrize(
    "fields",
    [{"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.1}, {"top_k": 9, "top_p": 0.8, "min_p": 0.05, "temperature": 0.6}],
)
def test_candidates_are_those_of_transformers(fields: dict) -> None:
    scores = np.random.default_rng(2).normal(size=40) * 2
    theirs = torch.from_numpy(scores)[None] / fields.get("temperature", 1.0)
    warpers = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    for name, warper in warpers.items():
        if name in fields:
            theirs = warper(fields[name])(None, theirs)
    order, mass = candidates(scores, Sampling(**{"temperature": 1.0} | fields))
    ours = np.zeros(40)
    ours[order] = mass / mass.sum()
    np.testing.assert_allclose(ours, theirs.softmax(-1)[0].numpy(), atol=1e-12)


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    scores = np.random.default_rng(3).normal(size=40)
    seen = [int(scores.argmax()), 3, 3, 7]
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([seen]), torch.from_numpy(scores)[None])
    chosen = choose(scores, Sampling(temperature=0, repetition_penalty=1.7), np.random.default_rng(1), seen)
    assert chosen == int(theirs.argmax()) != int(scores.argmax())


def test_the_cache_changes_nothing_and_finished_rows_leave_it() -> None:
    model = Transformer(small_model(vocab_size=VOCABULARY, context=24), seed=2)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(4)))
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9], [200, 100]]
    found = continue_tokens(model, prompts, Sampling(temperature=0, max_tokens=30), eos=None)
    end = found[1][0][2]  # as end-of-text token it ends one row before the others
    for eos in (None, end):
        for prompt, (tokens, _) in zip(
            prompts, continue_tokens(model, prompts, Sampling(temperature=0, max_tokens=30), eos), strict=True
        ):
            text = list(prompt)
            while len(text) < 24:
                with torch.no_grad():
                    token = int(model(torch.tensor([text]))[0, -1].argmax())
                if token == eos:
                    break
                text.append(token)
            assert text == prompt + tokens


def test_streamed_pieces_make_up_the_text(run: Path) -> None:
    pieces: dict[int, str] = {0: "", 1: ""}

    def on_text(row: int, piece: str) -> None:
        pieces[row] += piece

    completions = generate(run, ["the quick", "the q"], Sampling(temperature=2.0, max_tokens=25), on_text=on_text)
    assert [pieces[0], pieces[1]] == [completion.text for completion in completions]


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -1},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_tokens": 0},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
    ],
)
def test_meaningless_sampling_is_refused(fields: dict) -> None:
    with pytest.raises(TrainerError, match=f"{next(iter(fields))} is .*; expected"):
        Sampling(**fields)


def test_what_cannot_be_generated_from_is_explained(run: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="holds no checkpoint"):
        load_model(tmp_path)
    with pytest.raises(TrainerError, match="a prompt has 41 tokens; the model's context of 40"):
        generate(run, ["x" * 41])
    other = byte_tokenizer()
    other.add_tokens(["new"])
    other.save(str(tmp_path / "other.json"))
    with pytest.raises(TrainerError, match=r"other.json is not the tokenizer"):
        generate(run, ["x"], tokenizer=tmp_path / "other.json")
    with pytest.raises(TrainerError, match=r"nowhere.json does not exist"):
        generate(run, ["x"], tokenizer=tmp_path / "nowhere.json")
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step-00000080" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(TrainerError, match=r"model.safetensors has \d+ bytes, \d+ were written"):
        generate(tmp_path / "run", ["x"])


def test_a_loaded_model_computes_in_the_precision_it_was_trained_in(run: Path) -> None:
    model, meta = load_model(run)
    assert model.compute_dtype == torch.float32
    assert (meta["step"], meta["special"]["eos"], meta["warnings"]) == (80, [EOS], [])
    assert meta["model"]["width"] == 64
