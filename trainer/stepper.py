"""One step of training: micro-batches to gradients, and an update of the weights with them.

The gradient is that of the mean loss over all the step's targets, however many micro-batches and processes they are
divided into. Nothing here waits for the device: losses and norms are tensors. Weights are cast to the compute type once
a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.feed import Part
from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.parallel import ALONE, Losses, World, set_gradient_sync
from trainer.tensors import gathered

NO_LOSS = -1.0  # of a step whose samples have nothing to predict; a loss is never negative


class Stepper:
    """Turns micro-batches into an update of a model: forward and backward passes, clipping, optimizer."""

    def __init__(
        self, model: Transformer, optimizer: Optimizer, *, world: World = ALONE, losses: Losses | None = None
    ) -> None:
        """losses: with several processes, the function that `trainer.parallel.distribute` returned."""
        self.model, self.optimizer, self.world = model, optimizer, world
        self.losses = losses or model.losses
        self.parameters = list(model.parameters())
        self.token_losses: list[Tensor] = []  # of the last step's micro-batches, in nats

    def gradients(self, parts: Sequence[Part], z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Set the gradients from this process's micro-batches; all processes must have the same number of them.

        Returns the mean loss in nats over the targets of all processes (NO_LOSS without any), and the gradient's norm.
        """
        device = self.model.norm.weight.device
        loss, self.token_losses = torch.zeros((), device=device), []
        counts = [(targets >= 0).sum() for _, targets, _ in parts]
        total = self.world.total(torch.stack(counts).sum().float())
        targets = total.clamp(min=1.0)
        scale = self.world.size / targets  # both kinds of parallelism average gradients
        with self.model.cast_once():
            for number, part in enumerate(parts):
                set_gradient_sync(self.losses, self.model, number == len(parts) - 1)
                objective, losses = self.losses(*part, scale=scale, z_loss=z_loss)
                objective.backward()  # type: ignore[no-untyped-call]
                loss += losses.sum()
                self.token_losses.append(losses)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return torch.where(total > 0, self.world.total(loss) / targets, NO_LOSS), gathered(norm)

    def apply(self, norm: Tensor) -> None:
        """Update the weights with the gradients of this `norm`, clipped as the optimizer's settings say."""
        if clip := self.optimizer.config.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        self.optimizer.step()
