"""Muon for the blocks' matrices and AdamW for everything else, or AdamW for all; schedules; average of the weights.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces a matrix's Nesterov momentum by the nearest
semi-orthogonal matrix, computed with five Newton-Schulz steps (Polar Express), and equalizes its rows (NorMuon).
Matrices of one shape are stacked, so that a step is a few batched products instead of hundreds of small ones. Its
update is scaled to RMS 0.2 x lr, about AdamW's own (Moonlight, arXiv:2502.16982), so learning rate and weight decay
mean the same for both.

Norms and the input embedding do not decay: the embedding's rare rows would shrink between their gradients (OLMo 2,
arXiv:2501.00656). State: one fp32 buffer per Muon weight and a number per row, two buffers per AdamW weight. Cost of
Newton-Schulz on (r, c), r <= c: 5 * (4 r^2 c + 2 r^3) FLOPs per matrix and step, whatever the batch. Several processes
share the matrices of a shape among them and exchange the results, in the model's compute type.

Learning rates, momentum and batch size are functions of the step, so that no schedule has state to save.

The average (exponential moving average of the weights) costs one fp32 copy of them and one pass over them a step. A
checkpoint's model.safetensors then holds the average, for evaluation, generation and export, and its
optimizer.safetensors the weights that training resumes from.

`torch._foreach_*`, which torch's own optimizers use, has no public name: one call for many tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from common.errors import TrainerError
from trainer.config import GroupConfig, OptimizerConfig, Rates, ScheduleConfig
from trainer.model import Transformer
from trainer.parallel import ALONE, World
from trainer.tensors import Tensors, from_part, local_part, take

# Coefficients of the five quintic iterations, best in this order (Polar Express, arXiv:2505.16932).
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
# The polynomials grow without bound above 1, where bf16's rounding takes singular values: 6.9 was seen for 1.1. So each
# but the last is p(x / SAFETY) of the published p (section 3.4 there).
SAFETY = 1.02
SAFE = tuple((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in POLAR_EXPRESS[:-1]) + POLAR_EXPRESS[-1:]
SECOND_MOMENT = 0.95  # decay of NorMuon's second moments
UPDATE_RMS = 0.2  # AdamW's usual update RMS, measured in arXiv:2502.16982
BETAS = (0.9, 0.95)
# nanochat's, beside Muon: a row of the embedding has gradients seldom. Of 250 steps they take 0.04 bits per byte
# (docs/log.md, 2026-11-26, with momentum's rise).
EMBEDDING_BETAS, HEAD_BETAS = (0.8, 0.995), (0.8, 0.96)
FIRST_MOMENTUM = 0.85  # gradients of the first steps are soon out of date (modded-nanogpt, nanochat)
MOMENTUM_STEPS = 300  # in which Muon's momentum rises to `optimizer.momentum`
WARMUP = 40  # steps; Muon needs few, since the first updates have their full size in every direction
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
PREFIX = "weights."  # of the weights in optimizer.safetensors, where there is an average


class Optimizer:
    """Updates a model's parameters in place, as `schedule` says of each step."""

    def __init__(self, model: Transformer, config: OptimizerConfig, peaks: Rates, world: World = ALONE) -> None:
        """peaks: peak learning rates. Newton-Schulz runs in the model's compute type.

        Raises TrainerError where Muon's matrices are sharded and the number of processes does not divide their rows.
        """
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.peaks, self.rate, self.config = peaks, 1.0, config  # `rate` is the factor on all peaks
        self.beta = config.momentum
        self.dtype, self.world = model.compute_dtype, world
        matrices = [p for p in model.layers.parameters() if p.ndim == 2] if config.name == "muon" else []
        self.shapes: dict[torch.Size, list[Tensor]] = {}
        for parameter in matrices:
            self.shapes.setdefault(parameter.shape, []).append(parameter)
        self.sharded = bool(matrices) and isinstance(matrices[0], DTensor)
        for rows, _ in self.shapes:
            if self.sharded and rows % world.size:
                raise TrainerError(f"a weight of {rows} rows cannot be sharded over {world.size} processes; use `ddp`")
        self.momentum = {
            shape: torch.stack([torch.zeros_like(local_part(p)) for p in group]) for shape, group in self.shapes.items()
        }
        self.second = {shape: torch.zeros_like(each[..., :1]) for shape, each in self.momentum.items()}
        self.adamw = torch.optim.AdamW(self._groups(model), lr=1.0, eps=1e-8, fused=True)

    def _groups(self, model: Transformer) -> list[dict[str, Any]]:
        """AdamW's groups: embedding, head unless tied, norms, and with `adamw` the matrices."""
        config, peaks = self.config, self.peaks
        of_embedding, of_head = (BETAS, BETAS) if config.name == "adamw" else (EMBEDDING_BETAS, HEAD_BETAS)
        embedding, head = model.embed_tokens.weight, model.lm_head.weight
        norms = [p for p in self.names if p.ndim < 2]
        matrices = [] if self.shapes else [p for p in model.layers.parameters() if p.ndim == 2]
        parts = [
            ([embedding], config.embedding, peaks.embedding, of_embedding, 0.0),
            ([] if head is embedding else [head], config.head, peaks.head, of_head, config.weight_decay),
            (norms, config.norms, peaks.norms, BETAS, 0.0),
            (matrices, GroupConfig(), peaks.matrices, BETAS, config.weight_decay),
        ]
        return [
            {
                "params": params,
                "peak": peak,
                "betas": group.betas or config.betas or betas,
                "weight_decay": decay if group.weight_decay is None else group.weight_decay,
            }
            for params, group, peak, betas, decay in parts
            if params
        ]

    @property
    def learning_rate(self) -> float:
        """Learning rate of the blocks' matrices at the present `rate`."""
        return self.peaks.matrices * self.rate

    def schedule(self, config: ScheduleConfig, step: int, steps: int) -> None:
        """Set learning rates and Muon's momentum for update `step` (0-based) out of `steps`."""
        self.rate, self.beta = rate(config, step, steps), momentum(self.config, step)

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters and drop their gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * self.rate
        self.adamw.step()
        for shape, parameters in self.shapes.items():
            self._muon(shape, parameters, self.learning_rate)
        self.discard()

    def discard(self) -> None:
        """Drop the gradients."""
        for parameter in self.names:
            parameter.grad = None

    def _muon(self, shape: torch.Size, parameters: list[Tensor], lr: float) -> None:
        """Few passes over memory, which cost as much as the products where the batch is small: the gradients become
        the updates in place, and the rows' factors enter as these are added to the weights."""
        config, weights = self.config, [local_part(parameter) for parameter in parameters]
        gradients = [local_part(p.grad) for p in parameters if p.grad is not None]
        momentum = list(self.momentum[shape].unbind())
        torch._foreach_lerp_(momentum, gradients, 1 - self.beta)
        torch._foreach_lerp_(gradients, momentum, self.beta)
        updates = self.momentum[shape].new_empty(self.momentum[shape].shape, dtype=self.dtype)
        torch._foreach_copy_(list(updates.unbind()), gradients)
        directions = self._directions(updates)
        factors = self._equalize(directions, self.second[shape]) * (UPDATE_RMS * math.sqrt(max(shape)))
        torch._foreach_mul_(weights, 1 - lr * config.weight_decay)
        for weight, direction, factor in zip(weights, directions, factors, strict=True):
            weight.addcmul_(direction, factor, value=-lr)

    def _equalize(self, directions: Tensor, second: Tensor) -> Tensor:
        """Factors (n, rows, 1) fp32 that divide rows by the root of their second moment, which `second` averages, and
        keep the Frobenius norms.

        Rows of orthogonalized updates differ in size for long (NorMuon, arXiv:2510.05491). The average's bias towards
        zero at the start is the same for all rows and falls out with the norms.
        """
        norms = torch.linalg.vector_norm(directions, dim=-1, keepdim=True, dtype=torch.float32)
        squares = norms.square() / directions.shape[-1]
        second.lerp_(squares, 1 - SECOND_MOMENT)
        inverse = 1 / (second + 1e-12)
        sums = torch.cat([squares.sum(1), (squares * inverse).sum(1)], dim=1)
        if self.sharded:
            dist.all_reduce(sums)
        return (inverse * (sums[:, 0] / (sums[:, 1] + 1e-12))[:, None, None]).sqrt()

    def _directions(self, update: Tensor) -> Tensor:
        """Orthogonalize updates (n, this process's rows, columns); each process computes its share of the n."""
        size, rank = self.world.size, self.world.rank
        if size == 1:
            return orthogonalize(update)
        results = []
        for chunk in torch.split(update, size):  # a matrix for each process
            if self.sharded:
                gathered = chunk.new_empty(size * len(chunk), *chunk.shape[1:])
                dist.all_gather_into_tensor(gathered, chunk.contiguous())
                chunk = gathered.view(size, *chunk.shape).transpose(0, 1).flatten(1, 2)
            mine = orthogonalize(chunk[rank : rank + 1]) if rank < len(chunk) else torch.zeros_like(chunk[:1])
            everyone = chunk.new_empty(size, *chunk.shape[1:])
            dist.all_gather_into_tensor(everyone, mine.contiguous())
            everyone = everyone[: len(chunk)]
            results.append(everyone.chunk(size, dim=1)[rank] if self.sharded else everyone)
        return torch.cat(results)

    def state(self) -> dict[str, Tensor]:
        """Tensors to save, fp32 and sharded as the parameters, by `<momentum|exp_avg|exp_avg_sq|step>.<name>`."""
        tensors: dict[str, Tensor] = {}
        for shape, parameters in self.shapes.items():
            for parameter, momentum in zip(parameters, self.momentum[shape], strict=True):
                tensors[f"momentum.{self.names[parameter]}"] = from_part(momentum, parameter)
            for parameter, second in zip(parameters, self.second[shape], strict=True):
                tensors[f"second.{self.names[parameter]}"] = from_part(second, parameter)
        for parameter, state in self.adamw.state.items():
            for kind in ADAM_STATE:
                tensors[f"{kind}.{self.names[parameter]}"] = state[kind]
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned. Raises KeyError where it belongs to other parameters."""
        for shape, parameters in self.shapes.items():
            for parameter, momentum in zip(parameters, self.momentum[shape], strict=True):
                momentum.copy_(local_part(take(tensors, f"momentum.{self.names[parameter]}", parameter)))
            for parameter, second in zip(parameters, self.second[shape], strict=True):
                second.copy_(local_part(take(tensors, f"second.{self.names[parameter]}", parameter)))
        for group in self.adamw.param_groups:
            for parameter in group["params"]:
                name = self.names[parameter]
                moments = {kind: take(tensors, f"{kind}.{name}", parameter) for kind in ("exp_avg", "exp_avg_sq")}
                step = tensors[f"step.{name}"].to(parameter.device)
                self.adamw.state[parameter] = {"step": step} | moments


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, approximately: most singular values lie between 0.9 and 1.1.

    matrices: (n, rows, columns), fp32 or bf16; the result has the same shape and type.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x = x / (norm * SAFETY + 1e-7).to(x.dtype)
    for a, b, c in SAFE:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def momentum(config: OptimizerConfig, step: int) -> float:
    """Muon's momentum at update `step` (0-based)."""
    first = min(FIRST_MOMENTUM, config.momentum)
    return first + (config.momentum - first) * min(1.0, (step + 1) / MOMENTUM_STEPS)


