"""Counters of parameters and FLOPs against what autograd and the model itself count; preset sizes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.trainer.conftest import small_model
from trainer.config import PRESETS, ModelConfig, TrainConfig, flops_per_token, learning_rates, parameter_count
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


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({"global_batch_tokens": 2048}, 1.0),
        ({"global_batch_tokens": 512}, 0.5),
        ({"global_batch_tokens": 2048, "model": {"width": 64, "heads": 1, "kv_heads": 1}}, 2.0),
        ({"global_batch_tokens": 1024, "model": {"width": 128}}, 1.0),
        ({"global_batch_tokens": 10**6}, 2**0.5),  # as 4,096
        ({"global_batch_tokens": 1}, 8**-0.5),  # as 256
        ({"preset": "124m", "global_batch_tokens": 65_536}, 1.0),
        ({"preset": "124m", "model": {"width": 1536}}, 2**-0.5),
    ],
)
def test_rates_of_a_preset_follow_width_and_batch(fields: dict[str, object], factor: float) -> None:
    config = TrainConfig.model_validate(fields)
    usual = PRESETS[config.preset].rates
    assert learning_rates(config) == pytest.approx([factor * rate for rate in usual])


def test_rates_that_the_recipe_gives_stay_as_they_are() -> None:
    given = {"lr": 1e-3, "muon_lr": 2e-3, "embedding": {"lr": 0.5}}
    config = TrainConfig.model_validate({"global_batch_tokens": 512, "optimizer": given})
    assert learning_rates(config) == (0.5, 1e-3, 1e-3, 2e-3)
    alone = TrainConfig.model_validate({"global_batch_tokens": 512, "optimizer": {"name": "adamw"}})
    assert learning_rates(alone) == (PRESETS["tiny"].adamw,) * 4


def test_the_public_names_of_the_package_are_importable() -> None:
    import trainer

    assert all(getattr(trainer, name).__module__.startswith("trainer.") for name in trainer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trainer.nothing
