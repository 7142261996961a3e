"""Every kernel of attention, compiled, against the eager model in fp32: the loss and each gradient."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import attention as module
from trainer import resume
from trainer.attention import FASTEST, Blocks, Bounds, attend, choose, document_bias, document_bounds, within
from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig
from trainer.machine import DTYPES, compile_model, find_device, find_precision
from trainer.model import Transformer

DEVICE = find_device("auto")
PRECISIONS = sorted({"fp32", find_precision("auto", DEVICE)})
TOLERANCE = {"bf16": 0.05, "fp32": 1e-3}
CONTEXTS = (64, 128, 192, 256, 320, 384, 512, 1024, 2048)
# With queries in blocks of 128, the compiled backward pass once gave NaN at these contexts and no others.
QUICK = [(192, False, True, 4), (256, True, True, 2), (384, False, True, 2)]
ALL = list(product(CONTEXTS, (False, True), (False, True), (4, 2)))


def differences(context: int, packed: bool, qk_norm: bool, kv_heads: int, precision: str) -> dict[str, float]:
    """Of the loss, and of each gradient as a share of its norm."""
    shape = ModelConfig(
        vocab_size=61, layers=1, width=128, heads=4, kv_heads=kv_heads, head_dim=64, ffn=128, context=context,
        qk_norm=qk_norm, zero_init=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(context)
    tokens, targets = torch.randint(0, 61, (2, 2, context), generator=generator).to(DEVICE)
    lengths = torch.tensor([[context // 3, context - context // 3], [context // 5, context - context // 5]])
    documents = torch.stack([torch.arange(2).repeat_interleave(row) for row in lengths]) if packed else None
    models = [
        Transformer(shape, seed=3, compute_dtype=dtype).to(DEVICE) for dtype in (torch.float32, DTYPES[precision])
    ]
    assert compile_model(models[1]) is None
    losses: list[float] = []
    for model in models:
        with model.cast_once():
            loss, _ = model.losses(tokens, targets, documents, scale=1 / targets.numel())
            loss.backward()
        losses.append(float(loss.detach()))
    found = {"loss": losses[1] - losses[0]}
    expected = dict(models[0].named_parameters())
    for name, parameter in models[1].named_parameters():
        assert parameter.grad is not None
        reference = expected[name].grad
        assert reference is not None
        found[name] = float((parameter.grad - reference).norm() / reference.norm())
    return found


def check(context: int, packed: bool, qk_norm: bool, kv_heads: int, precision: str) -> None:
    torch.compiler.reset()
    found = differences(context, packed, qk_norm, kv_heads, precision)
    wrong = {name: value for name, value in found.items() if not abs(value) < TOLERANCE[precision]}
    assert not wrong


@pytest.mark.parametrize(("context", "packed", "qk_norm", "kv_heads"), QUICK)
def test_compiled_gradients_are_those_of_the_plain_model(
    context: int, packed: bool, qk_norm: bool, kv_heads: int
) -> None:
    check(context, packed, qk_norm, kv_heads, find_precision("auto", DEVICE))


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("context", "packed", "qk_norm", "kv_heads"), ALL)
def test_compiled_gradients_of_every_shape(
    context: int, packed: bool, qk_norm: bool, kv_heads: int, precision: str
) -> None:
    check(context, packed, qk_norm, kv_heads, precision)


@pytest.mark.parametrize("shares", [False, True])
def test_heads_are_repeated_where_the_kernel_cannot_share_them(shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`varlen_attn`, which has no CPU kernel, by a plain one with the arguments of torch 2.11 or of later ones."""
    calls: list[dict[str, object]] = []

    def kernel(query, key, value, offsets, key_offsets, longest, key_longest, *, window_size, **options):
        calls.append(options)
        assert offsets is key_offsets
        assert (longest, key_longest, window_size) == (16, 16, (-1, 0))
        mixed = torch.zeros_like(query)
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            part = (each[start:end].transpose(0, 1)[None] for each in (query, key, value))
            mixed[start:end] = torch.nn.functional.scaled_dot_product_attention(*part, is_causal=True, **options)[
                0
            ].transpose(0, 1)
        return mixed

    monkeypatch.setattr(module, "varlen_attn", kernel)
    monkeypatch.setattr(module, "SHARES_HEADS", shares)
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, heads, 16, 8, generator=generator) for heads in (4, 2, 2))
    documents = torch.tensor([[0] * 6 + [1] * 10, [0] * 16])
    bounds = document_bounds(documents)
    assert isinstance(bounds, Bounds)
    expected = attend(query, key, value, document_bias(documents, torch.float32))
    torch.testing.assert_close(attend(query, key, value, bounds), expected, atol=1e-5, rtol=1e-5)
    assert calls == [{"enable_gqa": True} if shares else {}]
    monkeypatch.setattr(module, "SHARES_HEADS", not shares)
    attend(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), bounds)
    assert calls[1] == {}  # as many heads: nothing to share


def test_the_kernel_of_a_cpu_is_the_tables() -> None:
    cpu, longest = torch.device("cpu"), FASTEST[torch.bfloat16]
    assert choose(cpu, torch.bfloat16, longest) == "blocks"
    assert choose(cpu, torch.bfloat16, longest + 1) == "sdpa"
    assert choose(torch.device("cuda"), torch.bfloat16, longest) == "sdpa"
    documents = torch.tensor([[0, 0, 1]])
    for given in (None, documents):
        mask = within(given, 3, cpu, torch.bfloat16, "blocks")
        assert isinstance(mask, Blocks)
        expected = document_bias(torch.zeros_like(documents) if given is None else given, torch.bfloat16)
        assert torch.equal(mask.bias, expected)
    assert within(None, 3, cpu, torch.bfloat16, "sdpa") is None


def test_a_resumed_run_keeps_its_attention_unless_its_bits_change_anyway() -> None:
    """A later version's table may choose another kernel for the same recipe on the same machine."""
    before: dict[str, Any] = {"steps": 8, "environment.torch": "2.15.0", resume.ATTENTION: "blocks"}
    saved = Checkpoint(Path("step-00000004"), 4, {}, {}, {"identity": {}, "settings": before})  # type: ignore[arg-type]
    now = before | {resume.ATTENTION: "sdpa"}
    kept = resume.keep_attention(saved, now)
    assert kept == before
    assert resume.check(saved, {}, kept, []) == []
    other = now | {"environment.torch": "2.16.0"}
    assert resume.keep_attention(saved, other) == other
    del before[resume.ATTENTION]  # of a version that did not save it
    assert resume.keep_attention(saved, now) == now
