"""Generation with a key-value cache against generation without one: 512 tokens after a short prompt, greedy, fp32.

    python benchmarks/generate.py [--quick]

The model has GPT-2's sizes (preset `124m`) and random weights. Without a cache every token needs a pass over the
full text; its cost is measured at nine lengths spread over the 512 and summed, since all would take minutes. `--quick`
takes preset `tiny`. Both ways must give the same first 24 tokens.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from bars import at_least, finish, options, show_machine, table

from trainer.config import PRESETS
from trainer.generate import Sampling, stream_tokens
from trainer.model import Transformer

TOKENS, CHECKED, POINTS, BAR = 512, 24, 9, 10.0


def random_model(preset: str) -> Transformer:
    shape = PRESETS[preset].shape.model_copy(update={"context": 1024})
    model = Transformer(shape, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # what starts at zero would make every token alike
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model


@torch.no_grad()
def next_token(model: Transformer, text: list[int]) -> int:
    hidden = model.hidden(torch.tensor([text]))[:, -1]
    return int(model.logits(hidden).argmax())


def with_cache(model: Transformer, prompt: list[int]) -> tuple[list[int], float]:
    begun = time.perf_counter()
    sampling = Sampling(max_tokens=TOKENS, temperature=0)
    tokens = [token for _, token, _ in stream_tokens(model, [prompt], sampling) if token is not None]
    return tokens, time.perf_counter() - begun


def without_cache(model: Transformer, text: list[int], length: int) -> float:
    """Seconds of one token after `length` others, the better of two."""
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        next_token(model, text[:length])
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> int:
    preset = "tiny" if options(__doc__, "preset tiny").parse_args().quick else "124m"
    show_machine("torch")
    model = random_model(preset)
    prompt = list(range(100, 108))
    with_cache(model, prompt[:2])  # warm up
    tokens, seconds = with_cache(model, prompt)
    text = [*prompt, *tokens]
    for number in range(CHECKED):
        assert next_token(model, text[: len(prompt) + number]) == tokens[number]
    lengths = np.linspace(len(prompt), len(text) - 1, POINTS).round().astype(int)
    points = [without_cache(model, text, int(length)) for length in lengths]
    slow = float(np.trapezoid(points, lengths)) / (len(text) - 1 - len(prompt)) * TOKENS
    print(f"preset {preset}, {TOKENS} tokens, {torch.get_num_threads()} threads")
    row = table("", {"tokens/s": ".1f"})
    row("with cache", TOKENS / seconds)
    row("without cache", TOKENS / slow)
    return finish("generate", {"cache_speedup_512": at_least(slow / seconds, BAR)})


if __name__ == "__main__":
    sys.exit(main())
