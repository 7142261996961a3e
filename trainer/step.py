"""One optimizer step: micro-batches forward and backward, clipping, update. What benchmarks time and runs repeat.

The gradient is that of the mean loss over all the step's targets, however many micro-batches they are cut into. Nothing
here waits for the device: losses and norms come back as tensors for whoever wants to read them later.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.model import Transformer
from trainer.optimizer import Optimizer

Part = tuple[Tensor, Tensor, Tensor | None]  # tokens, targets, documents of a micro-batch


def update(
    model: Transformer,
    optimizer: Optimizer,
    parts: Iterable[Part],
    *,
    targets: int,
    rate: float,
    clip: float = 1.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Update the model by the step's micro-batches, which hold `targets` targets together.

    Returns the mean loss in nats and the gradient's norm before clipping (0 switches clipping off).
    """
    device = model.embed_tokens.weight.device
    loss = torch.zeros((), device=device)
    for part in parts:
        objective, losses = model.losses(*part, scale=1.0 / max(1, targets), z_loss=z_loss)
        objective.backward()  # type: ignore[no-untyped-call]
        loss += losses.sum()
    parameters = list(model.parameters())
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    optimizer.step(rate)
    return loss / max(1, targets), norm
