"""What a training learns from given tokens: ours, a plain loop in nanoGPT's manner, and litgpt, at one model size.

    python benchmarks/learning.py [SHARDS] [--quick] [--seeds 1 2 3] [--steps N] [--preset NAME] [--rates R ...]

SHARDS is a shards folder with something held out. Without it, `pretrain corpus` makes one in runs/learning of the real
data (learning.yaml), or where that is absent of the documentation that is installed here (`pretrain harvest`).

- `ours`: `pretrain train` with the preset as it is, document masks included.
- `nanogpt`: a GPT-2 (peers.py) as nanoGPT trains it, in a loop of our own: initial weights of deviation 0.02, AdamW
  with betas (0.9, 0.95) and decay 0.1 on matrices, gradients clipped at 1, warm-up and half a cosine to a tenth.
- `litgpt`: litgpt's model (ours without QK norm), its initial weights, schedule and loss, as its `pretrain` command has
  them, but on fp32 master weights (`bf16-mixed`), since its default rounds small updates away.

All read the same samples in the same steps, in our sampler's order. A peer is trained once with each of `--rates`, with
which nanoGPT's and litgpt's own (6e-4, 4e-4) cannot keep up in a short run, and its best result counts. Warm-up is a
tenth of the run, at most 100 steps. Everything is scored by `trainer.score.evaluate` on the same held-out samples. All
heads are tied or all are not, so that sizes differ by positions and biases only. A result that is not finite is
refused.

Bars: ours at most the best peer's bits per byte, and 2.15 in the default run on the real data (`tiny`, 250 steps of
4,096 tokens). `--quick` trains on a quarter of the steps and half of the batch, one rate for the peers, no bar.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from bars import DATA, ROOT, Bar, at_least, at_most, finish, finite, options, show_machine, table
from peers import PlainGPT, litgpt_model
from torch import Tensor, nn

from trainer.config import DataConfig, TrainConfig, resolve_model
from trainer.feed import Feed
from trainer.loop import train
from trainer.machine import find_device, find_precision
from trainer.model import Transformer
from trainer.parallel import ALONE
from trainer.score import Scores, evaluate
from trainer.shards import Shards, open_shards

Losses = Callable[[Tensor, Tensor], Tensor]  # of tokens and targets; each target's, in nats


def find_shards() -> Path:
    """The shards of learning.yaml, made where they are missing."""
    command = [sys.executable, "-m", "cli.main"]
    chosen = []
    if not DATA.is_dir():
        harvest = ROOT / "data/harvest"
        if not list(harvest.glob("*.warc.gz")):
            subprocess.run([*command, "harvest", str(harvest), "--limit-mb", "24"], cwd=ROOT, check=True)
        chosen = ["--set", f"sources=[{{name: documentation, type: warc, paths: ['{harvest}/*.warc.gz']}}]"]
    subprocess.run([*command, "corpus", "benchmarks/learning.yaml", *chosen], cwd=ROOT, check=True)
    return ROOT / "runs/learning/shards"


def ours(config: TrainConfig, shards: Shards) -> Scores:
    """Scores of `pretrain train`."""
    with tempfile.TemporaryDirectory() as folder:
        return train(config, shards.folder, Path(folder)).validation or {}


def nanogpt(config: TrainConfig, shards: Shards, rate: float) -> Scores:
    """Scores of a GPT-2 after nanoGPT's loop."""
    device = find_device(config.device)
    torch.manual_seed(config.seed)
    model = PlainGPT(resolve_model(config, shards.vocab_size, shards.sequence_length))
    model.initialize()
    model.to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        fused=True,
    )
    compiled = torch.compile(model)

    def losses(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=find_precision(config.precision, device) == "bf16"):
            logits = compiled(tokens)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view_as(targets)

    def learning_rate(step: int) -> float:
        warmup = min(100, config.steps // 10)
        if step < warmup:
            return rate * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, config.steps - warmup)
        return rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))

    def update(step: int) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run_peer(config, shards, losses, Tensor.backward, update)


