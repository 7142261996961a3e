"""Muon and AdamW follow their definitions, batched or not; their state survives a round trip; rates by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from tests.trainer.conftest import small_model
from trainer.config import OptimizerConfig, Rates, ScheduleConfig
from trainer.model import Transformer
from trainer.optimizer import SECOND_MOMENT, UPDATE_RMS, Optimizer, momentum, orthogonalize, rate


def even(lr: float, matrices: float) -> Rates:
    """One rate for every group but the matrices."""
    return Rates(lr, lr, lr, matrices)


def model_with_gradients(seed: int = 1) -> Transformer:
    model = Transformer(small_model(), seed=1)
    set_gradients(model, seed)
    return model


def set_gradients(model: Transformer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def values(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16), (1, 32, 32)])
def test_orthogonalize_brings_singular_values_near_one_and_keeps_directions(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    result = orthogonalize(matrices)
    singular = torch.linalg.svdvals(result)
    assert singular.min() > 0.5
    assert singular.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert ((left @ right) * result).sum() > 0.9 * result.norm() * (left @ right).norm()
    together = torch.stack([orthogonalize(matrix[None])[0] for matrix in matrices])
    torch.testing.assert_close(result, together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(128, 128), (128, 336), (32, 128)])
@pytest.mark.parametrize("rank", [20, 128])
def test_orthogonalize_never_goes_far_above_one_in_bf16(shape: tuple[int, int], rank: int) -> None:
    """Of full rank, and with a few directions far above the noise, as momenta are."""
    generator = torch.Generator().manual_seed(0)
    left, right, noise = (
        torch.randn(16, *size, generator=generator) for size in ((shape[0], rank), (rank, shape[1]), shape)
    )
    matrices = left @ torch.diag(torch.logspace(0, -2, rank)) @ right + 1e-3 * noise
    result = orthogonalize(matrices.bfloat16())
    assert torch.linalg.svdvals(result.float()).max() < 1.2


def test_muon_is_its_definition_over_steps() -> None:
    ours, theirs = model_with_gradients(), model_with_gradients()
    optimizer = Optimizer(ours, OptimizerConfig(weight_decay=0.1), even(1e-3, 2e-2))
    matrices = {name: p for name, p in theirs.layers.named_parameters() if p.ndim == 2}
    momentum = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}
    second = {name: torch.zeros(len(matrix), 1) for name, matrix in matrices.items()}
    for seed in (2, 3, 4):
        for model in (ours, theirs):
            set_gradients(model, seed)
        optimizer.step()
        for name, matrix in matrices.items():
            momentum[name] = 0.95 * momentum[name] + 0.05 * matrix.grad
            update = orthogonalize((0.05 * matrix.grad + 0.95 * momentum[name])[None])[0]
            second[name] = SECOND_MOMENT * second[name] + (1 - SECOND_MOMENT) * update.square().mean(1, keepdim=True)
            rows = update / second[name].sqrt()
            rows *= update.norm() / rows.norm()
            matrix.data = matrix * (1 - 2e-2 * 0.1) - 2e-2 * UPDATE_RMS * max(matrix.shape) ** 0.5 * rows
    for name, matrix in matrices.items():
        torch.testing.assert_close(ours.get_parameter(f"layers.{name}").data, matrix.data, atol=2e-5, rtol=2e-4)


def test_updates_have_the_declared_size() -> None:
    model = model_with_gradients()
    before = values(model)
    optimizer = Optimizer(model, OptimizerConfig(weight_decay=0), even(1e-3, 1e-2))
    optimizer.rate = 0.5
    optimizer.step()
    assert optimizer.learning_rate == 1e-2 * 0.5
    for name, parameter in model.named_parameters():
        rms = (parameter - before[name]).square().mean().sqrt().item()
        if name.startswith("layers.") and parameter.ndim == 2:
            # rank min(r, c) of singular values about 1, scaled to RMS as if square
            assert rms == pytest.approx(UPDATE_RMS * 1e-2 * 0.5, rel=0.25), name
        else:
            assert rms == pytest.approx(1e-3 * 0.5, rel=0.01), name  # Adam's first step is the sign
        assert parameter.grad is None


def test_decay_spares_norms_and_the_input_embedding() -> None:
    model = Transformer(small_model(), seed=1)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    Optimizer(model, OptimizerConfig(weight_decay=0.5), even(0.1, 0.2)).step()
    for name, parameter in model.named_parameters():
        expected = 1.0
        if name.startswith("layers.") and parameter.ndim == 2:
            expected = 1 - 0.2 * 0.5
        elif name == "lm_head.weight":
            expected = 1 - 0.1 * 0.5
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, expected), msg=name)


def test_adamw_alone_is_torch_adamw() -> None:
    ours, theirs = model_with_gradients(), model_with_gradients()
    optimizer = Optimizer(ours, OptimizerConfig(name="adamw", weight_decay=0), even(1e-2, 1e-2))
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0)
    for seed in (2, 3):
        set_gradients(ours, seed)
        set_gradients(theirs, seed)
        optimizer.step()
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_state_continues_bit_for_bit(name: str) -> None:
    model = model_with_gradients()
    optimizer = Optimizer(model, OptimizerConfig(name=name), even(1e-2, 1e-2))
    optimizer.step()
    saved = {key: tensor.clone() for key, tensor in optimizer.state().items()}
    weights = values(model)
    set_gradients(model, 9)
    optimizer.rate = 0.7
    optimizer.step()

    other = Transformer(small_model(), seed=99)
    other.load_weights(weights)
    resumed = Optimizer(other, OptimizerConfig(name=name), even(1e-2, 1e-2))
    resumed.load(saved)
    set_gradients(other, 9)
    resumed.rate = 0.7
    resumed.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert optimizer.state().keys() == resumed.state().keys()
    assert all(torch.equal(tensor, resumed.state()[key]) for key, tensor in optimizer.state().items())


def test_tied_weights_are_updated_once() -> None:
    model = Transformer(small_model(tied=True), seed=1)
    set_gradients(model, 1)
    before = values(model)["embed_tokens.weight"]
    Optimizer(model, OptimizerConfig(weight_decay=0), even(1e-3, 1e-3)).step()
    change = (model.embed_tokens.weight - before).abs()
    torch.testing.assert_close(change, torch.full_like(change, 1e-3), rtol=1e-3, atol=1e-6)
    assert model.lm_head.weight is model.embed_tokens.weight


def test_wsd_warms_up_holds_and_decays_to_the_floor() -> None:
    config = ScheduleConfig(name="wsd", warmup=10, decay=0.2, floor=0.1)
    rates = [rate(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert set(rates[10:80]) == {1.0}
    assert rates[80] == pytest.approx(1 - 0.9 / 20)
    assert rates[89] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.1)


def test_cosine_falls_from_the_peak_to_the_floor() -> None:
    config = ScheduleConfig(name="cosine", warmup=20, floor=0.0)
    rates = [rate(config, step, 120) for step in range(120)]
    assert rates[19] == 1.0
    assert rates[69] == pytest.approx(0.5)
    assert rates[44] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert rates[119] == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(rates[19:]))


def test_no_warmup_no_decay_and_runs_shorter_than_their_warmup() -> None:
    assert [rate(ScheduleConfig(warmup=0, decay=0.0), step, 5) for step in range(5)] == [1.0] * 5
    assert [rate(ScheduleConfig(warmup=100), step, 4) for step in range(4)] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert rate(ScheduleConfig(name="cosine", warmup=0, floor=0.1), 0, 1) == pytest.approx(0.1)
    decay_all = [rate(ScheduleConfig(warmup=5, decay=1.0, floor=0.0), step, 10) for step in range(10)]
    assert decay_all == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


def test_momentum_rises_to_the_given_one() -> None:
    given = OptimizerConfig(momentum=0.95)
    assert [momentum(given, step) for step in (149, 299, 10_000)] == pytest.approx([0.9, 0.95, 0.95])
    assert momentum(OptimizerConfig(momentum=0.5), 0) == 0.5


def test_groups_have_betas_of_their_own_beside_muon() -> None:
    def betas(**given: object) -> list[tuple[float, float]]:
        optimizer = Optimizer(model_with_gradients(), OptimizerConfig.model_validate(given), even(1e-2, 1e-2))
        return [group["betas"] for group in optimizer.adamw.param_groups]

    assert betas() == [(0.8, 0.995), (0.8, 0.96), (0.9, 0.95)]
    assert betas(name="adamw") == [(0.9, 0.95)] * 4
    assert betas(betas=(0.7, 0.9), head={"betas": (0.6, 0.9)}) == [(0.7, 0.9), (0.6, 0.9), (0.7, 0.9)]
