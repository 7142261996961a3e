"""Held-out loss, bits per byte and in-context-learning score: per validation stream, per language, over all.

Bits per byte = loss in bits of the tokens that stand for text / the bytes they stand for; unlike the loss per token
it can be compared across tokenizers. Tokens of no bytes (EOS) count to the loss only. The in-context-learning score
is the loss of tokens late in their document (position in the second half of the context) minus that of early ones
(first eighth): the more negative, the more the model makes of what it has read (after Olsson et al. 2022,
arXiv:2209.11895). Languages are those of documents.parquet. The first `batches * micro_batch` samples of each stream
are used, always the same ones; costs forward passes only.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainer.loss import IGNORE
from trainer.mds import Array
from trainer.model import Transformer
from trainer.shards import Samples, Shards

Scores = dict[str, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Sums:
    """Additive totals: nats and number of all targets, of those with bytes (and the bytes), of early and late ones."""

    nats: float = 0.0
    tokens: int = 0
    text_nats: float = 0.0
    bytes: int = 0
    early_nats: float = 0.0
    early: int = 0
    late_nats: float = 0.0
    late: int = 0

    def __iadd__(self, other: Sums) -> Sums:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def scores(self) -> Scores:
        """Loss in nats a token, bits per byte where bytes are known, the number of tokens."""
        scores: Scores = {"loss": self.nats / max(1, self.tokens)}
        if self.bytes:
            scores["bits_per_byte"] = self.text_nats / math.log(2) / self.bytes
        if self.early and self.late:
            scores["in_context"] = self.late_nats / self.late - self.early_nats / self.early
        return scores | {"tokens": self.tokens}


@torch.no_grad()
def evaluate(
    model: Transformer, shards: Shards, *, micro_batch: int, batches: int, document_mask: bool
) -> Scores | None:
    """Scores {"loss": nats per token, "bits_per_byte", "in_context", "tokens"}, over all and, in the same form, under
    "streams" and "languages" by name.

    `bits_per_byte` is absent without token_bytes.npy, `in_context` where no document is long enough, `languages`
    without documents.parquet. None where nothing is held out.
    """
    if not shards.validation:
        return None
    languages = _Languages(shards)
    streams: Scores = {}
    by_language: dict[str, Sums] = {}
    overall = Sums()
    for number, stream in enumerate(shards.validation):
        sums = Sums()
        samples = min(len(stream.data), batches * micro_batch)
        for start in range(0, samples, micro_batch):
            rows = np.arange(start, min(start + micro_batch, samples))
            batch = shards.read(shards.validation, np.stack((np.full_like(rows, number), rows), axis=1))
            losses = _losses(model, batch, document_mask)
            positions = _positions(batch)
            sums += _sum(losses, batch.targets, positions, shards.token_bytes)
            for language, mask in languages.masks(stream.name, rows, batch.targets.shape[1]):
                targets = np.where(mask, batch.targets, IGNORE)
                found = by_language.setdefault(language, Sums())
                found += _sum(losses, targets, positions, shards.token_bytes)
        streams[stream.name] = sums.scores()
        overall += sums
    scores = overall.scores() | {"streams": streams}
    if by_language:
        scores["languages"] = {name: sums.scores() for name, sums in sorted(by_language.items()) if sums.tokens}
    return scores


def _losses(model: Transformer, batch: Samples, document_mask: bool) -> Floats:
    tokens, targets, documents = batch.tensors(model.norm.weight.device, document_mask)
    _, per_token = model.losses(tokens, targets, documents, scale=1.0)
    losses: Floats = per_token.double().cpu().numpy()
    return losses


def _positions(batch: Samples) -> Array:
    """Position of each input token within its document, (samples, length)."""
    length = batch.tokens.shape[1]
    places = np.broadcast_to(np.arange(length), batch.tokens.shape)
    if batch.documents is None:
        return places
    first = np.ones(batch.tokens.shape, bool)
    first[:, 1:] = batch.documents[:, 1:] != batch.documents[:, :-1]
    positions: Array = places - np.maximum.accumulate(np.where(first, places, 0), axis=1)
    return positions


def _sum(losses: Floats, targets: Array, positions: Array, token_bytes: Array | None) -> Sums:
    kept = targets != IGNORE
    length = targets.shape[1]
    early, late = kept & (positions < length // 8), kept & (positions >= length // 2)
    sums = Sums(nats=float(losses[kept].sum()), tokens=int(kept.sum()))
    sums.early_nats, sums.early = float(losses[early].sum()), int(early.sum())
    sums.late_nats, sums.late = float(losses[late].sum()), int(late.sum())
    if token_bytes is not None:
        sizes = np.where(kept, token_bytes[np.where(kept, targets, 0)].astype(np.int64), 0)
        sums.text_nats, sums.bytes = float(losses[sizes > 0].sum()), int(sizes.sum())
    return sums


class _Languages:
    """Which targets of a validation sample are in which language, by documents.parquet."""

    def __init__(self, shards: Shards) -> None:
        self.pieces: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
        path = shards.folder / "documents.parquet"
        if not path.is_file() or importlib.util.find_spec("pyarrow") is None:  # the trainer alone does without it
            return
        from pyarrow import parquet

        columns = ["split", "stream", "sample", "offset", "tokens", "language"]
        for row in parquet.read_table(path, columns=columns, filters=[("split", "=", "validation")]).to_pylist():
            piece = (row["offset"], row["offset"] + row["tokens"], row["language"] or "unknown")
            self.pieces.setdefault((row["stream"], row["sample"]), []).append(piece)

    def masks(self, stream: str, rows: Array, length: int) -> list[tuple[str, Array]]:
        """(language, mask (rows, length) of the targets in it)."""
        masks: dict[str, Array] = {}
        for place, row in enumerate(rows.tolist()):
            for start, end, language in self.pieces.get((stream, row), []):
                mask = masks.setdefault(language, np.zeros((len(rows), length), bool))
                mask[place, max(0, start - 1) : max(0, end - 1)] = True  # target i is token i + 1
        return list(masks.items())
