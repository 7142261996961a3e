"""The documents of a batch, their losses, the most unusual first, and what each of them is.

A document's part in one sample is a piece. Its loss is the mean over its tokens that are targets, in nats. Pieces are
ordered by how far their loss lies above the batch's median, weighed by what their number of tokens tells: documents'
own means differ by some 0.6 nats, single tokens by some 2.5, so the mean of n tokens is known to within
0.6 * sqrt(1 + PRIOR / n), and the rank is the excess divided by that. Costs: the batch's samples are read once more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.runfolder import Row
from trainer.dataset import Array
from trainer.shards import Shards, sample_tokens
from trainer.vocabulary import load_codec

PRIOR = 16.0  # tokens: (2.5 / 0.6)^2, rounded
NAMED = 100  # pieces of a step that are described
EXCERPT = 64  # tokens of a piece that are shown


@dataclass(frozen=True)
class Piece:
    """A document's tokens in one sample of a batch: `offset` to `offset + tokens` of sample number `sample`.

    `document` is its id, hexadecimal; None where the shards have no ids.
    """

    document: str | None
    stream: str
    sample: int
    offset: int
    tokens: int


@dataclass(frozen=True)
class PieceLoss(Piece):
    """A piece with its mean loss in nats over `targets` tokens, in an epoch of its stream, counted from 0."""

    targets: int
    loss: float
    epoch: int


def list_pieces(shards: Shards, stream: int, sample: int) -> list[Piece]:
    """The pieces of a training sample, in order; all of it is one where the shards do not say where documents end."""
    data, name = shards.train[stream].data.sample(sample), shards.train[stream].name
    lengths = data.get("doc_lengths")
    if lengths is None:
        return [Piece(None, name, sample, 0, shards.sequence_length + 1)]
    offsets = (np.cumsum(lengths) - lengths).tolist()
    ids = [bytes(each).hex() for each in data["doc_ids"]] if "doc_ids" in data else [None] * len(lengths)
    return [Piece(of, name, sample, *span) for of, *span in zip(ids, offsets, lengths.tolist(), strict=True)]


def piece_losses(shards: Shards, draws: Array, losses: Array) -> Iterator[PieceLoss]:
    """The losses of a batch's pieces. draws: (n, 3) of `Sampler.draws`; losses: (n, sequence length), in nats."""
    for (stream, sample, epoch), row in zip(draws.tolist(), losses, strict=True):
        for piece in list_pieces(shards, stream, sample):
            begin, end = max(piece.offset - 1, 0), piece.offset + piece.tokens - 1  # targets are one token ahead
            if end > begin:
                loss = float(row[begin:end].mean(dtype=np.float64))
                yield PieceLoss(**vars(piece), targets=end - begin, loss=loss, epoch=epoch)


def ranked(pieces: Sequence[PieceLoss]) -> list[tuple[PieceLoss, float]]:
    """The pieces with their loss's excess over the median, the most unusual first; a loss that is no number leads."""
    finite = [piece.loss for piece in pieces if math.isfinite(piece.loss)]
    median = statistics.median(finite) if finite else 0.0
    weighed = [(piece, piece.loss - median) for piece in pieces]

    def unusual(each: tuple[PieceLoss, float]) -> float:
        piece, excess = each
        return excess * math.sqrt(piece.targets / (piece.targets + PRIOR)) if math.isfinite(excess) else math.inf

    return sorted(weighed, key=unusual, reverse=True)


def account(shards: Shards, step: int, reason: str, pieces: Sequence[PieceLoss]) -> Row:
    """What `pretrain blame` tells of a step: its samples by loss, and its most unusual documents with what they are.

    {step, reason, loss, median, sequences: [{stream, sample, loss}], documents: [{id, url, source, language, stream,
    sample, span, targets, loss, above, excerpt}]}; a loss that is no number is None.
    """
    order = ranked(pieces)[:NAMED]
    samples: dict[tuple[str, int], list[PieceLoss]] = {}
    for piece in pieces:
        samples.setdefault((piece.stream, piece.sample), []).append(piece)
    sequences = [{"stream": name, "sample": number, "loss": _mean(of)} for (name, number), of in samples.items()]
    sequences.sort(key=lambda row: math.inf if row["loss"] is None else row["loss"], reverse=True)
    ids = {piece.document for piece, _ in order if piece.document is not None}
    known = {row.pop("id"): row for row in shards.documents(["id", "url", "source", "language"], "id", ids)}
    documents = [
        {
            "id": piece.document,
            **known.get(piece.document, dict.fromkeys(("url", "source", "language"))),
            "stream": piece.stream,
            "sample": piece.sample,
            "span": [piece.offset, piece.offset + piece.tokens],
            "targets": piece.targets,
            "loss": _number(piece.loss),
            "above": _number(excess),
        }
        for piece, excess in order
    ]
    _add_excerpts(shards, documents)
    return {"step": step, "reason": reason, "loss": _mean(pieces), "sequences": sequences, "documents": documents}


def _mean(pieces: Sequence[PieceLoss]) -> float | None:
    total = sum(piece.targets for piece in pieces)
    return _number(math.fsum(piece.loss * piece.targets for piece in pieces) / total)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _add_excerpts(shards: Shards, documents: list[Row]) -> None:
    """The beginning of each piece, decoded; None where the shards have no tokenizer."""
    codec = load_codec(shards.tokenizer) if shards.tokenizer else None
    streams = {stream.name: stream.data for stream in shards.train}
    for row in documents:
        start, end = row["span"]
        tokens = sample_tokens(streams[row["stream"]].sample(row["sample"]))[start : min(end, start + EXCERPT)]
        row["excerpt"] = codec.decode(tokens.tolist()) if codec else None
