"""Causal attention within documents: the masks, and the kernels that apply them.

A `Mask`, made once per forward pass and shared by the layers, says what a query may see: None is plain causal
attention; a bias (batch, 1, queries, keys) is added to the scores, on any device; `Blocks` is a bias for the kernel by
blocks; `Bounds` lists where documents begin, for the variable-length kernels that only CUDA has. Kernels:

    blocks   on a CPU, compiled: batched products around a fused softmax, by blocks of queries. Up to STORED tokens it
             stores the probabilities, half of (tokens, tokens) for each head; beyond, it computes them again
    varlen   on CUDA with documents: `varlen_attn` (flash or cuDNN), which costs only what the documents do
    sdpa     otherwise: `scaled_dot_product_attention`, flash where there is no bias

Which one a CPU takes is read from FASTEST, a table of what `benchmarks/attention_cpu.py` measured, and not measured at
the start: two starts of one recipe would choose differently on a busy machine and end in different bits. A checkpoint
holds the choice (`trainer.resume`).
"""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

# The longest context, in tokens, at which blocks are faster than SDPA on a CPU, by the compute type of the compiled
# model. In bf16 every context that was measured; in fp32 they are not on all CPUs.
FASTEST = {torch.bfloat16: 4096, torch.float32: 0}
STORED = 1024  # tokens up to which blocks keep all probabilities of a layer; beyond, that memory is too much
BLOCK = 128  # queries at once: at 256 tokens a quarter of the pairs is never computed
BLOCKS = 8
SHARES_HEADS = "enable_gqa" in inspect.signature(varlen_attn).parameters  # not in torch 2.11


class Bounds(NamedTuple):
    """Documents of a flattened batch: int32 offsets of their beginnings, then its length; and the longest possible."""

    offsets: Tensor
    longest: int


class Blocks(NamedTuple):
    """A bias, and that it is for the kernel by blocks."""

    bias: Tensor


Mask = Tensor | Bounds | Blocks | None
Documents = Tensor | Bounds | None


def choose(device: torch.device, dtype: torch.dtype, tokens: int) -> str:
    """The faster of `blocks` and `sdpa` for a compiled model of this context and compute type."""
    return "blocks" if device.type == "cpu" and tokens <= FASTEST[dtype] else "sdpa"


def within(documents: Documents, tokens: int, device: torch.device, dtype: torch.dtype, kernel: str = "sdpa") -> Mask:
    """The mask of causal attention over `tokens` tokens, within `documents` where given, for a kernel of `choose`.

    documents: (batch, tokens) integers, equal within a document, or bounds, which stay as they are. Integers on the CPU
    become bounds for a model on CUDA without waiting for the GPU.
    """
    if isinstance(documents, Bounds):
        return documents
    if kernel == "blocks":  # reading a table is faster than computing the mask
        return Blocks(_causal_bias(tokens, dtype) if documents is None else document_bias(documents.to(device), dtype))
    if documents is None:
        return None
    if device.type == "cuda" and dtype != torch.float32:
        bounds = document_bounds(documents)
        return bounds._replace(offsets=bounds.offsets.to(device, non_blocking=True))
    return document_bias(documents.to(device), dtype)


def document_bounds(documents: Tensor) -> Bounds:
    """Offsets of the documents in the flattened batch, filled up with empty ones to a power of two."""
    batch, tokens = documents.shape
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = first.flatten().nonzero()[:, 0]
    slots = 1 << len(starts).bit_length()  # few lengths, so that few graphs are compiled
    offsets = torch.full((slots + 1,), batch * tokens, dtype=torch.int32, device=documents.device)
    offsets[: len(starts)] = starts
    return Bounds(offsets, tokens)


@functools.lru_cache(maxsize=8)
def _causal_bias(tokens: int, dtype: torch.dtype) -> Tensor:
    return document_bias(torch.zeros(1, tokens, dtype=torch.int32), dtype)


