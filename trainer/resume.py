"""Starting and resuming: which tensors a run begins with, and whether a checkpoint is this run's.

Data, tokenizer, batch and seed decide what every step means: a checkpoint with other values is refused, unless
`checkpoint.accept` names the field. With another model shape or optimizer the tensors do not fit at all. Learning
rates, schedule, length, precision and micro-batch may change; a warning names the change, since the run is then not
bit for bit the uninterrupted one.

Under DDP the main process saves the tensors, which are the same in all processes; under FSDP2 each process saves and
reads its own rows. Random generators are saved by the main process: no step draws from them, so all agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import TrainerError
from trainer.checkpoint import Checkpoint, Retention, Writer, find_newest, load, set_aside
from trainer.config import ModelConfig, TrainConfig
from trainer.model import Transformer
from trainer.optimizer import PREFIX, Average, Optimizer, training_weights
from trainer.parallel import ALONE, World

Fields = dict[str, Any]
SETTINGS = (
    "steps", "optimizer", "schedule", "z_loss", "precision", "document_mask", "compile", "micro_batch",
    "deterministic", "anomalies",
)  # fmt: skip
ORDER = "the order of the data would change: some samples would be seen twice in this epoch, others not at all"
CONSEQUENCES = {
    "shards": "the samples differ, or their files were written again, so it is unknown what the checkpoint has seen",
    "tokenizer": "token ids would mean other text than the one that the embeddings were trained on",
    "global_batch_tokens": f"{ORDER}, and the learning rates were chosen for the old batch",
    "batch_ramp": ORDER,
    "seed": ORDER,
    "data.shuffle_block": ORDER,
    "initial": "the run started from other weights, and these would not be used",
}
ATTENTION = "environment.attention"
UNFIT = "the checkpoint's tensors do not fit"


class Keeper:
    """Saves a run's tensors (weights, optimizer, average, random generators) and restores them."""

    def __init__(
        self, folder: Path, retention: Retention, world: World, sharded: bool,
        model: Transformer, optimizer: Optimizer, average: Average | None,
    ) -> None:  # fmt: skip
        """folder: of the checkpoints, the same one for all processes; sharded: each process holds rows (FSDP2)."""
        self.folder, self.world = folder, world
        self.model, self.optimizer, self.average = model, optimizer, average
        self.device = model.cos.device
        self.writes = world.main or sharded
        self.writer = Writer(folder, retention, world if sharded else ALONE)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Start writing a checkpoint; call `writer.collect` for the one before first."""
        if not self.writes:
            return
        optimizer = self.optimizer.state() | random_state(self.device)
        weights: dict[str, Tensor] = dict(self.model.named_parameters())
        if self.average is not None:
            optimizer |= {PREFIX + name: tensor for name, tensor in weights.items()}
            weights = self.average.values
        self.writer.save(step, weights, optimizer, state)

    def find(self, accept: Callable[[Fields], bool]) -> tuple[Checkpoint | None, list[str]]:
        """The newest intact checkpoint whose state `accept` allows, and messages about damaged ones."""
        newest, warnings = self.world.from_main(lambda: find_newest(self.folder, accept))
        return None if newest is None else load(newest), warnings

    def restore(self, saved: Checkpoint | None) -> None:
        """Take the tensors from a checkpoint, if there is one, and set later checkpoints aside."""
        if saved is not None:
            torch.set_rng_state(saved.optimizer["random.cpu"])
            if self.device.type == "cuda" and "random.cuda" in saved.optimizer:  # it was saved on a GPU, too
                torch.cuda.set_rng_state(saved.optimizer["random.cuda"], self.device)
            self.model.load_weights(training_weights(saved.model, saved.optimizer))
            if self.average is not None:
                self.average.load(saved.model)
            self.optimizer.load(saved.optimizer)
        self.world.barrier()
        if self.world.main:
            set_aside(self.folder, 0 if saved is None else saved.step)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of the random generators, by their names in a checkpoint."""
    states = {"random.cpu": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def identity(
    config: TrainConfig, model: ModelConfig, *, shards: str, tokenizer: str | None, initial: str | None
) -> Fields:
    """The fields that a run must share with its checkpoint, under the names that a user knows.

    shards: their fingerprint; tokenizer, initial: SHA-256 of the tokenizer and of given weights.
    """
    return {
        "shards": shards,
        "tokenizer": tokenizer,
        **{f"model.{name}": value for name, value in model.model_dump().items()},
        "global_batch_tokens": config.global_batch_tokens,
        "batch_ramp": config.batch_ramp,
        "seed": config.seed,
        "data.shuffle_block": config.data.shuffle_block,
        "optimizer.name": config.optimizer.name,
        "initial": initial,
    }


def settings(config: TrainConfig, environment: Fields) -> Fields:
    """The fields whose change is only warned of, flat; environment: torch's version, device, threads."""
    return _flat(config.model_dump(mode="json", include=set(SETTINGS)), "") | _flat(environment, "environment.")


def keep_attention(saved: Checkpoint, settings: Fields) -> Fields:
    """The settings with the checkpoint's attention kernel where nothing else differs, so that the bits stay the same
    when a later version's table names another."""
    then = saved.state["settings"]
    return then if _changed(then, settings) == [ATTENTION] and ATTENTION in then else settings


def check(saved: Checkpoint, identity: Fields, settings: Fields, accepted: Sequence[str]) -> list[str]:
    """Compare a checkpoint with this run; returns warnings about accepted and harmless differences.

    Raises TrainerError that names every other field that differs, both values, the consequence and the remedy.
    """
    then = saved.state["identity"]
    fields = _changed(then, identity)
    if refused := [field for field in fields if field not in accepted]:
        lines = [f"{_difference(field, then, identity)}: {CONSEQUENCES.get(field, UNFIT)}" for field in refused]
        remedy = "Set the fields back, or train into another output folder"
        if all(field in CONSEQUENCES for field in refused):
            remedy += f"; to resume all the same, `--set 'train.checkpoint.accept=[{', '.join(refused)}]'`"
        raise TrainerError(
            f"cannot resume {saved.path}: it was trained with other settings\n  " + "\n  ".join(lines) + f"\n{remedy}"
        )
    warnings = [f"accepted on resuming: {_difference(field, then, identity)}" for field in fields]
    then = saved.state["settings"]
    if changes := [_difference(field, then, settings) for field in _changed(then, settings)]:
        warnings.append(
            "resumed with changed settings, so not bit for bit the uninterrupted run: " + "; ".join(changes)
        )
    return warnings


def _changed(saved: Fields, now: Fields) -> list[str]:
    return [field for field in sorted(saved.keys() | now.keys()) if saved.get(field) != now.get(field)]


def _difference(field: str, saved: Fields, now: Fields) -> str:
    return f"{field}: checkpoint {saved.get(field)!r}, now {now.get(field)!r}"


def _flat(fields: Fields, prefix: str) -> Fields:
    flat: Fields = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
