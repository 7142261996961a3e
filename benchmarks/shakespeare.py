"""Learning on a fixed budget: tinyshakespeare's characters under nanoGPT's CPU settings.

    python benchmarks/shakespeare.py [--quick] [--ablations] [--only WORD ...] [--steps N] [--text FILE]

The budget is nanoGPT's (README, "I only have a macbook"): at most 0.80M parameters in 4 layers 128 wide, 2,000 steps
of 12 random sequences of 64 characters, the first 90 % of the text to train on, loss on the rest: here all of it, in
windows of 64. It publishes 1.88. Bar: mean of three seeds at most 1.53. The loss does not depend on speed, so the
run may share the machine; one thread, compute type as `precision: auto` has it, on fp32 master weights.

As in a training on shards, sequences are drawn without replacement: each pass cuts the text anew at a random offset and
shuffles. (nanoGPT draws with replacement, so after these 1.5 passes a fifth of the text was never seen.) Settings were
chosen on the last tenth of the training part (docs/log.md, 2026-11-26 and 27).

`--ablations` trains one seed of each variant, one choice undone at a time; `--only` those whose name holds a word;
`--steps` shortens all of it.
`--quick` trains one seed for 200 steps and holds it to no bar.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars import DATA, at_most, finish, options, show_machine

from trainer.config import ModelConfig, OptimizerConfig, Rates, ScheduleConfig, parameter_count
from trainer.machine import DTYPES, compile_model, find_precision
from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.stepper import Stepper

TEXT = DATA / "corpora/tinyshakespeare/data/tinyshakespeare/input.txt"
STEPS, BATCH, CONTEXT, BAR = 2000, 12, 64, 1.53
# Every row of an embedding of 65 has gradients in every step, so it takes a head's rate and deviation, not a preset's.
RATES = Rates(embedding=3e-3, head=3e-3, norms=3e-3, matrices=1e-2)
PRECISION = find_precision("auto", torch.device("cpu"))


@dataclass(frozen=True)
class Variant:
    """What is trained: by default our choices for this size."""

    shape: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    rates: float = 1.0  # factor on all peak learning rates
    z_loss: float = 0.0
    with_replacement: bool = False


OURS = Variant(shape={"rope_base": 100.0}, optimizer={"weight_decay": 0.0, "momentum": 0.9})
ABLATIONS = {
    "AdamW alone": replace(OURS, optimizer=OURS.optimizer | {"name": "adamw"}),
    "no QK-norm": replace(OURS, shape=OURS.shape | {"qk_norm": False}),
    "projections not zero at the start": replace(OURS, shape=OURS.shape | {"zero_init": False}),
    "tied embedding": replace(OURS, shape=OURS.shape | {"tied": True}),
    "2 key-value heads for 4": replace(OURS, shape=OURS.shape | {"kv_heads": 2, "ffn": 376}),
    "cosine": replace(OURS, schedule={"name": "cosine"}),
    "no decay": replace(OURS, schedule={"decay": 0.0}),
    "weight decay 0.1": replace(OURS, optimizer=OURS.optimizer | {"weight_decay": 0.1}),
    "momentum 0.95": replace(OURS, optimizer=OURS.optimizer | {"momentum": 0.95}),
    "positions of base 10,000": replace(OURS, shape={}),
    "sequences drawn with replacement": replace(OURS, with_replacement=True),
    "no clipping": replace(OURS, optimizer=OURS.optimizer | {"clip": 0.0}),
    "z-loss 1e-4": replace(OURS, z_loss=1e-4),
    "half the learning rates": replace(OURS, rates=0.5),
    "twice the learning rates": replace(OURS, rates=2.0),
}


def model_config(variant: Variant, vocabulary: int) -> ModelConfig:
    """0.80M parameters."""
    shape = {"layers": 4, "width": 128, "heads": 4, "kv_heads": 4, "head_dim": 32, "ffn": 336} | variant.shape
    return ModelConfig(vocab_size=vocabulary, context=CONTEXT, **shape)


def train(variant: Variant, text: torch.Tensor, vocabulary: int, seed: int, steps: int) -> float:
    """Loss in nats a character on the last tenth of `text` after training on the rest."""
    cut = int(0.9 * len(text))
    model = Transformer(model_config(variant, vocabulary), seed=seed, compute_dtype=DTYPES[PRECISION])
    config = OptimizerConfig(**variant.optimizer)
    schedule = ScheduleConfig(**variant.schedule)
    optimizer = Optimizer(model, config, Rates(*(variant.rates * peak for peak in RATES)))
    if problem := compile_model(model):
        print(problem)
    stepper = Stepper(model, optimizer)
    starts = draw(variant, cut, seed, steps)
    for step in range(steps):
        samples = text[starts[step][:, None] + torch.arange(CONTEXT + 1)]
        part = samples[:, :-1], samples[:, 1:], None
        optimizer.schedule(schedule, step, steps)
        _, norm = stepper.gradients([part], variant.z_loss)
        stepper.apply(norm)
    return held_out_loss(model, text[cut:])


def draw(variant: Variant, length: int, seed: int, steps: int) -> torch.Tensor:
    """Where the sequences of each step begin in `length` characters: (steps, BATCH) int64."""
    generator = np.random.default_rng(seed)
    if variant.with_replacement:
        return torch.from_numpy(generator.integers(0, length - CONTEXT, (steps, BATCH)))
    passes: list[np.ndarray] = []
    while sum(map(len, passes)) < steps * BATCH:
        offset = generator.integers(CONTEXT)
        passes.append(generator.permutation((length - 1 - offset) // CONTEXT) * CONTEXT + offset)
    return torch.from_numpy(np.concatenate(passes)[: steps * BATCH]).view(steps, BATCH)


@torch.no_grad()
def held_out_loss(model: Transformer, text: torch.Tensor) -> float:
    """Mean loss over every character but the first, in windows that do not overlap."""
    windows = (len(text) - 1) // CONTEXT
    tokens = text[: windows * CONTEXT].view(windows, CONTEXT)
    targets = text[1 : windows * CONTEXT + 1].view(windows, CONTEXT)
    losses = [
        model.losses(tokens[start : start + BATCH], targets[start : start + BATCH], scale=1.0)[1].double().sum()
        for start in range(0, windows, BATCH)
    ]
    return float(torch.stack(losses).sum()) / (windows * CONTEXT)


def main() -> int:
    parser = options(__doc__, "one seed, 200 steps, no bar")
    parser.add_argument("--ablations", action="store_true", help="also one seed of every variant")
    parser.add_argument("--only", nargs="*", help="of the ablations, those whose name holds one of these")
    parser.add_argument("--steps", type=int, default=STEPS, help="another budget, held to no bar")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--text", type=Path, default=TEXT)
    arguments = parser.parse_args()
    if not arguments.text.is_file():
        print(f"{arguments.text} does not exist; name tinyshakespeare's input.txt with --text")
        return 2
    torch.set_num_threads(1)
    show_machine("torch")
    characters = arguments.text.read_text("utf-8")
    alphabet = sorted(set(characters))
    numbers = {character: number for number, character in enumerate(alphabet)}
    text = torch.tensor([numbers[character] for character in characters])
    parameters = parameter_count(model_config(OURS, len(alphabet)))
    steps = 200 if arguments.quick else arguments.steps
    print(f"{len(text):,} characters, {len(alphabet)} of them distinct; {parameters:,} parameters; {PRECISION}")
    print(f"{steps:,} steps of {BATCH} x {CONTEXT} characters")
    losses = []
    for seed in arguments.seeds[:1] if arguments.quick else arguments.seeds:
        begun = time.perf_counter()
        losses.append(train(OURS, text, len(alphabet), seed, steps))
        print(f"  {'ours, seed ' + str(seed):40}{losses[-1]:8.4f}{time.perf_counter() - begun:8.0f} s", flush=True)
    if arguments.ablations or arguments.only:
        for name, variant in ABLATIONS.items():
            if arguments.only is None or any(word in name for word in arguments.only):
                loss = train(variant, text, len(alphabet), 1, steps)
                print(f"  {name:40}{loss:8.4f}", flush=True)
    if not losses:
        return 0
    mean = statistics.mean(losses)
    if steps != STEPS:
        return finish("shakespeare", {}, loss=round(mean, 4))
    return finish("shakespeare", {"mean held-out loss": at_most(mean, BAR)})


if __name__ == "__main__":
    sys.exit(main())
