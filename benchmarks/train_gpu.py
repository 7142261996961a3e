"""Training speed on one GPU: model FLOPs utilisation, memory and tokens/s of the presets 124m and 1b in bf16.

    python benchmarks/train_gpu.py [--quick]

First correctness, on a small model: the loss and every gradient of the compiled bf16 model with variable-length
attention against the eager fp32 model with an explicit mask. A failure there ends the run before anything is timed.
Then the presets, each with Muon, steps of eight micro-batches, after three steps of warm-up, the median of the rest:

    124m   context 1,024, 32 sequences a micro-batch     bar: 50 % of 989 TFLOP/s (H100, H200: data sheet, dense bf16)
    1b     context 2,048, 8 sequences a micro-batch      bar: 55 %

FLOPs are those of `trainer.config.flops_per_token` (PaLM's convention). Data are random tokens in one document a
sequence, so that attention sees the full context; a further row has documents of 400 tokens. `--quick` times
three steps of 124m and holds it to no bar. Without a GPU it says so and ends with 2.

`gpu_session.py` uses `agreement` and `measure` too, with more variants.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
from bars import Bar, at_least, finish, finite, options, show_machine, table

from trainer.attention import Documents, document_bounds
from trainer.config import PRESETS, ModelConfig, OptimizerConfig, flops_per_token
from trainer.feed import Part
from trainer.machine import compile_model, deterministic, find_device, memory_in_use
from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.stepper import Stepper

VOCABULARY, MICRO_BATCHES, PEAK = 32_768, 8, 989e12
CASES = {"124m": (1024, 32, 0.50), "1b": (2048, 8, 0.55)}  # context, sequences, bar
SMALL = ModelConfig(
    vocab_size=4096, layers=2, width=256, heads=4, kv_heads=4, head_dim=64, ffn=768, context=512, zero_init=False
)


def agreement(document: int | None = 100, **shape: Any) -> list[str]:
    """What differs between the fast path and the plain one by more than bf16 explains; shape: fields unlike SMALL."""
    device = find_device("auto")
    config = ModelConfig.model_validate(SMALL.model_dump() | shape)
    tokens, targets, documents = batch(config.vocab_size, config.context, 4, document)
    plain = Transformer(config, seed=1).to(device)
    plain_loss = plain.losses(tokens, targets, documents, scale=1 / targets.numel())[0]
    plain_loss.backward()
    fast = Transformer(config, seed=1, compute_dtype=torch.bfloat16).to(device)
    if problem := compile_model(fast):
        return [problem]
    with fast.cast_once():
        fast_loss = fast.losses(tokens, targets, documents, scale=1 / targets.numel())[0]
        fast_loss.backward()
    wrong = []
    plain_loss, fast_loss = plain_loss.detach(), fast_loss.detach()
    if not abs(float(fast_loss) - float(plain_loss)) < 0.02:
        wrong.append(f"loss {float(fast_loss):.4f}, plain {float(plain_loss):.4f}")
    expected = dict(plain.named_parameters())
    for name, parameter in fast.named_parameters():
        difference = (parameter.grad - expected[name].grad).norm() / expected[name].grad.norm()
        if not difference < 0.05:
            wrong.append(f"gradient of {name} differs by {float(difference):.3f} of its norm")
    return wrong


def batch(vocabulary: int, context: int, sequences: int, document: int | None) -> Part:
    """Random tokens on the device; documents of so many tokens, known to the CPU."""
    generator = torch.Generator().manual_seed(1)
    samples = torch.randint(0, vocabulary, (sequences, context + 1), generator=generator)
    documents: Documents = None
    if document is not None:
        documents = (torch.arange(context) // document).expand(sequences, context).contiguous()
    device = find_device("auto")
    return samples[:, :-1].to(device), samples[:, 1:].contiguous().to(device), documents


def measure(
    preset: str,
    *,
    sequences: int | None = None,
    micro_batches: int = MICRO_BATCHES,
    document: int | None = None,
    cast_once: bool = True,
    optimizer: str = "muon",
    steps: int = 10,
    shape: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Tokens/s, share of PEAK, gigabytes, seconds of the optimizer, last loss; shape: fields unlike the preset's.

    Raises FloatingPointError where a loss or a gradient is not finite.
    """
    device, on_gpu = find_device("auto"), torch.cuda.is_available()
    context, usual, _ = CASES.get(preset, (1024, 16, 0.0))
    chosen = PRESETS[preset]
    fields = chosen.shape.model_dump() | {"vocab_size": VOCABULARY, "context": context} | (shape or {})
    config = ModelConfig.model_validate(fields)
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = Transformer(config, seed=1, compute_dtype=torch.bfloat16).to(device)
    compile_model(model)
    if not cast_once:
        model.cast_once = nullcontext  # type: ignore[method-assign]
    updater = Optimizer(model, OptimizerConfig(name=optimizer), chosen.rates)
    updater.rate = 0.1
    stepper = Stepper(model, updater)
    tokens, targets, documents = batch(config.vocab_size, config.context, sequences or usual, document)
    if documents is not None and on_gpu:  # as the training's feed has them
        bounds = document_bounds(documents)
        documents = bounds._replace(offsets=bounds.offsets.to(device))
    parts = [(tokens, targets, documents)] * micro_batches
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    times: list[tuple[float, float]] = []
    for _ in range(3 + steps):
        wait()
        begun = time.perf_counter()
        loss, norm = stepper.gradients(parts)
        wait()
        computed = time.perf_counter()
        stepper.apply(norm)
        wait()
        times.append((time.perf_counter() - begun, time.perf_counter() - computed))
        finite(float(loss) + float(norm), f"{preset}: sum of loss and gradient norm")
    seconds, updating = (statistics.median(each) for each in zip(*times[3:], strict=True))
    rate = micro_batches * tokens.numel() / seconds
    return {
        "tokens_per_second": rate,
        "share": rate * flops_per_token(config) / PEAK,
        "memory_gb": memory_in_use(device) / 1e9,
        "optimizer_seconds": updating,
        "loss": float(loss),
    }


def main() -> int:
    quick = options(__doc__, "three steps of 124m, no bar").parse_args().quick
    if not torch.cuda.is_available():
        print("torch sees no GPU: nothing measured")
        return 2
    print(torch.cuda.get_device_name())
    show_machine("torch")
    with deterministic(True):  # as `pretrain train` runs by default
        if wrong := agreement(kv_heads=2):
            print("not correct, so not timed:\n  " + "\n  ".join(wrong))
            return 1
        print("losses and gradients agree with the plain model's")
        row = table("", {"tokens/s": ",.0f", "of 989 TFLOP/s": ".1%", "memory, GB": ".1f"}, 24)
        bars: dict[str, Bar] = {}
        for name in ("124m",) if quick else CASES:
            for document in (None,) if quick else (None, 400):
                found = measure(name, document=document, steps=3 if quick else 10)
                label = name if document is None else f"{name}, documents of {document}"
                row(label, found["tokens_per_second"], found["share"], found["memory_gb"])
                if document is None and not quick:
                    bars[name] = at_least(found["share"], CASES[name][2])
    return finish("train_gpu", bars)


if __name__ == "__main__":
    sys.exit(main())
