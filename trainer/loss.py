"""Cross-entropy of a linear head, in chunks: the logits of the whole batch never exist.

For each chunk of rows the logits are made, turned into losses and, in the same pass, into the gradients of
hidden states and weight, then dropped; `backward` only scales what is there (the idea is Liger Kernel's,
arXiv:2410.10989). Costs: one (chunk, vocabulary) fp32 buffer and one fp32 copy of the weight's gradient instead
of (rows, vocabulary) several times; the head's three matrix products, no recomputation.

Optional z-loss (PaLM, arXiv:2204.02311): `z_loss * log(Z)^2` per token keeps the log-partition near zero.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
CHUNK_ELEMENTS = 1 << 22  # logits alive at once: 16 MB in fp32, but never fewer than 256 rows


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, scale: float, z_loss: float = 0.0, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden @ weight.T` against `targets`.

    hidden: (rows, width), fp32 or bf16, which is also the type of the matrix products; weight: (vocabulary,
    width) fp32; targets: (rows,) int64, IGNORE where there is nothing to predict.
    Returns `scale * sum(loss + z_loss * logsumexp^2)`, an fp32 scalar to differentiate, and the losses in nats
    alone, (rows,) fp32, 0 where ignored, without gradient. `chunk` is the number of rows at once.
    """
    rows = chunk or max(256, CHUNK_ELEMENTS // weight.shape[0])
    return _LinearCrossEntropy.apply(hidden, weight, targets, scale, z_loss, rows, torch.is_grad_enabled())  # type: ignore[no-any-return]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: float,
        z_loss: float,
        chunk: int,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        head = weight.to(hidden.dtype)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if with_gradient else None
        grad_weight = torch.zeros_like(weight) if with_gradient else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            kept = targets[part] != IGNORE
            index = targets[part].clamp(min=0)
            logits = F.linear(hidden[part], head).float()
            picked = logits.gather(1, index[:, None])[:, 0]
            largest = logits.amax(-1)
            exponents = logits.sub_(largest[:, None]).exp_()  # in place: the passes over memory are what costs
            mass = exponents.sum(-1)
            partition = largest + mass.log()
            losses[part] = torch.where(kept, partition - picked, 0.0)
            total += losses[part].sum() + z_loss * torch.where(kept, partition, 0.0).square().sum()
            if grad_hidden is None or grad_weight is None:
                continue
            factor = scale * kept
            grad = exponents.mul_((factor * (1 + 2 * z_loss * partition) / mass)[:, None])
            grad[torch.arange(len(index), device=index.device), index] -= factor
            grad = grad.to(hidden.dtype)
            grad_hidden[part] = grad @ head
            grad_weight += grad.t() @ hidden[part]
        ctx.mark_non_differentiable(losses)
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total * scale, losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        upstream = grads[0]
        return grad_hidden * upstream, grad_weight * upstream, None, None, None, None, None
