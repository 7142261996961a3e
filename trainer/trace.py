"""From a training step to its documents and from a document to its steps.

The samples of a step are a function of what the checkpoint records (batch, seed, shards), so nothing needs a log. Steps
are numbered as in metrics.jsonl: step 1 is the first update; the ledger lists skipped steps. Both ways cost
the same however long the run is, but for the epochs that a sample was read in.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import TrainerError
from trainer.anomalies import Ledger
from trainer.pieces import Piece, list_pieces
from trainer.sampler import Sampler, ramped_sizes
from trainer.shards import open_as_trained
from trainer.trained import load_checkpoint


class History:
    """The samples that a training folder's newest checkpoint was trained on."""

    def __init__(self, train_dir: Path, shards: Path) -> None:
        """Raises TrainerError where there is no checkpoint, or it was trained on other shards."""
        checkpoint, _ = load_checkpoint(train_dir)
        self.shards = open_as_trained(shards, train_dir / "shards-cache", checkpoint.state)
        saved = checkpoint.state["identity"]
        if saved.get("shards") != self.shards.fingerprint:
            raise TrainerError(
                f"{checkpoint.path} was trained on shards {saved.get('shards')}, but {shards} is "
                f"{self.shards.fingerprint}; give the shards folder it was trained on"
            )
        if missing := {"data.shuffle_block", "batch_ramp"} - saved.keys():
            raise TrainerError(
                f"{checkpoint.path} has no {' and '.join(sorted(missing))}: an earlier version wrote it, whose order "
                "of the data is unknown here; train again to trace"
            )
        self.steps, self.since = checkpoint.step, checkpoint.state.get("shards_since", 0)
        self.ledger = Ledger(train_dir / "ledger.json")
        sequences = saved["global_batch_tokens"] // self.shards.sequence_length
        self.order = Sampler(
            [stream.data.shard_sizes for stream in self.shards.train],
            self.shards.phases(checkpoint.state["settings"]["steps"]),
            sequences,
            saved["seed"],
            saved["data.shuffle_block"],
            ramped_sizes(saved["batch_ramp"], sequences),
        )

    def step(self, number: int) -> list[Piece]:
        """The documents of a step, in the order of the batch. Raises TrainerError for a step that was not trained."""
        if not 1 <= number <= self.steps:
            raise TrainerError(f"step {number} was not trained; the newest checkpoint is that of step {self.steps}")
        if number <= self.since:
            raise TrainerError(f"steps 1 to {self.since} were trained on other shards, which a resumed run accepted")
        if (entry := self.ledger.covering(number)) is not None:
            raise TrainerError(f"step {number} was skipped by policy `{entry.policy}`: {entry.reason}")
        drawn = self.order.batch(number - 1).tolist()
        return [piece for stream, sample in drawn for piece in list_pieces(self.shards, stream, sample)]

    def steps_of(self, samples: set[tuple[str, int]]) -> dict[tuple[str, int], list[int]]:
        """The steps, ascending, that trained on each of `samples`, (stream, number): one for each epoch so far."""
        names = {stream.name: number for number, stream in enumerate(self.shards.train)}
        return {
            (name, sample): [
                step + 1
                for step in self.order.steps_of(names[name], sample, self.steps)
                if step >= self.since and self.ledger.covering(step + 1) is None
            ]
            for name, sample in samples
            if name in names
        }
