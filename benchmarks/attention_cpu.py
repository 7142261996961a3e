"""Attention on this CPU, forward and backward, compiled: by blocks of queries against SDPA, by context and type.

    python benchmarks/attention_cpu.py [--quick] [--contexts N ...] [--precisions bf16 fp32]

4,096 tokens, or one sequence, of 4 heads and 2 key-value heads of 64, on one thread; median of a second. With documents
SDPA gets a bias, without it is told to be causal, as in training. `trainer.attention.FASTEST` is this table's summary;
bar: in bf16 the kernel chosen takes at most 1.1 times as long as the other one. fp32 (`--precisions fp32`) is held to
none: blocks gain a fifth of attention at 256 tokens on one CPU and lose on another. Compilation takes most of the time,
about three minutes. `--quick`: two contexts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from bars import at_most, finish, options, show_machine, table
from torch import Tensor

from trainer.attention import Blocks, Mask, attend, choose, within
from trainer.machine import DTYPES, find_precision, keep_memory

CPU = torch.device("cpu")
TOKENS, HEADS, KV_HEADS, SIZE = 4096, 4, 2, 64


def seconds(kernel: str, context: int, dtype: torch.dtype, packed: bool) -> float:
    """Of a forward and backward pass."""
    torch.compiler.reset()
    batch = max(1, TOKENS // context)
    generator = torch.Generator().manual_seed(1)

    def random(heads: int) -> Tensor:
        return torch.randn(batch, context, heads, SIZE, generator=generator).to(dtype).transpose(1, 2)

    query, key, value = (random(heads).requires_grad_() for heads in (HEADS, KV_HEADS, KV_HEADS))
    documents = (torch.arange(context) // (context // 3)).expand(batch, context).contiguous() if packed else None
    mask: Mask = within(documents, context, CPU, dtype, kernel)
    assert isinstance(mask, Blocks) == (kernel == "blocks")
    compiled: Callable[..., Tensor] = torch.compile(attend, dynamic=False)
    upstream, times = random(HEADS), list[float]()
    for turn in range(2 + 1000):
        begun = time.perf_counter()
        compiled(query, key, value, mask).backward(upstream)
        query.grad = key.grad = value.grad = None
        times += [time.perf_counter() - begun] if turn > 1 else []
        if len(times) > 2 and sum(times) > 1.0:
            break
    return statistics.median(times)


def main() -> int:
    parser = options(__doc__, "two contexts")
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--precisions", nargs="+", default=[find_precision("auto", CPU)])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    show_machine("torch")
    row = table("", {"blocks, ms": ".1f", "sdpa, ms": ".1f", "sdpa / blocks": ".2f", "chosen": ""}, 28)
    worst = 0.0
    for precision in arguments.precisions:
        for context in (256, 1024) if arguments.quick else arguments.contexts:
            for packed in (False, True):
                times = {name: seconds(name, context, DTYPES[precision], packed) for name in ("blocks", "sdpa")}
                chosen = choose(CPU, DTYPES[precision], context)
                ratio = times["sdpa"] / times["blocks"]
                label = f"{precision}, {context}{', documents' if packed else ''}"
                row(label, 1e3 * times["blocks"], 1e3 * times["sdpa"], ratio, chosen)
                if precision == "bf16":
                    worst = max(worst, times[chosen] / min(times.values()))
    return finish("attention_cpu", {"chosen / fastest": at_most(worst, 1.1)} if worst else {})


if __name__ == "__main__":
    sys.exit(main())
