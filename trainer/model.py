"""A decoder-only Transformer: exactly Llama, or with `qk_norm` exactly Qwen3, down to the parameter names.

RMSNorm before attention and feed-forward, rotary positions (RoPE, the rotate-half form of Hugging Face),
grouped-query attention (GQA), SwiGLU, no biases, tied or untied head. Exporting is renaming: in Hugging Face's layout
every parameter but the head's is called `model.<its name here>`.

Master weights are fp32; activations and matrix products run in `compute_dtype`, into which weights are cast at each
use, or once for all uses of a step (`Transformer.cast_once`). Nothing here draws from a global random generator:
initial weights follow from the seed alone, and a forward pass is a pure function. With `zero_init` output projections
start at zero, so each block begins as the identity (Fixup, arXiv:1901.09321). Parameters per layer: width * head_dim *
(2 * heads + 2 * kv_heads) + 3 * width * ffn (+ norms).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from trainer.attention import Documents, Mask, attend, past_bias, within
from trainer.config import ModelConfig, RopeScaling
from trainer.loss import IGNORE, linear_cross_entropy
from trainer.tensors import take

Rotation = tuple[Tensor, Tensor]  # cos, sin: (batch or 1, 1, tokens, head_dim)


class Linear(nn.Linear):
    """Matrix product without bias, in the type of its input; the weight stays fp32."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.copy: Tensor | None = None  # see `Transformer.cast_once`

    def reset_parameters(self) -> None:
        """Keep the weight: `Transformer.initialize` sets it from a seed."""

    def forward(self, input: Tensor) -> Tensor:
        return together(input, self)[0]


def together(input: Tensor, *layers: Linear) -> tuple[Tensor, ...]:
    """Apply several `Linear` to one input in one matrix product over their joined weights."""
    weights = [layer.weight for layer in layers]
    if layers[0].copy is not None:
        product: Tensor = _Product.apply(input, layers[0].copy, *weights)
    else:
        product = F.linear(input, _joined(weights, input.dtype))
    return torch.split(product, [len(weight) for weight in weights], dim=-1) if len(weights) > 1 else (product,)


def _joined(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    cast = [weight.to(dtype) for weight in weights]
    return torch.cat(cast) if len(cast) > 1 else cast[0]


class _Product(torch.autograd.Function):
    """`F.linear` with a copy of joined weights, whose gradients go to the weights."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, copy: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(input, copy)
        ctx.weights = [(len(weight), weight.dtype) for weight in weights]
        return F.linear(input, copy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, copy = ctx.saved_tensors
        (upstream,) = grads
        joined = upstream.flatten(0, -2).t() @ input.flatten(0, -2)
        parts = torch.split(joined, [rows for rows, _ in ctx.weights])
        return upstream @ copy, None, *(part.to(kind) for part, (_, kind) in zip(parts, ctx.weights, strict=True))


class Embedding(nn.Embedding):
    """Token vectors, fp32."""

    def reset_parameters(self) -> None:
        """Keep the weight, as in `Linear`."""


class RMSNorm(nn.Module):
    """Root-mean-square normalization over the last axis (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.weight.shape, self.weight.to(input.dtype), self.eps)


@dataclass
class Cache:
    """Keys and values of past tokens, a pair for each layer: (batch, kv_heads, slots, head_dim)."""

    layers: list[tuple[Tensor, Tensor]]

    @classmethod
    def empty(cls, model: Transformer, batch: int, slots: int) -> Cache:
        """A cache for `batch` sequences of up to `slots` tokens."""
        shape = (batch, model.config.kv_heads, slots, model.config.head_dim)
        like = model.cos.new_zeros((), dtype=model.compute_dtype)
        return cls([(like.new_zeros(shape), like.new_zeros(shape)) for _ in model.layers])


@dataclass(frozen=True)
class Past:
    """One layer's cache, and the positions (batch, tokens) of the current tokens."""

    keys: Tensor
    values: Tensor
    positions: Tensor

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the current tokens' (batch, kv_heads, tokens, head_dim) and return all keys and values."""
        rows = torch.arange(len(self.positions), device=self.positions.device)[:, None]
        self.keys[rows, :, self.positions] = key.transpose(1, 2)
        self.values[rows, :, self.positions] = value.transpose(1, 2)
        return self.keys, self.values


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and optional normalized queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = Linear(config.width, config.heads * config.head_dim)
        self.k_proj = Linear(config.width, config.kv_heads * config.head_dim)
        self.v_proj = Linear(config.width, config.kv_heads * config.head_dim)
        self.o_proj = Linear(config.heads * config.head_dim, config.width)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.qk_norm = config.qk_norm

    def forward(self, input: Tensor, rotation: Rotation, mask: Mask, past: Past | None = None) -> Tensor:
        batch, tokens, _ = input.shape
        projected = together(input, self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (each.view(batch, tokens, -1, self.head_dim) for each in projected)
        if self.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query.transpose(1, 2), rotation), rotate(key.transpose(1, 2), rotation)
        value = value.transpose(1, 2)
        if past is not None:
            key, value = past.extend(key, value)
        mixed = attend(query, key, value, mask)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return output


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.ffn)
        self.up_proj = Linear(config.width, config.ffn)
        self.down_proj = Linear(config.ffn, config.width)

    def forward(self, input: Tensor) -> Tensor:
        gate, up = together(input, self.gate_proj, self.up_proj)
        output: Tensor = self.down_proj(F.silu(gate) * up)
        return output


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalized input and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, input: Tensor, rotation: Rotation, mask: Mask, past: Past | None = None) -> Tensor:
        middle = input + self.self_attn(self.input_layernorm(input), rotation, mask, past)
        output: Tensor = middle + self.mlp(self.post_attention_layernorm(middle))
        return output


