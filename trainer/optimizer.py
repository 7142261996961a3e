"""Muon for the blocks' matrices and AdamW for everything else, or AdamW for all.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces a matrix's Nesterov momentum by the nearest
semi-orthogonal matrix, found with five Newton-Schulz steps. Matrices of one shape are stacked, so that a step is
a few batched products instead of hundreds of small ones. Its update is scaled to RMS 0.2 x lr, about AdamW's own
(Moonlight, arXiv:2502.16982), so learning rate and weight decay mean the same for both.

Decay leaves out norms and the input embedding, whose rare rows would shrink between their gradients (OLMo 2,
arXiv:2501.00656). State: one fp32 buffer per Muon weight, two per AdamW weight. Cost of Newton-Schulz on (r, c),
r <= c: 5 * (4 r^2 c + 2 r^3) FLOPs per matrix and step, whatever the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.config import OptimizerConfig
from trainer.model import Transformer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of Jordan et al., steepest at zero
UPDATE_RMS = 0.2  # AdamW's usual update RMS, measured in arXiv:2502.16982
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


class Optimizer:
    """Updates a model's parameters in place; `rate` in `step` scales both peak learning rates."""

    def __init__(self, model: Transformer, config: OptimizerConfig, lr: float, muon_lr: float) -> None:
        """`lr` and `muon_lr` are the peaks; Newton-Schulz runs in the model's compute type."""
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.lr, self.muon_lr, self.config = lr, muon_lr, config
        self.dtype = model.compute_dtype
        matrices = [p for p in model.layers.parameters() if p.ndim == 2] if config.name == "muon" else []
        self.shapes: dict[torch.Size, list[Tensor]] = {}
        for parameter in matrices:
            self.shapes.setdefault(parameter.shape, []).append(parameter)
        self.momentum = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.shapes.items()
        }
        rest = [p for p in self.names if not any(p is matrix for matrix in matrices)]
        plain = [p for p in rest if p.ndim < 2 or p is model.embed_tokens.weight]
        decayed = [p for p in rest if not any(p is other for other in plain)]
        groups = [
            {"params": params, "weight_decay": decay}
            for params, decay in ((decayed, config.weight_decay), (plain, 0.0))
            if params
        ]
        self.adamw = torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=1e-8, fused=True)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update at `rate` times the peak learning rates; gradients are dropped."""
        for group in self.adamw.param_groups:
            group["lr"] = self.lr * rate
        self.adamw.step()
        for shape, parameters in self.shapes.items():
            self._muon(shape, parameters, self.muon_lr * rate)
        for parameter in self.names:
            parameter.grad = None

    def _muon(self, shape: torch.Size, parameters: list[Tensor], lr: float) -> None:
        gradient = torch.stack([p.grad for p in parameters if p.grad is not None])
        momentum = self.momentum[shape].lerp_(gradient, 1 - self.config.momentum)
        update = gradient.lerp_(momentum, self.config.momentum)
        directions = orthogonalize(update.to(self.dtype)).to(torch.float32)
        scale = UPDATE_RMS * math.sqrt(max(shape))
        torch._foreach_mul_(parameters, 1 - lr * self.config.weight_decay)
        torch._foreach_add_(parameters, list(directions.unbind()), alpha=-lr * scale)

    def state(self) -> dict[str, Tensor]:
        """Everything to save, fp32, by `<kind>.<parameter name>`: momentum, exp_avg, exp_avg_sq, step."""
        tensors: dict[str, Tensor] = {}
        for shape, parameters in self.shapes.items():
            for parameter, momentum in zip(parameters, self.momentum[shape], strict=True):
                tensors[f"momentum.{self.names[parameter]}"] = momentum
        for parameter, state in self.adamw.state.items():
            for kind in ADAM_STATE:
                tensors[f"{kind}.{self.names[parameter]}"] = state[kind]
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the state that `state` returned. Raises KeyError where it belongs to other parameters."""
        for shape, parameters in self.shapes.items():
            for parameter, momentum in zip(parameters, self.momentum[shape], strict=True):
                momentum.copy_(tensors[f"momentum.{self.names[parameter]}"])
        for group in self.adamw.param_groups:
            for parameter in group["params"]:
                self.adamw.state[parameter] = {
                    kind: tensors[f"{kind}.{self.names[parameter]}"].to(parameter.device) for kind in ADAM_STATE
                }


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    matrices: (n, rows, columns), fp32 or bf16; the result has the same shape and type.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x.float(), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x
