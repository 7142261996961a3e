"""Losses by document and by position: of held-out samples, of any text; and the overlap of texts with the corpus.

Held-out samples are scored as they were packed (`evaluate` does so during the training). A text is scored from the
token on that begins one (BOS, else the end-of-document token), in windows of the model's context that do not overlap
(as lm-eval's rolling log-likelihood). Bits per byte divide by the text's UTF-8 size, so models with different
tokenizers compare. Costs: forward passes.

In-context learning (Olsson et al. 2022, arXiv:2209.11895): how much better a model predicts late in a document than
early, the mean loss of tokens 450 to 549 minus that of tokens 40 to 59. Only documents with 550 tokens in one window
count, so both means are over the same documents.

Overlap: a run of 13 tokens that a text shares with a training sample counts as seen (GPT-3 took 13 words,
arXiv:2005.14165, C; Llama 2 more than 10 tokens, arXiv:2307.09288, A.6). The texts' n-grams are hashed to 64 bits and
looked up at every position of the corpus; a run that packing cut in two is missed there. Costs: one pass over the
training samples, memory of the evaluation texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer

from trainer.dataset import Array
from trainer.loss import IGNORE
from trainer.model import Transformer
from trainer.shards import Shards, Stream, sample_tokens
from trainer.vocabulary import Special

EARLY, LATE = slice(40, 60), slice(450, 550)
BINS = 32  # most points of the curve over positions
NGRAM = 13
MICRO_BATCH = 8  # rows of a forward pass
BATCH = 256  # samples looked up at once
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every token changes every later bit
Item = TypeVar("Item")
Losses = np.ndarray[Any, np.dtype[np.float64]]
Scores = dict[str, Any]


@dataclass
class Sums:
    """Additive totals: nats and number of all targets, nats of the targets that are text, and the text's bytes.

    Bits per byte = loss in bits of the targets that are text / their bytes. Tokens of no bytes (EOS) count in the loss
    only.
    """

    nats: float = 0.0
    tokens: int = 0
    text_nats: float = 0.0
    bytes: int = 0

    def __iadd__(self, other: Sums) -> Sums:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def scores(self) -> Scores:
        """Loss in nats a token (absent without tokens), bits per byte where bytes are known, the number of tokens."""
        scores: Scores = {"loss": self.nats / self.tokens} if self.tokens else {}
        if self.bytes:
            scores["bits_per_byte"] = self.text_nats / math.log(2) / self.bytes
        return scores | {"tokens": self.tokens}


@dataclass(frozen=True)
class Batch:
    """Rows to score, all (rows, length): tokens, targets (IGNORE where none), documents for the attention or None.

    keys: names of the documents; bytes: UTF-8 bytes of each document's targets; owners: for each target, the index of
    its document in `keys`; positions: number of tokens of its document before it in the row; text: whether a target is
    text (an end-of-document token is not, and counts in the loss only).
    """

    tokens: Array
    targets: Array
    documents: Array | None
    keys: list[str]
    bytes: list[int]
    owners: Array
    positions: Array
    text: Array


class Tally:
    """Sums by document, and by position within the document."""

    def __init__(self, context: int) -> None:
        self.documents: dict[str, Sums] = {}
        positions = context + 1  # a sample's last target has `context` tokens before it
        self.nats, self.counts = np.zeros(positions), np.zeros(positions, np.int64)
        self.long_nats, self.long_documents = np.zeros(positions), 0

    def __iadd__(self, other: Tally) -> Tally:
        for key, theirs in other.documents.items():
            sums = self.documents.setdefault(key, Sums())
            sums += theirs
        for name in ("nats", "counts", "long_nats", "long_documents"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def add(self, batch: Batch, losses: Losses) -> None:
        """Count a batch's losses, nats (rows, length)."""
        kept = batch.targets != IGNORE
        for number, key in enumerate(batch.keys):
            mine = kept & (batch.owners == number)
            sums = self.documents.setdefault(key, Sums())
            sums += Sums(
                nats=float(losses[mine].sum()),
                tokens=int(mine.sum()),
                text_nats=float(losses[mine & batch.text].sum()),
                bytes=batch.bytes[number],
            )
            for row in np.flatnonzero(mine.any(axis=1)):
                positions, values = batch.positions[row][mine[row]], losses[row][mine[row]]
                self.nats[positions] += values
                self.counts[positions] += 1
                if {LATE.stop - 1, EARLY.start} <= set(positions.tolist()):
                    self.long_nats[positions] += values
                    self.long_documents += 1

    def total(self) -> Sums:
        total = Sums()
        for sums in self.documents.values():
            total += sums
        return total

    def gain(self) -> float | None:
        """The in-context-learning score in nats (negative: better late), None where no document is long enough."""
        if not self.long_documents:
            return None
        return float(self.long_nats[LATE].mean() - self.long_nats[EARLY].mean()) / self.long_documents

    def scores(self) -> Scores:
        """Loss, bits per byte, tokens, documents; in-context learning and the curve over positions."""
        return self.total().scores() | {"documents": len(self.documents), "in_context": self.in_context()}

    def in_context(self) -> Scores:
        """score: as `gain`; documents: how many it is over; curve: mean loss by position."""
        edges = np.unique(np.geomspace(1, len(self.nats), BINS + 1).round().astype(int)) - 1
        curve = [
            {"from": int(low), "to": int(high), "loss": float(self.nats[low:high].sum() / count), "tokens": int(count)}
            for low, high in pairwise(edges)
            if (count := self.counts[low:high].sum())
        ]
        return {"score": self.gain(), "documents": self.long_documents, "curve": curve}


