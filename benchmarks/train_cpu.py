"""Training speed on a CPU: ours against a plain PyTorch loop and litgpt, on the same batches in the same run.

    python benchmarks/train_cpu.py [--quick] [--all] [--precision bf16|fp32]

12M parameters (6 layers, 384 wide, vocabulary 4,096, tied or as the peer has it), 16 sequences of 256 tokens a step,
AdamW and gradient clipping for all. Each contender has a process of its own; they take turns, one step each a round, so
that a machine that slows down slows all of them; a contender's rate is that of its median step, after three steps of
warm-up. Data are random tokens: speed does not depend on them.

- `plain fp32`: a GPT-2 as one writes it (LayerNorm, GELU, SDPA, cross-entropy of all logits at once), no compilation.
- `plain bf16`: the same loop under autocast.
- `litgpt bf16-true` (with `--all` also `bf16-mixed`), `litgpt 32-true`: litgpt's GPT with Llama's blocks, compiled, its
  chunked loss, as its `pretrain` command runs it. The bar counts against the faster one.
- `ours`: `trainer.loop`, as `pretrain train` runs it, with AdamW alone, which the bars count; with `--all` also with
  Muon, whose Newton-Schulz products cost a third more at this batch and buy loss, not speed.

The precision is by default that of `precision: auto`: bf16 where the CPU multiplies it, otherwise fp32, and then there
is nothing in bf16 to compare. Utilisation is the model's FLOPs (trainer.config.flops_per_token) over what the best
matrix product of this run reaches in that precision. Bars in bf16: 3.5x plain fp32, 1.8x plain bf16, 1.5x litgpt, 30 %
of the matrix product; the first is hard to reach where bf16 products are 2.3x as fast as fp32 ones (a CPU without AMX).
Bars in fp32: 1.3x plain and 1.3x litgpt. They need a plain loop that leaves a quarter of the matrix product unused.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from bars import at_least, finish, finite, options, show_machine, table
from peers import PlainGPT, litgpt_model
from torch import Tensor

from trainer.config import ModelConfig, OptimizerConfig, Rates, flops_per_token
from trainer.machine import DTYPES, compile_model, find_precision, keep_memory
from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.stepper import Stepper

VOCABULARY, CONTEXT, BATCH, THREADS = 4096, 256, 16, 2
SHAPE = ModelConfig(
    vocab_size=VOCABULARY, layers=6, width=384, heads=6, kv_heads=6, head_dim=64, ffn=1024, context=CONTEXT, tied=True
)
BARS = {"bf16": {"plain fp32": 3.5, "plain bf16": 1.8, "litgpt": 1.5}, "fp32": {"plain fp32": 1.3, "litgpt": 1.3}}
Step = Callable[[Tensor, Tensor], Tensor]  # returns the loss


def plain(precision: str) -> Step:
    """One step of the loop that everybody writes."""
    torch.manual_seed(1)
    model = PlainGPT(SHAPE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss + 0 * norm

    return step


def litgpt(precision: str) -> Step:
    """litgpt's model and step, as `litgpt pretrain` has them (Fabric, torch.compile, chunked cross-entropy)."""
    import lightning
    from litgpt.utils import chunked_cross_entropy

    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    model = fabric.setup(torch.compile(litgpt_model(fabric, SHAPE, seed=1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=False)
    optimizer = fabric.setup_optimizers(optimizer)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        loss = chunked_cross_entropy(model(tokens), targets)
        fabric.backward(loss)
        norm = fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss + 0 * norm

    return step


def ours(precision: str, name: Literal["adamw", "muon"] = "adamw") -> Step:
    """A step of `pretrain train`."""
    keep_memory()
    model = Transformer(SHAPE, seed=1, compute_dtype=DTYPES[precision])
    optimizer = Optimizer(model, OptimizerConfig(name=name), Rates(3e-4, 3e-4, 3e-4, 3e-4))
    if problem := compile_model(model):
        sys.exit(problem)

    stepper = Stepper(model, optimizer)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        loss, norm = stepper.gradients([(tokens, targets, None)])
        stepper.apply(norm)
        return loss + 0 * norm

    return step


def ours_with_muon(precision: str) -> Step:
    """The same with Muon."""
    return ours(precision, "muon")


def product_rate(dtype: torch.dtype, seconds: float) -> float:
    """FLOP/s of the best matrix product among the model's own shapes and large squares."""
    rows = BATCH * CONTEXT
    best = 0.0
    for m, k, n in ((rows, 384, 1024), (rows, 1024, 384), (2048, 2048, 2048), (4096, 4096, 4096)):
        left, right = torch.ones(m, k, dtype=dtype), torch.ones(k, n, dtype=dtype)
        left @ right
        times = []
        end = time.perf_counter() + seconds / 4
        while not times or time.perf_counter() < end:
            begun = time.perf_counter()
            left @ right
            times.append(time.perf_counter() - begun)
        best = max(best, 2 * m * k * n / statistics.median(times))
    return best


def report(rates: dict[str, float], precision: str, products: dict[str, float]) -> int:
    """Print the table and the bars; returns the exit code. products: best FLOP/s of a product by precision."""
    show_machine("torch", "litgpt")
    print(f"torch uses {torch.backends.cpu.get_cpu_capability()}, {THREADS} threads")
    print("best matrix product: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in products.items()))
    peak, per_token = products[precision], flops_per_token(SHAPE)
    row = table("", {"tokens/s": ",.0f", f"of {precision} product": ".1%", "ours is": ".2f"}, 20)
    for name, rate in rates.items():
        row(name, rate, rate * per_token / peak, rates["ours"] / rate)
    rates["litgpt"] = max(rate for name, rate in rates.items() if name.startswith("litgpt"))
    bars = {f"times {name}": at_least(rates["ours"] / rates[name], bar) for name, bar in BARS[precision].items()}
    if precision == "bf16":
        bars["share of the bf16 product"] = at_least(rates["ours"] * per_token / peak, 0.3)
    return finish("train_cpu", bars, precision=precision)


def serve(connection: Connection, contender: Callable[[str], Step], argument: str) -> None:
    """A contender's process: after warm-up, one step for each message; answers with the seconds it took, and the loss,
    which is not finite where the gradients are not."""
    torch.set_num_threads(THREADS)
    generator = np.random.default_rng(1)
    samples = torch.from_numpy(generator.integers(0, VOCABULARY, (BATCH, CONTEXT + 1)))
    batch = samples[:, :-1].contiguous(), samples[:, 1:].contiguous()
    step = contender(argument)
    for _ in range(3):
        step(*batch)
    connection.send("ready")
    while connection.recv():
        begun = time.perf_counter()
        loss = step(*batch)
        connection.send((time.perf_counter() - begun, float(loss.detach())))


def main() -> int:
    """Time all contenders in turns."""
    parser = options(__doc__, "three rounds instead of eight")
    parser.add_argument("--all", action="store_true", help="also litgpt in bf16-mixed, and ours with Muon")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default=find_precision("auto", torch.device("cpu")))
    arguments = parser.parse_args()
    precision: str = arguments.precision
    contenders: dict[str, tuple[Callable[[str], Step], str]] = {"plain fp32": (plain, "fp32")}
    if precision == "bf16":
        contenders |= {"plain bf16": (plain, "bf16"), "litgpt bf16-true": (litgpt, "bf16-true")}
        if arguments.all:
            contenders |= {"litgpt bf16-mixed": (litgpt, "bf16-mixed")}
    else:
        contenders |= {"litgpt 32-true": (litgpt, "32-true")}
    contenders |= {"ours": (ours, precision)}
    if arguments.all:
        contenders |= {"ours, Muon": (ours_with_muon, precision)}
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    children = []
    for name, job in contenders.items():
        pipes[name], theirs = spawn.Pipe()
        children.append(spawn.Process(target=serve, args=(theirs, *job), daemon=True))
        children[-1].start()
        pipes[name].recv()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(3 if arguments.quick else 8):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds, loss = pipe.recv()
            times[name].append(seconds)
            try:
                finite(loss, f"{name}: the loss")
            except FloatingPointError as error:
                print(error, file=sys.stderr)
                return 2
            time.sleep(0.05)  # its idle threads stop spinning
    for pipe, child in zip(pipes.values(), children, strict=True):
        pipe.send(False)
        child.join()
    torch.set_num_threads(THREADS)
    rates = {name: BATCH * CONTEXT / statistics.median(taken) for name, taken in times.items()}
    products = {name: product_rate(DTYPES[name], 4.0) for name in sorted({"fp32", precision})}
    return report(rates, precision, products)


if __name__ == "__main__":
    sys.exit(main())
