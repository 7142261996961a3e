"""Which steps read a sample, from a run's small files alone: no torch, no tensors, milliseconds.

`trainer.trace` answers the same question with the shards opened and the checkpoint verified; this is for commands that
must answer at once. The shards are a folder with a manifest of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xxhash

from common.files import read_json
from trainer.sampler import Phase, Sampler, ramped_sizes

TRAIN = "train/"


class Order:
    """The data order of a training run. since: the last step that was trained on earlier shards."""

    def __init__(self, shards: Path, state: dict[str, Any], skipped: list[dict[str, Any]]) -> None:
        """state: of the newest checkpoint; skipped: the entries of the run's ledger.

        Raises ValueError where the checkpoint is of other shards, or does not say in which order it read them.
        """
        saved, manifest = state["identity"], read_json(shards / "manifest.json")
        if saved.get("shards") != xxhash.xxh3_128_hexdigest((shards / "manifest.json").read_bytes()):
            raise ValueError("its checkpoints were trained on other shards than the present ones")
        if {"data.shuffle_block", "batch_ramp"} - saved.keys():
            raise ValueError("its checkpoints do not say in which order they read the shards")
        self.steps, self.since = int(state["step"]), int(state.get("shards_since", 0))
        self.skipped = [range(entry["first"], entry["last"] + 1) for entry in skipped]
        self.names = [name for name, of in manifest["streams"].items() if name.startswith(TRAIN) and of["samples"]]
        indexes = [read_json(shards / name / "index.json")["shards"] for name in self.names]
        sizes = [[shard["samples"] for shard in index] for index in indexes]
        total = state["settings"]["steps"]
        phases = {round(phase["start"] * total): phase["weights"] for phase in manifest["phases"]}
        batch = saved["global_batch_tokens"] // manifest["sequence_length"]
        self.sampler = Sampler(
            sizes,
            [Phase(start, [weights[name] for name in self.names]) for start, weights in phases.items()],
            batch,
            saved["seed"],
            saved["data.shuffle_block"],
            ramped_sizes(saved["batch_ramp"], batch),
        )

    def steps_of(self, stream: str, sample: int) -> list[int]:
        """The steps, ascending, that trained on a sample of `<split>/<stream>`, as metrics.jsonl numbers them."""
        if stream not in self.names:
            return []
        steps = [step + 1 for step in self.sampler.steps_of(self.names.index(stream), sample, self.steps)]
        return [step for step in steps if step > self.since and not any(step in range_ for range_ in self.skipped)]