@torch.no_grad()
def score(model: Transformer, batches: Iterable[Batch]) -> Tally:
    tally, device = Tally(model.config.context), model.cos.device
    for batch in batches:
        tokens, targets = (torch.from_numpy(array).to(device) for array in (batch.tokens, batch.targets))
        documents = None if batch.documents is None else torch.from_numpy(batch.documents).to(device)
        _, losses = model.losses(tokens, targets, documents, scale=1.0)
        tally.add(batch, losses.double().cpu().numpy())
    return tally


def shard_batches(shards: Shards, *, masked: bool, limit: int | None = None) -> Iterator[Batch]:
    """The held-out samples of every stream, at most `limit` of each; otherwise as `stream_batches`."""
    for number in range(len(shards.validation)):
        yield from stream_batches(shards, number, masked=masked, limit=limit)


def stream_batches(
    shards: Shards, number: int, *, masked: bool, micro_batch: int = MICRO_BATCH, limit: int | None = None
) -> Iterator[Batch]:
    """The first held-out samples of one stream; documents are named by their hexadecimal ids.

    masked: whether the model was trained with attention within documents. A stream without doc_ids counts as one
    document with the stream's name.
    """
    stream = shards.validation[number]
    for rows in _groups(range(min(len(stream.data), limit or len(stream.data))), micro_batch):
        samples = shards.read(shards.validation, np.array([[number, row] for row in rows]))
        keys: list[str] = []
        owners, positions = np.zeros(samples.targets.shape, np.int64), np.zeros(samples.targets.shape, np.int64)
        for line, row in enumerate(rows):
            sample = stream.data.sample(row)
            lengths = sample.get("doc_lengths", np.array([samples.targets.shape[1] + 1]))
            names = [bytes(each).hex() for each in sample["doc_ids"]] if "doc_ids" in sample else [stream.name]
            owner = np.repeat(np.arange(len(lengths)), lengths)[1:]  # of the targets
            position = np.concatenate([np.arange(length) for length in lengths.tolist()])[1:]
            owners[line, : len(owner)], positions[line, : len(owner)] = owner + len(keys), position
            keys += names
        sizes = np.zeros_like(samples.targets)
        if shards.token_bytes is not None:
            sizes = np.where(samples.targets == IGNORE, 0, shards.token_bytes[np.maximum(samples.targets, 0)])
        held = np.bincount(owners.ravel(), sizes.ravel(), len(keys)).astype(np.int64).tolist()
        documents = samples.documents if masked else None
        yield Batch(samples.tokens, samples.targets, documents, keys, held, owners, positions, sizes > 0)


def text_batches(
    texts: Iterable[tuple[str, str]], codec: Tokenizer, special: Special, context: int, *, masked: bool
) -> Iterator[Batch]:
    """Batches of (name, text) pairs, each text after the tokens that begin one.

    Where that is the end-of-document token, `masked` hides it from the text, as in training.
    """
    codec.encode_special_tokens = True  # a special token's name in a text is text
    for windows in _groups(_windows(texts, codec, special, context), MICRO_BATCH):
        shape = len(windows), max(len(window.tokens) for window in windows) - 1
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        documents = np.ones(shape, np.int32)
        for row, window in enumerate(windows):
            count = len(window.tokens) - 1
            tokens[row, :count] = window.tokens[:-1]
            targets[row, window.given : count] = window.tokens[1 + window.given :]
            documents[row, 0] = not window.hidden
        yield Batch(
            tokens=tokens,
            targets=targets,
            documents=documents if masked else None,
            keys=[window.name for window in windows],
            bytes=[window.bytes for window in windows],
            owners=np.broadcast_to(np.arange(shape[0])[:, None], shape),
            positions=np.broadcast_to(np.arange(shape[1]), shape),
            text=targets != IGNORE,
        )


class _Window(NamedTuple):
    """Tokens of a text, the first only as input; `bytes` are all of the text's in its first window, else 0.

    given: tokens after the first that are not scored either; hidden: whether the first is another document's end.
    """

    name: str
    tokens: list[int]
    given: int
    hidden: bool
    bytes: int


