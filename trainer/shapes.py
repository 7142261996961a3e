"""Model shapes and learning rates by size: what `preset:` in a recipe fills in.

`124m` has GPT-2's sizes with Llama's blocks, `1b` and `3b` are Llama 3.2's shapes, `8b` is Llama 3's. The names
count parameters at the vocabulary of the model they follow; with another vocabulary the embedding differs.
No learning rate was tuned here yet: they lie between published runs (SmolLM2 135M: 3e-3; OLMo 2 7B and Llama 3
8B: 3e-4).
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import TrainerError
from trainer.config import ModelConfig, TrainConfig


@dataclass(frozen=True)
class Preset:
    """A shape (vocabulary and context are filled in later) and the peak learning rates that suit it."""

    shape: ModelConfig
    lr: float
    muon_lr: float


PRESETS: dict[str, Preset] = {
    "tiny": Preset(ModelConfig(layers=4, width=256, heads=4, kv_heads=2, head_dim=64, ffn=768), lr=3e-3, muon_lr=3e-3),
    "124m": Preset(
        ModelConfig(layers=12, width=768, heads=12, kv_heads=12, head_dim=64, ffn=2048, tied=True),
        lr=2e-3,
        muon_lr=2e-3,
    ),
    "350m": Preset(
        ModelConfig(layers=24, width=1024, heads=16, kv_heads=16, head_dim=64, ffn=2816, tied=True),
        lr=1.5e-3,
        muon_lr=1.5e-3,
    ),
    "1b": Preset(
        ModelConfig(layers=16, width=2048, heads=32, kv_heads=8, head_dim=64, ffn=8192, rope_base=500_000.0, tied=True),
        lr=8e-4,
        muon_lr=8e-4,
    ),
    "3b": Preset(
        ModelConfig(
            layers=28, width=3072, heads=24, kv_heads=8, head_dim=128, ffn=8192, rope_base=500_000.0, tied=True
        ),
        lr=5e-4,
        muon_lr=5e-4,
    ),
    "8b": Preset(
        ModelConfig(layers=32, width=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, rope_base=500_000.0),
        lr=3e-4,
        muon_lr=3e-4,
    ),
}


def resolve_model(config: TrainConfig, vocab_size: int, context: int) -> ModelConfig:
    """The model's shape: the preset's, with `model:` fields on top, for this vocabulary and context (tokens).

    Raises TrainerError where `model.vocab_size` is smaller than the shards' vocabulary or the fields do not fit.
    """
    given = config.model.model_dump(exclude_none=True)
    if given.get("vocab_size", vocab_size) < vocab_size:
        raise TrainerError(
            f"model.vocab_size is {given['vocab_size']}, but the shards use {vocab_size} tokens; "
            f"remove the field or set it to at least {vocab_size}"
        )
    shape = PRESETS[config.preset].shape.model_dump() | {"vocab_size": vocab_size, "context": context} | given
    try:
        return ModelConfig(**shape)
    except ValueError as error:
        raise TrainerError(f"model: the fields given over preset `{config.preset}` do not fit: {error}") from None


def learning_rates(config: TrainConfig) -> tuple[float, float]:
    """Peak learning rates (AdamW, Muon): the recipe's where given, the preset's otherwise."""
    preset = PRESETS[config.preset]
    return config.optimizer.lr or preset.lr, config.optimizer.muon_lr or preset.muon_lr


def parameter_count(shape: ModelConfig) -> int:
    """Trainable parameters, tied ones once."""
    return matrix_parameters(shape) + shape.vocab_size * shape.width * (not shape.tied) + _norm_parameters(shape)


def matrix_parameters(shape: ModelConfig) -> int:
    """Parameters that take part in a matrix product for every token: blocks and head, not the input embedding."""
    attention = 2 * shape.width * shape.head_dim * (shape.heads + shape.kv_heads)
    return shape.layers * (attention + 3 * shape.width * shape.ffn) + shape.vocab_size * shape.width


def flops_per_token(shape: ModelConfig, context: int | None = None) -> int:
    """Floating-point operations of forward and backward pass for one token: 6 a matrix parameter, and attention.

    Attention counts every pair of positions, seen or not, as is usual (PaLM, arXiv:2204.02311, appendix B), so that
    utilisation compares with what others publish.
    """
    attended = shape.layers * shape.heads * shape.head_dim * (context or shape.context)
    return 6 * matrix_parameters(shape) + 12 * attended


def _norm_parameters(shape: ModelConfig) -> int:
    return shape.layers * (2 * shape.width + 2 * shape.head_dim * shape.qk_norm) + shape.width
