"""The chunked loss is the plain one: value, gradients, ignored targets, z-loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainer.loss import chunk_losses, eager_losses, linear_cross_entropy


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(50, 24, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(97, 24, generator=generator).mul(0.5).requires_grad_()
    targets = torch.randint(0, 97, (50,), generator=generator)
    targets[::7] = -100
    return hidden, weight, targets


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("chunk", [1, 16, 50, 64])
def test_value_and_gradients_are_the_plain_ones(chunk: int, z_loss: float) -> None:
    hidden, weight, targets = case()
    logits = hidden @ weight.t()
    kept = targets != -100
    plain = F.cross_entropy(logits, targets, reduction="sum") + z_loss * logits.logsumexp(1)[kept].square().sum()
    scale = 1 / 43
    expected = torch.autograd.grad(3 * scale * plain, (hidden, weight))
    total, losses = linear_cross_entropy(hidden, weight, targets, scale=scale, z_loss=z_loss, chunk=chunk)
    found = torch.autograd.grad(3 * total, (hidden, weight))
    torch.testing.assert_close(total, scale * plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses, F.cross_entropy(logits, targets, reduction="none"), atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not losses.requires_grad


def test_without_gradients_only_the_losses_are_computed() -> None:
    hidden, weight, targets = case()
    with torch.no_grad():
        total, losses = linear_cross_entropy(hidden, weight, targets, scale=0.5)
    assert not total.requires_grad
    torch.testing.assert_close(total, 0.5 * losses.sum())


def test_bf16_products_accumulate_the_weight_gradient_in_fp32() -> None:
    hidden, weight, targets = case(torch.bfloat16)
    exact, _ = linear_cross_entropy(hidden.float(), weight, targets, scale=1 / 43)
    rough, _ = linear_cross_entropy(hidden, weight, targets, scale=1 / 43, chunk=8)
    (expected,) = torch.autograd.grad(exact, weight)
    (found,) = torch.autograd.grad(rough, weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=5e-2)


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_what_a_compiler_fuses_is_what_runs_without_one(z_loss: float) -> None:
    hidden, weight, targets = case()
    logits = (hidden @ weight.t()).detach()
    for fused, eager in zip(chunk_losses(logits, targets, z_loss), eager_losses(logits, targets, z_loss), strict=True):
        torch.testing.assert_close(eager, fused, atol=1e-6, rtol=1e-5)


def test_all_targets_ignored_gives_zero_not_nan() -> None:
    hidden, weight, targets = case()
    total, _ = linear_cross_entropy(hidden, weight, torch.full_like(targets, -100), scale=1.0, z_loss=0.1)
    grads = torch.autograd.grad(total, (hidden, weight))
    assert total.item() == 0
    assert all((grad == 0).all() for grad in grads)
