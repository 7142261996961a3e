"""Held-out loss and bits per byte, per validation stream and over all.

Bits per byte = loss in bits of the tokens that stand for text / the bytes they stand for; unlike the loss per token
it can be compared across tokenizers. Tokens of no bytes (EOS) count to the loss only. The first
`batches * micro_batch` samples of each stream are used, always the same ones; costs forward passes only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainer.mds import Array
from trainer.model import Transformer
from trainer.shards import Samples, Shards


@dataclass
class Sums:
    """Additive totals: nats over all targets, their number, nats over targets with bytes, and those bytes."""

    nats: float = 0.0
    tokens: int = 0
    text_nats: float = 0.0
    bytes: int = 0

    def __iadd__(self, other: Sums) -> Sums:
        self.nats += other.nats
        self.tokens += other.tokens
        self.text_nats += other.text_nats
        self.bytes += other.bytes
        return self

    def scores(self) -> dict[str, Any]:
        """Loss in nats a token, bits per byte where bytes are known, and the number of tokens."""
        scores: dict[str, Any] = {"loss": self.nats / max(1, self.tokens)}
        if self.bytes:
            scores["bits_per_byte"] = self.text_nats / math.log(2) / self.bytes
        return scores | {"tokens": self.tokens}


@torch.no_grad()
def evaluate(
    model: Transformer, shards: Shards, *, micro_batch: int, batches: int, document_mask: bool
) -> dict[str, Any] | None:
    """Scores {"loss": nats per token, "bits_per_byte", "tokens", "streams": {name: the same three}}.

    `bits_per_byte` is absent without token_bytes.npy. None where nothing is held out.
    """
    if not shards.validation:
        return None
    streams: dict[str, Any] = {}
    overall = Sums()
    for number, stream in enumerate(shards.validation):
        sums = Sums()
        samples = min(len(stream.data), batches * micro_batch)
        for start in range(0, samples, micro_batch):
            rows = np.arange(start, min(start + micro_batch, samples))
            batch = shards.read(shards.validation, np.stack((np.full_like(rows, number), rows), axis=1))
            sums += _score(model, batch, shards.token_bytes, document_mask)
        streams[stream.name] = sums.scores()
        overall += sums
    return overall.scores() | {"streams": streams}


def _score(model: Transformer, batch: Samples, token_bytes: Array | None, document_mask: bool) -> Sums:
    tokens, targets, documents = batch.tensors(model.embed_tokens.weight.device, document_mask)
    _, per_token = model.losses(tokens, targets, documents, scale=1.0)
    losses = per_token.double().cpu().numpy()
    kept = batch.targets >= 0
    sums = Sums(nats=float(losses[kept].sum()), tokens=int(kept.sum()))
    if token_bytes is not None:
        sizes = np.where(kept, token_bytes[np.where(kept, batch.targets, 0)].astype(np.int64), 0)
        sums.text_nats, sums.bytes = float(losses[sizes > 0].sum()), int(sizes.sum())
    return sums
