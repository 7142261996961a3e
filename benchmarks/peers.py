"""The models that our training is compared with, in the shape of one of ours: a GPT-2 as one writes it, and litgpt's.

Both have our layers, width, heads and vocabulary, and a head that is tied where ours is. GPT-2's feed-forward is four
times as wide as the model, which is our parameters where our own is 8/3 (three matrices instead of two); litgpt's model
has Llama's blocks in our very shape.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ModelConfig


class PlainBlock(nn.Module):
    """GPT-2's block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            part.view(batch, tokens, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(width, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    """GPT-2: learned positions, LayerNorm, GELU, SDPA, all logits at once."""

    def __init__(self, shape: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.Sequential(*(PlainBlock(shape.width, shape.heads) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab_size, bias=False)
        if shape.tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, tokens, vocabulary)."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits

    @torch.no_grad()
    def initialize(self) -> None:
        """GPT-2's initial weights: deviation 0.02, of what is added to the residual stream 0.02 / sqrt(2 layers)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 2:
                into_stream = name.endswith(("out.weight", "down.weight"))
                parameter.normal_(0.0, 0.02 / (2 * len(self.blocks)) ** 0.5 if into_stream else 0.02)


def litgpt_model(fabric: Any, shape: ModelConfig, seed: int) -> nn.Module:
    """litgpt's GPT with Llama's blocks and its own initial weights, on the device of `fabric` (lightning.Fabric)."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.pretrain import initialize_weights

    config = Config(
        block_size=shape.context,
        n_layer=shape.layers,
        n_embd=shape.width,
        n_head=shape.heads,
        n_query_groups=shape.kv_heads,
        head_size=shape.head_dim,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=shape.ffn,
    )
    torch.manual_seed(seed)
    with fabric.init_module():
        model = GPT(config)
    initialize_weights(fabric, model, config.n_layer, config.n_embd)
    if shape.tied:
        model.transformer.wte.weight = model.lm_head.weight
    return model
