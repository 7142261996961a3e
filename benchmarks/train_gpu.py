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
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from bars import Bar, at_least, finish, options, show_machine, table
from torch import Tensor

from trainer.config import PRESETS, ModelConfig, OptimizerConfig, flops_per_token
from trainer.loop import Part, Stepper
from trainer.machine import compile_model, deterministic
from trainer.model import Transformer
from trainer.optimizer import Optimizer

VOCABULARY, MICRO_BATCHES, PEAK = 32_768, 8, 989e12
CASES = {"124m": (1024, 32, 0.50), "1b": (2048, 8, 0.55)}  # context, sequences, bar
DEVICE = torch.device("cuda")


def check() -> list[str]:
    """What differs between the fast path and the plain one by more than bf16 explains."""
    shape = ModelConfig(
        vocab_size=4096, layers=2, width=256, heads=4, kv_heads=2, head_dim=64, ffn=768, context=512, zero_init=False
    )
    tokens, targets, documents = batch(4096, 512, 4, 100)
    plain = Transformer(shape, seed=1).to(DEVICE)
    plain_loss = plain.losses(tokens, targets, documents, scale=1 / targets.numel())[0]
    plain_loss.backward()
    fast = Transformer(shape, seed=1, compute_dtype=torch.bfloat16).to(DEVICE)
    if problem := compile_model(fast):
        return [problem]
    fast_loss = fast.losses(tokens, targets, documents, scale=1 / targets.numel())[0]
    fast_loss.backward()
    wrong = []
    if abs(float(fast_loss) - float(plain_loss)) > 0.02:
        wrong.append(f"loss {float(fast_loss):.4f}, plain {float(plain_loss):.4f}")
    expected = dict(plain.named_parameters())
    for name, parameter in fast.named_parameters():
        difference = (parameter.grad - expected[name].grad).norm() / expected[name].grad.norm()
        if not difference < 0.05:
            wrong.append(f"gradient of {name} differs by {float(difference):.3f} of its norm")
    return wrong


def batch(vocabulary: int, context: int, sequences: int, document: int | None) -> Part:
    """Random tokens on the GPU; documents of so many tokens, known to the CPU."""
    generator = torch.Generator().manual_seed(1)
    samples = torch.randint(0, vocabulary, (sequences, context + 1), generator=generator)
    documents: Tensor | None = None
    if document is not None:
        documents = (torch.arange(context) // document).expand(sequences, context).contiguous()
    return samples[:, :-1].to(DEVICE), samples[:, 1:].contiguous().to(DEVICE), documents


def measure(name: str, document: int | None, steps: int) -> tuple[float, float]:
    """Tokens per second and gigabytes of memory of a preset."""
    context, sequences, _ = CASES[name]
    preset = PRESETS[name]
    shape = ModelConfig(**preset.shape.model_dump() | {"vocab_size": VOCABULARY, "context": context})
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = Transformer(shape, seed=1, compute_dtype=torch.bfloat16).to(DEVICE)
    compile_model(model)
    optimizer = Optimizer(model, OptimizerConfig(), preset.rates)
    optimizer.rate = 0.1
    stepper = Stepper(model, optimizer)
    parts = [batch(VOCABULARY, context, sequences, document)] * MICRO_BATCHES
    times = []
    for _ in range(3 + steps):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        _, norm = stepper.gradients(parts)
        stepper.apply(norm)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return MICRO_BATCHES * sequences * context / statistics.median(times[3:]), torch.cuda.max_memory_allocated() / 1e9


def main() -> int:
    quick = options(__doc__, "three steps of 124m, no bar").parse_args().quick
    if not torch.cuda.is_available():
        print("torch sees no GPU: nothing measured")
        return 2
    print(torch.cuda.get_device_name())
    show_machine("torch")
    with deterministic(True):  # as `pretrain train` runs by default
        if wrong := check():
            print("not correct, so not timed:\n  " + "\n  ".join(wrong))
            return 1
        print("losses and gradients agree with the plain model's")
        row = table("", {"tokens/s": ",.0f", "of 989 TFLOP/s": ".1%", "memory, GB": ".1f"}, 24)
        bars: dict[str, Bar] = {}
        for name in ("124m",) if quick else CASES:
            for document in (None,) if quick else (None, 400):
                rate, memory = measure(name, document, 3 if quick else 10)
                context, _, bar = CASES[name]
                shape = PRESETS[name].shape.model_copy(update={"vocab_size": VOCABULARY})
                share = rate * flops_per_token(shape, context)
                label = name if document is None else f"{name}, documents of {document}"
                row(label, rate, share / PEAK, memory)
                if document is None and not quick:
                    bars[name] = at_least(share / PEAK, bar)
    return finish("train_gpu", bars)


if __name__ == "__main__":
    sys.exit(main())