def litgpt(config: TrainConfig, shards: Shards, rate: float) -> Scores:
    """Scores of litgpt's model after the loop of its `pretrain` command."""
    import lightning
    from litgpt.pretrain import get_lr
    from litgpt.utils import chunked_cross_entropy

    device = find_device(config.device)
    bf16 = find_precision(config.precision, device) == "bf16"
    fabric = lightning.Fabric(accelerator=device.type, devices=1, precision="bf16-mixed" if bf16 else "32-true")
    plain = litgpt_model(fabric, resolve_model(config, shards.vocab_size, shards.sequence_length), config.seed)
    model = fabric.setup(torch.compile(plain))
    optimizer = fabric.setup_optimizers(
        torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1, fused=device.type == "cuda")
    )
    warmup = min(100, config.steps // 10)

    def losses(tokens: Tensor, targets: Tensor) -> Tensor:
        logits = model(tokens)
        if torch.is_grad_enabled():  # the mean over the targets, which all samples have as many of
            return chunked_cross_entropy(logits, targets).expand(targets.shape)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view_as(targets)

    def update(step: int) -> None:
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        for group in optimizer.param_groups:
            group["lr"] = get_lr(rate, step + 1, warmup, config.steps, rate / 10)
        optimizer.step()
        optimizer.zero_grad()

    return run_peer(config, shards, losses, fabric.backward, update)


def run_peer(
    config: TrainConfig, shards: Shards, losses: Losses, backward: Callable[..., Any], update: Callable[[int], None]
) -> Scores:
    """Train on our batches, then score as ours is scored."""
    device = find_device(config.device)
    feed = Feed(config, shards, ALONE, device)
    for step in range(config.steps):
        parts = feed.parts(step)
        for tokens, targets, _ in parts:
            backward(losses(tokens, targets).mean() / len(parts))
        update(step)
    feed.close()

    model = SimpleNamespace(  # as much of a Transformer as scoring uses
        config=SimpleNamespace(context=shards.sequence_length),
        cos=torch.zeros(0, device=device),
        losses=lambda tokens, targets, *_, **__: (None, losses(tokens, targets)),
    )
    limits = {"micro_batch": config.micro_batch, "batches": config.evaluation.batches}
    return evaluate(cast(Transformer, model), shards, **limits, document_mask=False) or {}


def contenders(rates: list[float]) -> Iterator[tuple[str, Callable[[TrainConfig, Shards], Scores]]]:
    yield "ours", ours
    for peer in (nanogpt, litgpt):
        for rate in rates:
            yield f"{peer.__name__} {rate:g}", lambda config, shards, peer=peer, rate=rate: peer(config, shards, rate)


def main() -> int:
    parser = options(__doc__, "a quarter of the steps, half of the batch, one rate, no bar")
    parser.add_argument("shards", type=Path, nargs="?", help="default: made in runs/learning")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--micro-batch", type=int, default=8, help="sequences")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3], help="the peers' peak learning rates")
    arguments = parser.parse_args()
    steps, batch_tokens, rates = arguments.steps, arguments.batch_tokens, arguments.rates
    if arguments.quick:
        steps, batch_tokens, rates = steps // 4, batch_tokens // 2, rates[-1:]
    show_machine("torch", "litgpt")
    folder = arguments.shards or find_shards()
    results: dict[str, list[float]] = {}
    row = table("", {"seed": "d", "bits per byte": ".4f", "nats": ".4f", "seconds": ".0f"}, 20)
    with tempfile.TemporaryDirectory() as cached:
        shards = open_shards(folder, Path(cached), DataConfig())
        for seed in arguments.seeds:
            config = TrainConfig.model_validate(
                {
                    "preset": arguments.preset,
                    "steps": steps,
                    "global_batch_tokens": batch_tokens,
                    "micro_batch": arguments.micro_batch,
                    "seed": seed,
                    "evaluation": {"every": steps, "batches": 40},
                    "checkpoint": {"every": steps},
                }
            )
            for name, contender in contenders(rates):
                torch.compiler.reset()
                begun = time.perf_counter()
                scores = contender(config, shards)
                if "bits_per_byte" not in scores:
                    print(f"{folder} holds nothing out, or lacks token_bytes.npy: no bits per byte")
                    return 2
                results.setdefault(name, []).append(finite(scores["bits_per_byte"], f"{name}: bits per byte"))
                row(name, seed, results[name][-1], scores["loss"], time.perf_counter() - begun)
    means = {name: statistics.mean(values) for name, values in results.items()}
    best = min((name for name in means if name != "ours"), key=means.__getitem__)
    print(f"best peer ({best}) / ours: {means[best] / means['ours']:.3f}")
    bars: dict[str, Bar] = {}
    if not arguments.quick:
        bars["best peer / ours"] = at_least(means[best] / means["ours"], 1.0)
        real = arguments.shards is None and DATA.is_dir()
        if real and (arguments.preset, steps, batch_tokens) == ("tiny", 250, 4096):
            bars["bits per byte"] = at_most(means["ours"], 2.15)
    return finish("learning", bars, steps=steps, batch_tokens=batch_tokens, bits_per_byte=means)


if __name__ == "__main__":
    sys.exit(main())
