"""Held-out scores: loss per token and bits per byte, as computed by hand from the model's own probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from tests.trainer.conftest import small_model
from tests.trainer.corpus import EOS, VOCABULARY, document_id, pack, prose_shards, write_manifest, write_shards
from trainer.model import Transformer
from trainer.score import evaluate
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


def add_documents(folder: Path, languages: dict[str, list[str]]) -> Path:
    """documents.parquet for held-out streams, given the language of each of their documents in order."""
    pieces = []
    for stream, of_documents in languages.items():
        lengths = [len(text) + 1 for text in STREAMS[f"validation/{stream}"][0]]
        start = 0
        for number, (language, length) in enumerate(zip(of_documents, lengths, strict=True)):
            for sample in range(start // 17, (start + length - 1) // 17 + 1):
                first, last = max(start, sample * 17), min(start + length, sample * 17 + 17)
                row = {"id": document_id(number), "split": "validation", "stream": stream, "sample": sample}
                row |= {"language": language}
                pieces.append(row | {"offset": first - sample * 17, "tokens": last - first})
            start += length
    pq.write_table(pa.Table.from_pylist(pieces), folder / "documents.parquet")
    write_manifest(folder, json.loads((folder / "manifest.json").read_bytes()))
    return folder


def test_languages_are_scored_apart(tmp_path: Path, model: Transformer) -> None:
    folder = write_shards(tmp_path / "shards", STREAMS, length=16)
    add_documents(folder, {"a": ["en", "de"], "b": ["de"]})
    shards = open_shards(folder, tmp_path / "cache")
    scores = evaluate(model, shards, micro_batch=2, batches=10, document_mask=True)
    assert scores is not None
    languages = scores["languages"]
    assert list(languages) == ["de", "en"]
    assert languages["de"]["tokens"] + languages["en"]["tokens"] == scores["tokens"]
    # of the first document's 31 tokens those at 0 and 17 begin a sample, so are no targets
    assert languages["en"]["tokens"] == 29
    together = sum(languages[name]["loss"] * languages[name]["tokens"] for name in languages)
    assert together / scores["tokens"] == pytest.approx(scores["loss"], rel=1e-9)


def test_in_context_learning_compares_late_tokens_of_long_documents_with_early_ones(tmp_path: Path) -> None:
    """Tokens 450 to 549 and 40 to 59 of the one document that has as many."""
    long = "".join(chr(97 + number * number % 26) for number in range(570))
    streams = {"train/a": (["x" * 700], 1.0), "validation/a": ([long, "short"], 1.0)}
    shards = open_shards(write_shards(tmp_path / "shards", streams, length=600), tmp_path / "cache")
    model = Transformer(small_model(vocab_size=VOCABULARY, context=600, zero_init=False), seed=2)
    scores = evaluate(model, shards, micro_batch=1, batches=1, document_mask=True)
    assert scores is not None
    (sample,) = pack([long], 600)
    batch = torch.from_numpy(sample["tokens"].astype(np.int64))[None]
    losses = F.cross_entropy(model(batch[:, :-1])[0], batch[0, 1:], reduction="none")  # of tokens 1 and later
    expected = losses[449:549].mean() - losses[39:59].mean()
    assert scores["in_context"] == pytest.approx(expected.item(), rel=1e-4)