def document_bias(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask of causal attention within documents.

    documents: (batch, tokens) integers, equal within a document. Returns (batch, 1, tokens, tokens): 0 where key
    j <= i is in the document of query i, -inf elsewhere.
    """
    same = documents[:, :, None] == documents[:, None, :]
    return _bias(same.tril(), dtype)


def past_bias(positions: Tensor, keys: int, dtype: torch.dtype) -> Tensor:
    """Additive mask of queries at `positions` (batch, queries) over a cache of `keys` slots, filled in order.

    Returns (batch, 1, queries, keys): 0 where the slot is at or before the query's position, -inf elsewhere.
    """
    slots = torch.arange(keys, device=positions.device)
    return _bias(slots <= positions[:, :, None], dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """Grouped-query attention: (batch, heads, queries, head_dim) over (batch, kv_heads, keys, head_dim)."""
    if isinstance(mask, Bounds):
        return _by_document(query, key, value, mask)
    if isinstance(mask, Blocks):
        return by_blocks(query, key, value, mask.bias, stored=query.shape[2] <= STORED)
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)


def by_blocks(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, stored: bool) -> Tensor:
    """Causal attention in batched products, for a compiler that fuses the steps between them.

    Arguments as in `attend`, with as many keys as queries; the bias must hide the future. stored: whether the
    probabilities are kept for the backward pass, or computed again. The softmax is fp32; scores and probabilities are
    in the type of the inputs between the products.
    """
    return _ByBlocks.apply(query, key, value, bias, stored)  # type: ignore[no-any-return]


class _ByBlocks(torch.autograd.Function):
    """Blocks of queries, each over the keys up to its end; backward as in FlashAttention (arXiv:2205.14135)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, stored: bool) -> Tensor:
        heads, kv_heads = query.shape[1], key.shape[1]
        outputs, kept = [], []  # kept: of each block the probabilities, or the logarithms of the rows' sums
        for start, end in _query_blocks(query.shape[2]):
            scores = _scores(query, key, bias, start, end)
            partition = None if stored else scores.logsumexp(-1, keepdim=True)
            weights = torch.softmax(scores, dim=-1) if partition is None else (scores - partition).exp()
            weights = weights.to(value.dtype)
            kept.append(weights if partition is None else partition)
            outputs.append(_ungroup(_group(weights, kv_heads) @ value[:, :, :end], heads))
        output = torch.cat(outputs, dim=2)
        ctx.stored = stored
        ctx.save_for_backward(query, key, value, bias, output, *kept)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, output, *kept = ctx.saved_tensors
        (upstream,) = grads
        heads, kv_heads, tokens, size = query.shape[1], key.shape[1], query.shape[2], query.shape[3]
        inner = (upstream.float() * output.float()).sum(-1, keepdim=True)
        grad_query: list[Tensor] = []
        grad_key: list[Tensor] = []  # of each block of keys, summed over the blocks of queries that see it
        grad_value: list[Tensor] = []
        for (start, end), saved in zip(_query_blocks(tokens), kept, strict=True):
            weights = saved if ctx.stored else (_scores(query, key, bias, start, end) - saved).exp()
            part = _group(upstream[:, :, start:end], kv_heads)
            slope = _ungroup(part @ value[:, :, :end].mT, heads).float() - inner[:, :, start:end]
            slope = _group((weights.float() * slope * size**-0.5).to(query.dtype), kv_heads)
            grad_query.append(_ungroup(slope @ key[:, :, :end], heads))
            _add_blocks(grad_key, slope.mT @ _group(query[:, :, start:end], kv_heads), tokens)
            _add_blocks(grad_value, _group(weights.to(query.dtype), kv_heads).mT @ part, tokens)
        return torch.cat(grad_query, dim=2), torch.cat(grad_key, dim=2), torch.cat(grad_value, dim=2), None, None


def _scores(query: Tensor, key: Tensor, bias: Tensor, start: int, end: int) -> Tensor:
    """Scores of a block of queries over the keys up to its end, fp32, hidden ones -inf."""
    grouped = _group(query[:, :, start:end], key.shape[1])
    scores: Tensor = _ungroup(grouped @ key[:, :, :end].mT, query.shape[1]).float() * query.shape[3] ** -0.5
    return scores + bias[:, :, start:end, :end]


def _add_blocks(sums: list[Tensor], gradient: Tensor, tokens: int) -> None:
    """Add a gradient (batch, kv_heads, keys, head_dim) to those of its blocks of keys, the last of which is new.

    Not padded and added: what torch 2.15 compiles for two or three padded blocks gave NaN on a CPU with AMX.
    """
    *parts, new = torch.split(gradient, _block(tokens), dim=2)
    sums[:] = [total + part for total, part in zip(sums, parts, strict=True)] + [new]


def _block(tokens: int) -> int:
    """Queries in a block: BLOCK, of long contexts more, so that there are at most BLOCKS blocks to compile."""
    return BLOCK * math.ceil(tokens / (BLOCK * BLOCKS))


def _query_blocks(tokens: int) -> list[tuple[int, int]]:
    size = _block(tokens)
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _group(tensor: Tensor, kv_heads: int) -> Tensor:
    """(batch, heads, rows, columns) as (batch, kv_heads, heads / kv_heads * rows, columns)."""
    return tensor.reshape(tensor.shape[0], kv_heads, -1, tensor.shape[-1])


def _ungroup(tensor: Tensor, heads: int) -> Tensor:
    return tensor.view(tensor.shape[0], heads, -1, tensor.shape[-1])


def _by_document(query: Tensor, key: Tensor, value: Tensor, bounds: Bounds) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    options: dict[str, Any] = {"enable_gqa": True} if groups > 1 and SHARES_HEADS else {}
    if groups > 1 and not SHARES_HEADS:
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    queries, keys, values = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    offsets, longest = bounds
    mixed: Any = varlen_attn(queries, keys, values, offsets, offsets, longest, longest, window_size=(-1, 0), **options)
    output: Tensor = mixed.view(query.shape[0], query.shape[2], *mixed.shape[1:]).transpose(1, 2)
    return output


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, float("-inf"))[:, None]