def _windows(texts: Iterable[tuple[str, str]], codec: Tokenizer, special: Special, context: int) -> Iterator[_Window]:
    begin = special.start
    for name, text in texts:
        ids = [*begin, *codec.encode(text, add_special_tokens=False).ids]
        for start in range(0, len(ids) - 1, context):
            given, hidden, size = (0, False, 0) if start else (len(begin) - 1, not special.prefix, len(text.encode()))
            yield _Window(name, ids[start : start + context + 1], given, hidden, size)


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def evaluate(
    model: Transformer, shards: Shards, *, micro_batch: int, batches: int, document_mask: bool
) -> Scores | None:
    """Scores of the first `batches * micro_batch` held-out samples of each stream, always the same ones.

    {"loss": nats per token, "bits_per_byte", "in_context", "tokens"}, over all and, in the same form, under "streams"
    and "languages" (of documents.parquet) by name; languages without "in_context". Absent are `loss` where no token has
    a successor, `bits_per_byte` without token_bytes.npy, `in_context` where no document has 550 tokens, `languages`
    without documents.parquet. None where nothing is held out.
    """
    if not shards.validation:
        return None
    known = _languages(shards)
    overall = Tally(model.config.context)
    streams: Scores = {}
    languages: dict[str, Sums] = {}
    limit = batches * micro_batch
    for number, stream in enumerate(shards.validation):
        tally = score(model, stream_batches(shards, number, masked=document_mask, micro_batch=micro_batch, limit=limit))
        streams[stream.name] = _row(tally)
        for document, sums in tally.documents.items():
            if (language := known.get((stream.name, document))) is not None:
                total = languages.setdefault(language, Sums())
                total += sums
        overall += tally
    scores = _row(overall) | {"streams": streams}
    if languages:
        scores["languages"] = {name: sums.scores() for name, sums in sorted(languages.items()) if sums.tokens}
    return scores


def _row(tally: Tally) -> Scores:
    gain = tally.gain()
    return tally.total().scores() | ({} if gain is None else {"in_context": gain})


def _languages(shards: Shards) -> dict[tuple[str, str], str]:
    """Language of each held-out document, by stream and id."""
    rows = shards.documents(["id", "stream", "language"], "split", {"validation"})
    return {(row["stream"], row["id"]): row["language"] or "unknown" for row in rows}


@dataclass(frozen=True)
class Overlap:
    """The n-grams that a text shares with the corpus.

    seen: tokens in a shared n-gram; tokens: of the text; sample: (stream, number) of the first training sample with
    the text's first shared n-gram, None where nothing is shared.
    """

    name: str
    seen: int
    tokens: int
    sample: tuple[str, int] | None


def find_overlaps(shards: Shards, texts: Iterable[tuple[str, Array]], ngram: int = NGRAM) -> list[Overlap]:
    """The overlap of each text, (name, token ids), with the training samples, in their order."""
    named = list(texts)
    hashes = [ngram_hashes(tokens, ngram) for _, tokens in named]
    known = np.unique(np.concatenate([*hashes, np.zeros(0, np.uint64)]))
    first = np.full((len(known), 2), -1, np.int64)  # first stream and sample with each n-gram
    for number, stream in enumerate(shards.train):
        for start in range(0, len(stream.data), BATCH):
            _look_up(stream, number, start, ngram, known, first)
    overlaps = []
    for (name, tokens), grams in zip(named, hashes, strict=True):
        rows = np.searchsorted(known, grams)
        hits = np.flatnonzero(first[rows, 0] >= 0)
        covered = np.zeros(len(tokens), bool)
        for offset in range(ngram):
            covered[hits + offset] = True
        sample = None
        if len(hits):
            stream_number, index = first[rows[hits[0]]].tolist()
            sample = shards.train[stream_number].name, index
        overlaps.append(Overlap(name, int(covered.sum()), len(tokens), sample))
    return overlaps


def ngram_hashes(tokens: Array, ngram: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A 64-bit hash of each run of `ngram` tokens: (max(0, len(tokens) - ngram + 1),) uint64."""
    count = max(0, len(tokens) - ngram + 1)
    words = tokens.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(ngram):
            hashes = (hashes ^ words[offset : offset + count]) * _BASE
            hashes ^= hashes >> np.uint64(32)
    return hashes


def _look_up(stream: Stream, number: int, start: int, ngram: int, known: Array, first: Array) -> None:
    """Enter the known n-grams of BATCH samples from `start` on into `first`."""
    rows = range(start, min(start + BATCH, len(stream.data)))
    grams = [ngram_hashes(sample_tokens(stream.data.sample(row)), ngram) for row in rows]
    owners = np.repeat(np.array(rows), [len(each) for each in grams])
    joined = np.concatenate(grams)
    slots = np.searchsorted(known, joined)
    slots[slots == len(known)] = 0
    hits = np.flatnonzero(known[slots] == joined) if len(known) else np.zeros(0, np.int64)
    for hit in hits[first[slots[hits], 0] < 0].tolist():
        if first[slots[hit], 0] < 0:
            first[slots[hit]] = number, owners[hit]
