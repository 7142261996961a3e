"""From a training step to its documents and from a document to its steps.

Which samples a step takes is a function of what the checkpoint records (batch, seed, shards), so nothing was logged
and nothing can be missing. Steps are numbered as metrics.jsonl numbers them: step 1 is the first update; steps of the
ledger were left out. The way back computes the samples of every step up to the checkpoint, O(batch) each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import TrainerError
from trainer.anomalies import Ledger
from trainer.checkpoint import load_newest
from trainer.optimizer import ramped_sizes
from trainer.sampler import Sampler
from trainer.shards import open_shards


@dataclass(frozen=True)
class Piece:
    """A document's tokens in one sample of a batch: `offset` to `offset + tokens` of sample number `sample`.

    `document` is its id, hexadecimal; None where the shards do not say.
    """

    document: str | None
    stream: str
    sample: int
    offset: int
    tokens: int


class History:
    """What a training folder's newest checkpoint was trained on."""

    def __init__(self, train_dir: Path, shards: Path) -> None:
        """Raises TrainerError where there is no checkpoint, or it was trained on other shards."""
        found, _ = load_newest(train_dir / "checkpoints")
        if found is None:
            raise TrainerError(f"{train_dir} holds no checkpoint, so nothing was trained on anything yet")
        self.shards = open_shards(shards, train_dir / "shards-cache")
        saved = found.state["identity"]
        if saved.get("shards") != self.shards.fingerprint:
            raise TrainerError(
                f"{found.path} was trained on shards {saved.get('shards')}, but {shards} is {self.shards.fingerprint}; "
                "give the folder of the corpus it was trained on"
            )
        if missing := {"data.shuffle_block", "batch_ramp"} - saved.keys():
            raise TrainerError(
                f"{found.path} does not say {' and '.join(sorted(missing))}; an earlier version wrote it, whose "
                "order of the data is not known here. Train anew"
            )
        self.steps = found.step
        self.ledger = Ledger(train_dir / "ledger.json")
        sequences = saved["global_batch_tokens"] // self.shards.sequence_length
        self.order = Sampler(
            [stream.data.shard_sizes for stream in self.shards.train],
            self.shards.phases(found.state["settings"]["steps"]),
            sequences,
            saved["seed"],
            saved["data.shuffle_block"],
            ramped_sizes(saved["batch_ramp"], sequences),
        )

    def step(self, number: int) -> list[Piece]:
        """The documents of a step, in the order of the batch. Raises TrainerError for one that was not trained."""
        if not 1 <= number <= self.steps:
            raise TrainerError(f"step {number} was not trained; the newest checkpoint is of step {self.steps}")
        if (entry := self.ledger.covering(number)) is not None:
            raise TrainerError(f"step {number} was left out by policy `{entry.policy}`: {entry.reason}")
        pieces = []
        for stream, sample in self.order.batch(number - 1).tolist():
            data, name = self.shards.train[stream].data.sample(sample), self.shards.train[stream].name
            lengths = data.get("doc_lengths")
            if lengths is None:
                pieces.append(Piece(None, name, sample, 0, self.shards.sequence_length + 1))
                continue
            offsets = np.cumsum(lengths) - lengths
            ids = [bytes(each).hex() for each in data["doc_ids"]] if "doc_ids" in data else [None] * len(lengths)
            for document, offset, length in zip(ids, offsets.tolist(), lengths.tolist(), strict=True):
                pieces.append(Piece(document, name, sample, offset, length))
        return pieces

    def steps_of(self, samples: set[tuple[str, int]]) -> dict[tuple[str, int], list[int]]:
        """The steps, ascending, that took each of `samples`, (stream, number); a second epoch takes it again."""
        names = {stream.name: number for number, stream in enumerate(self.shards.train)}
        found: dict[tuple[str, int], list[int]] = {sample: [] for sample in samples}
        wanted = {(names[stream], sample): (stream, sample) for stream, sample in samples if stream in names}
        for step in range(self.steps):
            if self.ledger.covering(step + 1) is not None:
                continue
            for pair in {*map(tuple, self.order.batch(step).tolist())} & wanted.keys():
                found[wanted[pair]].append(step + 1)
        return found
