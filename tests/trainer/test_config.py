"""Counters of parameters and FLOPs against what autograd and the model itself count; preset sizes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.trainer.conftest import small_model
from trainer.config import PRESETS, ModelConfig, flops_per_token, parameter_count
from trainer.model import Transformer


@pytest.mark.parametrize("fields", [{}, {"tied": True}, {"qk_norm": False}, {"kv_heads": 4, "layers": 3, "ffn": 80}])
def test_parameters_are_those_of_the_model(fields: dict[str, object]) -> None:
    shape = small_model(**fields)
    assert parameter_count(shape) == sum(parameter.numel() for parameter in Transformer(shape).parameters())


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_flops_are_those_that_torch_counts(kv_heads: int) -> None:
    shape = small_model(kv_heads=kv_heads)
    model = Transformer(shape, seed=1)
    tokens = torch.randint(0, 61, (3, 16), generator=torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens, tokens).backward()
    assert counter.get_total_flops() == flops_per_token(shape) * tokens.numel()


# At the vocabulary of the model that each follows, the head tied as there.
SIZES = {
    "124m": (50_257, 124e6),
    "350m": (50_257, 354e6),
    "1b": (128_256, 1.24e9),
    "3b": (128_256, 3.21e9),
    "8b": (128_256, 8.03e9),
}


@pytest.mark.parametrize("name", SIZES)
def test_presets_have_the_sizes_that_they_are_named_after(name: str) -> None:
    vocabulary, size = SIZES[name]
    shape = ModelConfig(**PRESETS[name].shape.model_dump() | {"vocab_size": vocabulary, "tied": name != "8b"})
    assert parameter_count(shape) == pytest.approx(size, rel=0.02)


def test_the_public_names_of_the_package_are_importable() -> None:
    import trainer

    assert all(getattr(trainer, name).__module__.startswith("trainer.") for name in trainer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trainer.nothing
