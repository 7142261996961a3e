"""One optimizer step: micro-batches forward and backward, clipping, update. What benchmarks time and runs repeat.

The gradient is that of the mean loss over all the step's targets, however many micro-batches and processes they are
cut into. Nothing here waits for the device: losses and norms come back as tensors for whoever wants to read them later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.parallel import ALONE, Losses, World, set_gradient_sync
from trainer.sharding import whole

Part = tuple[Tensor, Tensor, Tensor | None]  # tokens, targets, documents of a micro-batch


class Stepper:
    """Turns batches into updates of a model."""

    def __init__(
        self, model: Transformer, optimizer: Optimizer, *, world: World = ALONE, losses: Losses | None = None
    ) -> None:
        """losses: what `trainer.parallel.distribute` returned, where there are several processes."""
        self.model, self.optimizer, self.world = model, optimizer, world
        self.losses = losses or model.losses
        self.parameters = list(model.parameters())

    def gradients(self, parts: Sequence[Part], z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Set the gradients of this process's micro-batches; all processes must have as many of them.

        Returns the mean loss in nats over the targets of all processes, and the gradient's norm.
        """
        device = self.model.norm.weight.device
        loss = torch.zeros((), device=device)
        counts = [(targets >= 0).sum() for _, targets, _ in parts]
        targets = self.world.total(torch.stack(counts).sum().float()).clamp(min=1.0)
        scale = self.world.size / targets  # both kinds of parallelism average gradients
        for number, part in enumerate(parts):
            set_gradient_sync(self.losses, self.model, number == len(parts) - 1)
            objective, losses = self.losses(*part, scale=scale, z_loss=z_loss)
            objective.backward()  # type: ignore[no-untyped-call]
            loss += losses.sum()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return self.world.total(loss) / targets, whole(norm)

    def apply(self, rate: float, clip: float, norm: Tensor) -> None:
        """Update the weights at `rate` times the peak learning rates, the gradient clipped to `clip` (0: not)."""
        if clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        self.optimizer.step(rate)

    def discard(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def update(
        self, parts: Sequence[Part], *, rate: float, clip: float = 1.0, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Gradients and update in one; returns loss and norm."""
        loss, norm = self.gradients(parts, z_loss)
        self.apply(rate, clip, norm)
        return loss, norm
