"""Causal attention within documents: the one place that knows which kernel computes it.

Everywhere: `scaled_dot_product_attention` (SDPA), causal where there are no documents, with a bias otherwise.
The bias is made once per forward pass and shared by the layers: (batch, 1, tokens, tokens) in the compute type.
Variable-length kernels (CUDA only) would replace `attend` alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Grouped-query attention: (batch, heads, queries, head_dim) over (batch, kv_heads, keys, head_dim).

    `bias` as above; None means plain causal attention over equally long queries and keys.
    """
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None, enable_gqa=grouped)


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, float("-inf"))[:, None]