def rate(config: ScheduleConfig, step: int, steps: int) -> float:
    """Factor in (0, 1] on the peak learning rates for update `step` (0-based) out of `steps`.

    Linear warm-up, whose last step reaches the peak; then
    - `wsd` (warm-up, stable, decay; MiniCPM, arXiv:2404.06395): constant, and over the last `decay` share of the steps
      linear down to the floor;
    - `cosine` (arXiv:1608.03983): half a cosine from the peak to the floor.
    Update `steps - 1` reaches the floor. A run shorter than its warm-up stays below the peak.
    """
    warmup = min(WARMUP, steps // 10) if config.warmup is None else config.warmup
    if step < warmup:
        return (step + 1) / warmup
    if config.name == "cosine":
        done = _share(step, warmup, steps)
        return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * done))
    start = max(warmup, steps - round(config.decay * steps))
    return 1.0 - (1.0 - config.floor) * _share(step, start, steps) if step >= start else 1.0


def _share(step: int, start: int, steps: int) -> float:
    """Share of the updates from `start` to the end that are done after update `step`, in (0, 1]."""
    return (step - start + 1) / (steps - start)


class Average:
    """Exponential moving average of a model's weights: `decay` of the average is kept at each step."""

    def __init__(self, model: Transformer, decay: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.decay = decay
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights."""
        averages, weights = ([local_part(each) for each in of.values()] for of in (self.values, self.parameters))
        torch._foreach_lerp_(averages, weights, 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the average as its weights, for a `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name] = kept

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a saved average."""
        for name, value in self.values.items():
            value.copy_(take(tensors, name, value))


def training_weights(model: Tensors, optimizer: Tensors) -> Tensors:
    """The weights that training resumes from: with the optimizer's state where the model's file is an average."""
    return optimizer.under(PREFIX) or model
