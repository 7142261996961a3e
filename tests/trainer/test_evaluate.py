"""Held-out scores: loss per token and bits per byte, as computed by hand from the model's own probabilities."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.trainer.conftest import small_model
from tests.trainer.corpus import EOS, VOCABULARY, prose_shards, write_shards
from trainer.evaluate import evaluate
from trainer.model import Transformer
from trainer.shards import open_shards

STREAMS = {
    "train/a": (["x" * 40], 1.0),
    "validation/a": (["Some words that were held out.", "And more of them, for a second sample."], 1.0),
    "validation/b": (["Another stream."], 1.0),
}


@pytest.fixture
def model() -> Transformer:
    model = Transformer(small_model(vocab_size=VOCABULARY, context=16), seed=2)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        model.lm_head.weight.copy_(torch.randn(VOCABULARY, 32, generator=generator) * 0.3)
    return model


def test_scores_are_those_computed_by_hand(tmp_path: Path, model: Transformer) -> None:
    shards = open_shards(write_shards(tmp_path / "shards", STREAMS, length=16), tmp_path / "cache")
    scores = evaluate(model, shards, micro_batch=2, batches=10, document_mask=True)
    assert scores is not None
    totals = np.zeros(4)
    for number, stream in enumerate(shards.validation):
        ids = np.array([[number, index] for index in range(len(stream.data))])
        samples = shards.read(shards.validation, ids)
        with torch.no_grad():
            logits = model(torch.from_numpy(samples.tokens), documents=torch.from_numpy(samples.documents))
        targets = torch.from_numpy(samples.targets)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        text = (targets >= 0) & (targets != EOS)
        sums = np.array([losses.sum(), (targets >= 0).sum(), losses[text].sum(), text.sum()])
        found = scores["streams"][stream.name]
        assert found["loss"] == pytest.approx(sums[0] / sums[1], rel=1e-5)
        assert found["bits_per_byte"] == pytest.approx(sums[2] / math.log(2) / sums[3], rel=1e-5)
        assert found["tokens"] == sums[1]
        totals += sums
    assert scores["loss"] == pytest.approx(totals[0] / totals[1], rel=1e-5)
    assert scores["bits_per_byte"] == pytest.approx(totals[2] / math.log(2) / totals[3], rel=1e-5)


def test_only_so_many_batches_are_read_and_nothing_is_learnt(tmp_path: Path, model: Transformer) -> None:
    shards = open_shards(prose_shards(tmp_path / "shards", length=16), tmp_path / "cache")
    scores = evaluate(model, shards, micro_batch=3, batches=2, document_mask=False)
    assert scores is not None
    assert scores["tokens"] == 6 * 16
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_held_out_data_there_are_no_scores(tmp_path: Path, model: Transformer) -> None:
    folder = write_shards(tmp_path / "shards", {"train/a": (["x" * 40], 1.0)}, length=16)
    shards = open_shards(folder, tmp_path / "cache")
    assert evaluate(model, shards, micro_batch=2, batches=1, document_mask=True) is None
