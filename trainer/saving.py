"""A run's tensors into checkpoints and back: weights, optimizer, their average, random generators.

Under DDP the main process saves what all have alike; under FSDP2 each process saves and reads its own rows. The
random generators are the main process's: nothing in a step draws from them, so that they are alike everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import checkpoint
from trainer.anomalies import Ledger
from trainer.average import PREFIX, Average, training_weights
from trainer.checkpoint import Checkpoint
from trainer.config import TrainConfig
from trainer.errors import TrainerError
from trainer.identity import Fields, changed_settings, check_identity
from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.parallel import ALONE, World
from trainer.runtime import random_state, set_random_state
from trainer.writer import Retention, Writer


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
