"""Cross-entropy of a linear head, in chunks, so that the logits of a batch never exist at once.

For each chunk of rows the logits become losses and, in the same pass, gradients of hidden states and weight;
`backward` only scales these (the idea is Liger Kernel's, arXiv:2410.10989). Between the head's three matrix products
is one function of a chunk: `chunk_losses`, whose operations a compiler fuses, or without one `eager_losses`, of the few
kernels that torch offers. Costs: one (chunk, vocabulary) buffer in the compute type and one fp32 copy of the weight's
gradient instead of several (rows, vocabulary) ones; no recomputation.

Optional z-loss (PaLM, arXiv:2204.02311): `z_loss * log(Z)^2` per token keeps the log-partition near zero.

`torch.nn.functional.linear_cross_entropy` is no substitute: it has no z-loss, returns one number in the type of its
input (a sum in bf16 turned a loss of 10.24 into 10.56), and took four times as long on a CPU (torch 2.15).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
CHUNK_ELEMENTS = 1 << 22  # logits alive at once, but never fewer than CHUNK_ROWS rows
CHUNK_ROWS = 1024  # fewer would pass over the weight and its gradient, larger than any cache, too often
CHUNK_ELEMENTS_CUDA = 1 << 28  # large products keep a GPU busy


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    scale: float | Tensor,
    z_loss: float = 0.0,
    chunk: int | None = None,
    compiled: bool = False,
    copy: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden @ weight.T` against `targets`.

    hidden: (rows, width), fp32 or bf16, also the type of the matrix products; weight: (vocabulary, width) fp32;
    targets: (rows,) int64, IGNORE where there is nothing to predict; chunk: number of rows at once; copy: the weight in
    the type of `hidden`, if it was cast before.
    Returns `scale * sum(loss + z_loss * logsumexp^2)`, an fp32 scalar to differentiate, and the losses in nats
    without z-loss, (rows,) fp32, 0 where ignored, without gradient.
    """
    elements = CHUNK_ELEMENTS_CUDA if hidden.is_cuda else CHUNK_ELEMENTS
    rows = chunk or max(CHUNK_ROWS, elements // weight.shape[0])
    return _LinearCrossEntropy.apply(  # type: ignore[no-any-return]
        hidden, weight, targets, scale, z_loss, rows, compiled, torch.is_grad_enabled(), copy
    )


def chunk_losses(logits: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (rows,) fp32, sum of losses and z-losses, and its gradient with respect to the logits, in their type."""
    kept = targets != IGNORE
    scores = logits.float()
    partition = scores.logsumexp(-1)
    picked = scores.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    losses = torch.where(kept, partition - picked, 0.0)
    total = losses.sum() + z_loss * torch.where(kept, partition, 0.0).square().sum()
    numbers = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)  # int64 takes twice the time
    chosen = numbers == targets[:, None].int()
    probabilities = (scores - partition[:, None]).exp()
    gradient = probabilities * (1 + 2 * z_loss * partition)[:, None] - chosen.float()
    return losses, total, torch.where(kept[:, None], gradient, 0.0).to(logits.dtype)


def eager_losses(logits: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `chunk_losses`, in fewer passes over the logits when each operation is a pass."""
    kept = targets != IGNORE
    chosen = targets.clamp(min=0)[:, None]
    scores = logits.float()
    logarithms = scores.log_softmax(-1)
    picked = logarithms.gather(1, chosen)
    partition = (scores.gather(1, chosen) - picked)[:, 0]
    losses = torch.where(kept, -picked[:, 0], 0.0)
    total = losses.sum() + z_loss * torch.where(kept, partition, 0.0).square().sum()
    gradient = logarithms.exp_()
    if z_loss:
        gradient.mul_((1 + 2 * z_loss * partition)[:, None])
    gradient.scatter_(1, chosen, gradient.gather(1, chosen) - 1)
    return losses, total, gradient.mul_(kept[:, None]).to(logits.dtype)


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(chunk_losses, dynamic=False)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: float | Tensor,
        z_loss: float,
        chunk: int,
        compiled: bool,
        with_gradient: bool,
        copy: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        head = weight.to(hidden.dtype) if copy is None else copy
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if with_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if with_gradient else None
        evaluate = _compiled() if compiled else eager_losses
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            losses[part], summed, grad = evaluate(F.linear(hidden[part], head), targets[part], z_loss)
            total += summed
            if grad_hidden is not None and grad_weight is not None:
                grad_hidden[part] = grad @ head
                grad_weight += grad.t() @ hidden[part]
        ctx.mark_non_differentiable(losses)
        ctx.scale = scale
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total * scale, losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        upstream = grads[0] * ctx.scale
        return grad_hidden * upstream, grad_weight * upstream, *(None,) * 7