class Transformer(nn.Module):
    """The model. Weights follow from `seed`; `compute_dtype` is the type of activations and matrix products."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig, *, seed: int = 0, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.recompute = False  # whether the backward pass recomputes the activations of blocks
        self.compiled = False  # whether the loss is compiled; `trainer.machine.compile_model` does so with the blocks
        self.attention = "sdpa"  # the kernel, as `trainer.attention.choose` names it
        self.embed_tokens = Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = Linear(config.width, config.vocab_size)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight
        cos, sin = rotary_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.initialize(seed)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Set norms to 1, with `zero_init` output projections and head to 0, the rest to normal numbers, of deviation
        width^-0.5 where the shape names no other."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif deviation := self._deviation(name):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
            else:
                parameter.zero_()

    def _deviation(self, name: str) -> float:
        """Initial deviation of a matrix."""
        shape, usual = self.config, self.config.width**-0.5
        if name == "embed_tokens.weight":
            return shape.embedding_deviation or usual
        if name == "lm_head.weight" and shape.head_deviation is not None:
            return shape.head_deviation
        if shape.zero_init and name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            return 0.0
        return usual if name == "lm_head.weight" else shape.matrices_deviation or usual

    @contextmanager
    def cast_once(self) -> Iterator[None]:
        """Cast and join the weights of matrix products now instead of at each use, for a `with` block.

        They must not change within it. Costs a copy of them in the compute type, which one backward pass needs anyway.
        Without effect under FSDP2, which gathers them in the compute type.
        """
        groups: list[tuple[Linear, ...]] = [(self.lm_head,)]
        for module in self.modules():
            if isinstance(module, Attention):
                groups += [(module.q_proj, module.k_proj, module.v_proj), (module.o_proj,)]
            elif isinstance(module, FeedForward):
                groups += [(module.gate_proj, module.up_proj), (module.down_proj,)]
        if any(isinstance(parameter, DTensor) for parameter in self.parameters()):
            groups = []
        for layers in groups:
            layers[0].copy = _joined([layer.weight.detach() for layer in layers], self.compute_dtype)
        try:
            yield
        finally:
            for layers in groups:
                layers[0].copy = None

    @torch.no_grad()
    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy weights from `tensors`. Raises KeyError where the names are not those of `named_parameters`."""
        parameters = dict(self.named_parameters())
        if differing := parameters.keys() ^ tensors.keys():
            raise KeyError(f"weights on one side only: {', '.join(sorted(differing))}")
        for name, parameter in parameters.items():
            parameter.copy_(take(tensors, name, parameter))

    def forward(self, tokens: Tensor, targets: Tensor | None = None, documents: Documents = None) -> Tensor:
        """Logits (batch, tokens, vocabulary) fp32, or with `targets` the mean loss in nats, a scalar.

        tokens, targets: (batch, tokens) int64; target IGNORE (-100) where there is nothing to predict;
        documents: (batch, tokens) integers, equal within a document, or their bounds; None for plain causal attention.
        """
        if targets is None:
            return self.logits(self.hidden(tokens, documents))
        scale = 1.0 / max(1, int((targets != IGNORE).sum()))
        return self.losses(tokens, targets, documents, scale=scale)[0]

    def losses(
        self,
        tokens: Tensor,
        targets: Tensor,
        documents: Documents = None,
        *,
        scale: float | Tensor,
        z_loss: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The objective, which is `scale` times the sum of losses and z-losses, and each token's loss in nats.

        Arguments as in `forward`; the losses are (batch, tokens) fp32 without gradient, 0 where ignored.
        """
        hidden = self.hidden(tokens, documents).flatten(0, 1)
        objective, losses = linear_cross_entropy(
            hidden,
            self.lm_head.weight,
            targets.flatten(),
            scale=scale,
            z_loss=z_loss,
            compiled=self.compiled,
            copy=self.lm_head.copy,
        )
        return objective, losses.view_as(targets)

    def hidden(self, tokens: Tensor, documents: Documents = None) -> Tensor:
        """Normalized last hidden states, (batch, tokens, width) in the compute type."""
        mask = within(documents, tokens.shape[1], tokens.device, self.compute_dtype, self.attention)
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        return self._blocks(tokens, positions, mask, None)

    def extend(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Hidden states of `tokens` (batch, tokens) at `positions` (same shape); adds them to the cache.

        The positions of a row must be filled in order; attention ignores slots after its last position.
        """
        bias = past_bias(positions, cache.layers[0][0].shape[2], self.compute_dtype)
        return self._blocks(tokens, positions, bias, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) fp32 of hidden states."""
        logits: Tensor = self.lm_head(hidden)
        return logits.float()

    def _blocks(self, tokens: Tensor, positions: Tensor, mask: Mask, cache: Cache | None) -> Tensor:
        hidden = self.embed_tokens(tokens).to(self.compute_dtype)
        cos, sin = (table[positions].to(self.compute_dtype)[:, None] for table in (self.cos, self.sin))
        for index, block in enumerate(self.layers):
            past = None if cache is None else Past(*cache.layers[index], positions)
            if self.recompute and torch.is_grad_enabled():
                hidden = checkpoint(block, hidden, (cos, sin), mask, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden = block(hidden, (cos, sin), mask, past)
        output: Tensor = self.norm(hidden)
        return output


def rotary_table(config: ModelConfig) -> Rotation:
    """Cosine and sine of each position's angles, (context, head_dim) fp32, both halves equal (rotate-half)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_base**exponents  # the same bits as in `transformers`
    if config.rope_scaling is not None:
        frequencies = stretched(frequencies, config.rope_scaling)
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def stretched(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Frequencies for a longer context (linear: arXiv:2306.15595; llama3: the code of Llama 3.1)."""
    if scaling.type == "linear":
        return frequencies / scaling.factor
    turns = scaling.original_context * frequencies / (2 * math.pi)  # full turns within the original context
    share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies / scaling.factor, frequencies, share.clamp(0, 1))


def rotate(input: Tensor, rotation: Rotation) -> Tensor:
    """Rotate (batch, heads, tokens, head_dim) by its positions (RoPE, arXiv:2104.09864)."""
    cos, sin = rotation
    first, second = input.chunk(2, dim=-1)
    return input * cos + torch.cat((-second, first), dim=-1) * sin
