"""From a training step to its documents and from a document to its steps.

The samples of a step are a function of what the checkpoint records (batch, seed, shards), so nothing needs a log. Steps
are numbered as in metrics.jsonl: step 1 is the first update; the ledger lists skipped steps. Both ways cost the same
however long the run is, but for the epochs that a sample was read in.

`read_order` takes a run's small files alone (no torch, no tensors, milliseconds), for commands that must answer at
once; `History` opens the shards, which may be any, and verifies the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from common.errors import TrainerError
from common.files import read_json
from trainer.anomalies import Entry, Ledger
from trainer.sampler import Phase, Sampler, ramped_sizes

if TYPE_CHECKING:
    from trainer.pieces import Piece

NEEDED = {"data.shuffle_block", "batch_ramp"}  # earlier versions did not save them


class Order:
    """The data order of a training run up to a checkpoint. since: the last step that was trained on earlier shards."""

    def __init__(
        self, state: Mapping[str, Any], skipped: Sequence[Entry], shards: Mapping[str, Sequence[int]],
        phases: Sequence[Phase], length: int,
    ) -> None:  # fmt: skip
        """state: of the checkpoint; shards: samples of each shard by stream; length: tokens of a sample."""
        saved = state["identity"]
        self.steps, self.since = int(state["step"]), int(state.get("shards_since", 0))
        self.skipped, self.names = skipped, list(shards)
        batch = saved["global_batch_tokens"] // length
        ramp = ramped_sizes(saved["batch_ramp"], batch)
        self.sampler = Sampler([*shards.values()], phases, batch, saved["seed"], saved["data.shuffle_block"], ramp)

    def steps_of(self, stream: str, sample: int) -> list[int]:
        """The steps, ascending, that trained on a sample of a stream: one for each epoch so far."""
        if stream not in self.names:
            return []
        steps = [step + 1 for step in self.sampler.steps_of(self.names.index(stream), sample, self.steps)]
        return [step for step in steps if step > self.since and self.covering(step) is None]

    def covering(self, step: int) -> Entry | None:
        """The entry of the ledger that made the run skip `step`, or None."""
        return next((entry for entry in self.skipped if entry.first <= step <= entry.last), None)


def read_order(shards: Path, state: Mapping[str, Any], skipped: Sequence[Mapping[str, Any]]) -> Order:
    """The order of the newest checkpoint's `state`, its streams called `train/<stream>`; skipped: rows of the ledger.

    Raises ValueError where the checkpoint is of other shards, or does not say in which order it read them.
    """
    saved, manifest = state["identity"], read_json(shards / "manifest.json")
    if saved.get("shards") != xxhash.xxh3_128_hexdigest((shards / "manifest.json").read_bytes()):
        raise ValueError("its checkpoints were trained on other shards than the present ones")
    if NEEDED - saved.keys():
        raise ValueError("its checkpoints do not say in which order they read the shards")
    names = [name for name, of in manifest["streams"].items() if name.startswith("train/") and of["samples"]]
    sizes = {name: [of["samples"] for of in read_json(shards / name / "index.json")["shards"]] for name in names}
    steps = state["settings"]["steps"]
    starts = {round(phase["start"] * steps): phase["weights"] for phase in manifest["phases"]}
    phases = [Phase(start, [weights[name] for name in names]) for start, weights in starts.items()]
    return Order(state, [Entry(**row) for row in skipped], sizes, phases, manifest["sequence_length"])


class History(Order):
    """The samples that a training folder's newest checkpoint was trained on."""

    def __init__(self, train_dir: Path, shards: Path) -> None:
        """Raises TrainerError where there is no checkpoint, or it was trained on other shards."""
        from trainer.shards import open_as_trained
        from trainer.trained import load_checkpoint

        checkpoint, _ = load_checkpoint(train_dir)
        self.shards = open_as_trained(shards, train_dir / "shards-cache", checkpoint.state)
        saved = checkpoint.state["identity"]
        if saved.get("shards") != self.shards.fingerprint:
            raise TrainerError(
                f"{checkpoint.path} was trained on shards {saved.get('shards')}, but {shards} is "
                f"{self.shards.fingerprint}; give the shards folder it was trained on"
            )
        if missing := NEEDED - saved.keys():
            raise TrainerError(
                f"{checkpoint.path} has no {' and '.join(sorted(missing))}: an earlier version wrote it, whose order "
                "of the data is unknown here; train again to trace"
            )
        sizes = {stream.name: stream.data.shard_sizes for stream in self.shards.train}
        phases = self.shards.phases(checkpoint.state["settings"]["steps"])
        ledger = Ledger(train_dir / "ledger.json")
        super().__init__(checkpoint.state, ledger.entries, sizes, phases, self.shards.sequence_length)

    def step(self, number: int) -> list[Piece]:
        """The documents of a step, in the order of the batch. Raises TrainerError for a step that was not trained."""
        from trainer.pieces import list_pieces

        if not 1 <= number <= self.steps:
            raise TrainerError(f"step {number} was not trained; the newest checkpoint is that of step {self.steps}")
        if number <= self.since:
            raise TrainerError(f"steps 1 to {self.since} were trained on other shards, which a resumed run accepted")
        if (entry := self.covering(number)) is not None:
            raise TrainerError(f"step {number} was skipped by policy `{entry.policy}`: {entry.reason}")
        drawn = self.sampler.batch(number - 1).tolist()
        return [piece for stream, sample in drawn for piece in list_pieces(self.shards, stream, sample)]
