"""Causal attention within documents: the one place that knows which kernel computes it.

`Mask` says what a query may see: None is plain causal attention; a bias (batch, 1, queries, keys), added to the scores,
serves every device; `Bounds` lists where documents begin, for the variable-length kernels that only CUDA has. A mask
is made once per forward pass and shared by the layers.

    CPU, compiled, bf16   batched products around a fused softmax, by blocks of queries: at context 256 twice as fast,
                          forward and backward, as the CPU's flash kernel, for the probabilities' memory; up to
                          MATERIALIZED tokens
    CUDA with documents   `varlen_attn` (flash or cuDNN), whose cost is that of the documents alone
    otherwise             `scaled_dot_product_attention` (SDPA): flash where there is no bias
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MATERIALIZED = 1024  # tokens up to which a CPU holds all probabilities of a layer
BLOCK = 128  # queries at once there: of 256 tokens' pairs a quarter is never computed


class Bounds(NamedTuple):
    """Where the documents of a flattened batch begin: int32 offsets ending in its length, and the longest possible."""

    offsets: Tensor
    longest: int


Mask = Tensor | Bounds | None


def within(documents: Tensor | None, tokens: int, device: torch.device, dtype: torch.dtype) -> Mask:
    """The mask of causal attention over `tokens` tokens, within documents where they are given.

    documents: (batch, tokens) integers, equal within a document, or None. They may lie on the CPU while the model is
    on CUDA: the bounds are then made without waiting for the GPU.
    """
    if documents is None:
        if device.type == "cpu" and dtype == torch.bfloat16:  # read from a table, faster than worked out in a kernel
            return _causal_bias(tokens, dtype)
        return None
    if device.type == "cuda" and dtype != torch.float32:
        return document_bounds(documents, device)
    return document_bias(documents.to(device), dtype)


def document_bounds(documents: Tensor, device: torch.device) -> Bounds:
    """Offsets of the documents in the flattened batch, empty ones appended up to a power of two of them."""
    batch, tokens = documents.shape
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = first.flatten().nonzero()[:, 0]
    room = 1 << len(starts).bit_length()  # few lengths, so that few graphs are compiled
    offsets = torch.full((room + 1,), batch * tokens, dtype=torch.int32, device=documents.device)
    offsets[: len(starts)] = starts
    return Bounds(offsets.to(device, non_blocking=True), tokens)


@functools.lru_cache(maxsize=8)
def _causal_bias(tokens: int, dtype: torch.dtype) -> Tensor:
    return document_bias(torch.zeros(1, tokens, dtype=torch.int32), dtype)


def document_bias(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask of causal attention within documents.

    documents: (batch, tokens) integers, equal within a document. Returns (batch, 1, tokens, tokens): 0 where
    query i may see key j <= i of its own document, -inf elsewhere. Every query sees itself.
    """
    same = documents[:, :, None] == documents[:, None, :]
    return _bias(same.tril(), dtype)


def past_bias(positions: Tensor, keys: int, dtype: torch.dtype) -> Tensor:
    """Additive mask of queries at `positions` (batch, queries) over a cache of `keys` slots, filled in order.

    Returns (batch, 1, queries, keys): 0 where the slot is at or before the query's position.
    """
    slots = torch.arange(keys, device=positions.device)
    return _bias(slots <= positions[:, :, None], dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """Grouped-query attention: (batch, heads, queries, head_dim) over (batch, kv_heads, keys, head_dim)."""
    if isinstance(mask, Bounds):
        return _by_document(query, key, value, mask)
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.compiler.is_compiling()
    if on_cpu and mask is not None and query.shape[2] == key.shape[2] <= MATERIALIZED:
        return materialized(query, key, value, mask)
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)


def materialized(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Causal attention that writes probabilities out, for a compiler that fuses what lies between the products.

    Arguments as in `attend`, with as many keys as queries; the bias must hide the future. The softmax is fp32; scores
    and probabilities are stored in the type of the inputs.
    """
    return _Materialized.apply(query, key, value, bias)  # type: ignore[no-any-return]


class _Materialized(torch.autograd.Function):
    """Blocks of queries, each over the keys that it may see; backward as in FlashAttention (arXiv:2205.14135)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[3]
        outputs, probabilities = [], []
        for start, end in _blocks(query.shape[2]):
            grouped = _group(query[:, :, start:end], kv_heads)
            scores = _ungroup(grouped @ key[:, :, :end].mT, heads).float() * size**-0.5
            weights = torch.softmax(scores + bias[:, :, start:end, :end], dim=-1).to(value.dtype)
            probabilities.append(weights)
            outputs.append(_ungroup(_group(weights, kv_heads) @ value[:, :, :end], heads))
        output = torch.cat(outputs, dim=2)
        ctx.save_for_backward(query, key, value, output, *probabilities)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *probabilities = ctx.saved_tensors
        (upstream,) = grads
        heads, kv_heads, tokens, size = query.shape[1], key.shape[1], query.shape[2], query.shape[3]
        inner = (upstream.float() * output.float()).sum(-1, keepdim=True)
        grad_query = []
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for (start, end), weights in zip(_blocks(tokens), probabilities, strict=True):
            part = _group(upstream[:, :, start:end], kv_heads)
            slope = _ungroup(part @ value[:, :, :end].mT, heads).float() - inner[:, :, start:end]
            slope = _group((weights.float() * slope * size**-0.5).to(query.dtype), kv_heads)
            grad_query.append(_ungroup(slope @ key[:, :, :end], heads))
            unseen = (0, 0, 0, tokens - end)
            grad_key = grad_key + F.pad(slope.mT @ _group(query[:, :, start:end], kv_heads), unseen)
            grad_value = grad_value + F.pad(_group(weights, kv_heads).mT @ part, unseen)
        return torch.cat(grad_query, dim=2), grad_key, grad_value, None


def _blocks(tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, tokens)) for start in range(0, tokens, BLOCK)]


def _group(tensor: Tensor, kv_heads: int) -> Tensor:
    """(batch, heads, rows, columns) as (batch, kv_heads, the rows of the heads that share them, columns)."""
    return tensor.reshape(tensor.shape[0], kv_heads, -1, tensor.shape[-1])


def _ungroup(tensor: Tensor, heads: int) -> Tensor:
    return tensor.view(tensor.shape[0], heads, -1, tensor.shape[-1])


def _by_document(query: Tensor, key: Tensor, value: Tensor, bounds: Bounds) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, values = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    options: dict[str, Any] = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    offsets, longest = bounds
    mixed: Any = varlen_attn(queries, keys, values, offsets, offsets, longest, longest, window_size=(-1, 0), **options)
    output: Tensor = mixed.view(query.shape[0], query.shape[2], *mixed.shape[1:]).transpose(1, 2)
    return output


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, float("-inf"))[:, None]
