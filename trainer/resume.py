"""A run's tensors into checkpoints and back: weights, optimizer, their average, random generators.

Under DDP the main process saves what all have alike; under FSDP2 each process saves and reads its own rows. The
random generators are the main process's: nothing in a step draws from them, so that they are alike everywhere.

What a run must share with its checkpoint to be resumed, and what it may change with a warning.

Data, tokenizer, batch and seed decide what every step means: other values are refused, unless the field is named in
`checkpoint.accept`. Other model shapes and optimizers cannot take the tensors over at all. Learning rates, schedule,
length, precision or micro-batch may be changed by whoever knows why; the change is named, for the run is then no
longer bit for bit the one that an uninterrupted run would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import TrainerError
from trainer import checkpoint
from trainer.anomalies import Ledger
from trainer.checkpoint import Checkpoint, Retention, Writer
from trainer.config import ModelConfig, TrainConfig
from trainer.machine import random_state, set_random_state
from trainer.model import Transformer
from trainer.optimizer import PREFIX, Average, Optimizer, training_weights
from trainer.parallel import ALONE, World
from trainer.shards import Shards


class Keeper:
    """Saves the tensors of a run, and puts them back."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        world: World,
        model: Transformer,
        optimizer: Optimizer,
        average: Average | None,
    ) -> None:
        """folder: of the checkpoints, the same one for all processes."""
        self.config, self.folder, self.world = config, folder, world
        self.model, self.optimizer, self.average = model, optimizer, average
        self.device = model.cos.device
        anomalies, kept = config.anomalies, config.checkpoint
        retention = Retention(kept.keep_last, kept.keep_every, anomalies.span if anomalies.policy == "rollback" else 0)
        sharded = config.parallel == "fsdp"
        self.writes = world.main or sharded
        self.writer = Writer(folder, retention, world if sharded else ALONE)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Start writing a checkpoint; the one before must be collected."""
        if not self.writes:
            return
        optimizer = self.optimizer.state() | random_state(self.device)
        weights: dict[str, Tensor] = dict(self.model.named_parameters())
        if self.average is not None:
            optimizer |= {PREFIX + name: tensor for name, tensor in weights.items()}
            weights = self.average.values
        self.writer.save(step, weights, optimizer, state)

    def restore(self, ledger: Ledger, identity: Fields, settings: Fields) -> tuple[Checkpoint | None, list[str]]:
        """Take over the newest whole checkpoint that the ledger allows, if there is one; and what to warn of.

        Raises TrainerError where it belongs to another run.
        """
        torch.manual_seed(self.config.seed)
        newest, warnings = self.world.from_main(lambda: checkpoint.find_newest(self.folder, ledger.knows))
        found = None if newest is None else checkpoint.load(newest)
        if found is not None:
            accepted = self.config.checkpoint.accept
            warnings += check_identity(found.state["identity"], identity, str(found.path), accepted)
            if (change := changed_settings(found.state["settings"], settings)) is not None:
                warnings.append(change)
            set_random_state(found.optimizer, self.device)
            self.model.load_weights(training_weights(found.model, found.optimizer))
            if self.average is not None:
                self.average.load(found.model)
            self.optimizer.load(found.optimizer)
        self.world.barrier()
        if self.world.main:
            checkpoint.set_aside(self.folder, 0 if found is None else found.step)
        return found, warnings

    def collect(self, *, wait: bool, needed: bool = False) -> tuple[tuple[int, Path] | None, str | None]:
        """Step and folder of the checkpoint that was under way, once it is written; and what to warn of.

        Raises TrainerError where one that is `needed` could not be written.
        """
        try:
            return self.writer.collect(wait=wait), None
        except TrainerError as error:
            if needed:
                raise TrainerError(f"{error}. Make room and start the same command again") from error
            return None, f"{error}; training goes on to the next one"

    def close(self) -> None:
        """Let a write that is under way come to its end."""
        self.writer.close()


Fields = dict[str, Any]
SETTINGS = (
    "steps", "optimizer", "schedule", "z_loss", "precision", "document_mask", "compile", "micro_batch",
    "deterministic", "anomalies",
)  # fmt: skip
ORDER = "the order of the data would change: some samples would be seen twice in this epoch, others not at all"
CONSEQUENCES = {
    "shards": "these are other samples; what was read of the old ones says nothing about what is left of these",
    "tokenizer": "token ids would mean other text than the one that the embeddings were trained on",
    "global_batch_tokens": f"{ORDER}, and the learning rates were chosen for the old batch",
    "batch_ramp": ORDER,
    "seed": ORDER,
    "data.shuffle_block": ORDER,
    "initial": "the run started from other weights, and these would not be used",
}
UNFIT = "the checkpoint's tensors do not fit"


def identity(config: TrainConfig, shards: Shards, model: ModelConfig, initial: str | None) -> Fields:
    """The fields that must not change, by the name under which a user finds them; `initial`: hash of given weights."""
    return {
        "shards": shards.fingerprint,
        "tokenizer": shards.tokenizer_sha256,
        **{f"model.{name}": value for name, value in model.model_dump().items()},
        "global_batch_tokens": config.global_batch_tokens,
        "batch_ramp": config.batch_ramp,
        "seed": config.seed,
        "data.shuffle_block": config.data.shuffle_block,
        "optimizer.name": config.optimizer.name,
        "initial": initial,
    }


def settings(config: TrainConfig, environment: Fields) -> Fields:
    """The fields that may change with a warning, flat; `environment` says what computes."""
    return _flat(config.model_dump(mode="json", include=set(SETTINGS)), "") | _flat(environment, "environment.")


def check_identity(saved: Fields, now: Fields, checkpoint: str, accepted: Sequence[str]) -> list[str]:
    """Warnings about accepted differences.

    Raises TrainerError that names every other field that differs, both values, the consequence and the way out.
    """
    fields = _changed(saved, now)
    refused = [field for field in fields if field not in accepted]
    if refused:
        lines = [f"{_difference(field, saved, now)}: {CONSEQUENCES.get(field, UNFIT)}" for field in refused]
        way = "Set the fields back, or train into another output folder"
        if all(field in CONSEQUENCES for field in refused):
            way += f"; to go on all the same, `--set 'train.checkpoint.accept=[{', '.join(refused)}]'`"
        raise TrainerError(
            f"cannot resume {checkpoint}: it was trained with other settings\n  " + "\n  ".join(lines) + f"\n{way}"
        )
    return [f"accepted on resuming: {_difference(field, saved, now)}" for field in fields]


def changed_settings(saved: Fields, now: Fields) -> str | None:
    """A warning that names what changed, or None."""
    fields = _changed(saved, now)
    if not fields:
        return None
    return "resumed with changed settings, so not bit for bit the uninterrupted run: " + "; ".join(
        _difference(field, saved, now) for field in fields
    )


def _changed(saved: Fields, now: Fields) -> list[str]:
    return [field for field in sorted(saved.keys() | now.keys()) if saved.get(field) != now.get(field)]


def _difference(field: str, saved: Fields, now: Fields) -> str:
    return f"{field}: checkpoint {saved.get(field)!r}, now {now.get(field)!r}"


def _flat(fields: Fields, prefix: str) -> Fields:
    flat: Fields = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
