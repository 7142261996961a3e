"""Continue prompts with a trained model.

The prompts run as one batch over a key-value cache: one pass over the prompts, then one pass a token for those that are
not finished. Every sequence has its own random stream (seed, row), so a sample does not depend on the other prompts of
its batch, up to the rounding of differently shaped matrix products. Tokens are chosen on the CPU in float64, in the
order and by the definitions of `transformers`: repetition penalty, temperature, top-k, top-p, min-p.

Costs: a token's pass reads every weight and the cache once (`benchmarks/generate.py` compares it with generation
without a cache).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from common.errors import TrainerError
from trainer.model import Cache, Transformer
from trainer.trained import load_model, load_tokenizer

Scores = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    temperature: 0 takes the likeliest. top_k keeps that many tokens, top_p the likeliest that hold that much mass
    (arXiv:1904.09751), min_p those at least that many times as likely as the likeliest (arXiv:2407.01082).
    repetition_penalty: divides positive and multiplies negative logits of tokens that occurred (arXiv:1909.05858).
    """

    max_tokens: int = 128
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises TrainerError for a value out of bounds."""
        allowed = {
            "max_tokens": (self.max_tokens > 0, "at least 1"),
            "temperature": (self.temperature >= 0, "0 (greedy) or more"),
            "top_k": (self.top_k is None or self.top_k > 0, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is None or 0 <= self.min_p <= 1, "0 to 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0 (1 changes nothing)"),
        }
        for name, (holds, expected) in allowed.items():
            if not holds:
                raise TrainerError(f"{name} is {getattr(self, name)}; expected {expected}")


@dataclass(frozen=True)
class Completion:
    """A prompt and the model's continuation; `finish` is the reason it stopped: eos, length or context."""

    prompt: str
    text: str
    tokens: int
    finish: str


def generate(
    train_dir: Path,
    prompts: list[str],
    sampling: Sampling | None = None,
    *,
    tokenizer: Path | None = None,
    device: str = "cpu",
    on_text: Callable[[int, str], None] | None = None,
) -> list[Completion]:
    """Continue each prompt with the newest checkpoint of a training folder.

    An empty prompt starts a new document. `on_text` is called with a prompt's number and each piece of text as it is
    written; together they are the completion's text. Raises TrainerError where checkpoint or tokenizer is missing or
    wrong, or a prompt leaves no room in the model's context.
    """
    model, meta = load_model(train_dir, device)
    codec = load_tokenizer(train_dir, meta, tokenizer)
    return complete(model, codec, meta["eos_id"], prompts, sampling or Sampling(), on_text)


def complete(
    model: Transformer,
    codec: Tokenizer,
    eos: int | None,
    prompts: Sequence[str],
    sampling: Sampling,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Completion]:
    """Continue each prompt with a loaded model, which is not changed; arguments and errors as in `generate`."""
    encoded = encode_prompts(prompts, codec, eos, model.config.context)
    written: list[list[int]] = [[] for _ in prompts]
    finishes = [""] * len(prompts)
    decoders = [DecodeStream(skip_special_tokens=True) for _ in prompts]
    sent = [""] * len(prompts)
    for row, token, finish in stream_tokens(model, encoded, sampling, eos):
        if token is not None:
            written[row].append(token)
            if on_text and (piece := decoders[row].step(codec, token)):
                sent[row] += piece
                on_text(row, piece)
        finishes[row] = finish or ""
    texts = [codec.decode(tokens) for tokens in written]
    for row, text in enumerate(texts):
        if on_text and len(text) > len(sent[row]):
            on_text(row, text[len(sent[row]) :])  # a last character of which only some bytes were written
    return [Completion(*parts) for parts in zip(prompts, texts, map(len, written), finishes, strict=True)]


def encode_prompts(prompts: Sequence[str], codec: Tokenizer, eos: int | None, context: int) -> list[list[int]]:
    """Token ids of each prompt, EOS for an empty one. Raises TrainerError where one leaves no room in the context."""
    encoded = [codec.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    for row, ids in enumerate(encoded):
        if not ids:
            if eos is None:
                raise TrainerError("an empty prompt starts from the end-of-document token, but the model has none")
            encoded[row] = [eos]
        if len(ids) >= context:
            raise TrainerError(
                f"a prompt has {len(ids)} tokens; the model's context of {context} leaves no room after it"
            )
    return encoded


@torch.no_grad()
def stream_tokens(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, eos: int | None
) -> Iterator[tuple[int, int | None, str | None]]:
    """(number of the prompt, token, reason where it ends here) as tokens are written; EOS comes as token None.

    The prompts are not empty and shorter than the model's context.
    """
    context = model.config.context
    if not prompts:
        return
    longest = max(len(prompt) for prompt in prompts)
    device = model.cos.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    padded = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts], device=device)
    cache = Cache.empty(model, len(prompts), min(context, longest + sampling.max_tokens))
    hidden = model.extend(padded, torch.arange(longest, device=device).expand_as(padded), cache)
    hidden = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    draws = [np.random.default_rng([sampling.seed, row]) for row in range(len(prompts))]
    texts = [list(prompt) for prompt in prompts]
    rows = list(range(len(prompts)))  # unfinished prompts, in the order of the cache
    while True:
        scores = model.logits(hidden).double().cpu().numpy()
        unfinished = []
        for slot, row in enumerate(rows):
            token = choose(scores[slot], sampling, draws[row], texts[row])
            if token == eos:
                yield row, None, "eos"
                continue
            texts[row].append(token)
            finish = None
            if len(texts[row]) - len(prompts[row]) == sampling.max_tokens:
                finish = "length"
            elif len(texts[row]) == context:
                finish = "context"
            yield row, token, finish
            if finish is None:
                unfinished.append(slot)
        if not unfinished:
            return
        if len(unfinished) < len(rows):
            kept = torch.tensor(unfinished, device=device)
            cache.layers = [(keys[kept], values[kept]) for keys, values in cache.layers]
            rows = [rows[slot] for slot in unfinished]
        latest = torch.tensor([[texts[row][-1]] for row in rows], device=device)
        positions = torch.tensor([[len(texts[row]) - 1] for row in rows], device=device)
        hidden = model.extend(latest, positions, cache)[:, 0]


def choose(scores: Scores, sampling: Sampling, draw: np.random.Generator, seen: Sequence[int] = ()) -> int:
    """One token from logits (vocabulary,); `seen` are the tokens before it, for the repetition penalty."""
    if sampling.repetition_penalty != 1.0 and len(seen):
        scores, before = scores.copy(), np.unique(seen)
        factor = np.where(scores[before] < 0, sampling.repetition_penalty, 1 / sampling.repetition_penalty)
        scores[before] *= factor
    if sampling.temperature == 0:
        return int(scores.argmax())
    order, mass = candidates(scores, sampling)
    reached = np.searchsorted(np.cumsum(mass), draw.random() * mass.sum(), side="right")
    return int(order[min(int(reached), len(mass) - 1)])


def candidates(scores: Scores, sampling: Sampling) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Scores]:
    """Tokens that may be drawn and their unnormalized probabilities; sorted, likeliest first, only where needed."""
    order = np.arange(len(scores))
    if sampling.top_k is not None and sampling.top_k < len(scores):
        order = np.sort(np.argpartition(-scores, sampling.top_k - 1)[: sampling.top_k])
    if sampling.top_p is not None:
        order = order[np.argsort(-scores[order], kind="stable")]
    scaled = scores[order] / sampling.temperature
    mass = np.exp(scaled - scaled.max())
    if sampling.top_p is not None:
        # the token that crosses the bound is kept, so there is at least one
        kept = int(np.searchsorted(np.cumsum(mass), sampling.top_p * mass.sum())) + 1
        order, mass = order[:kept], mass[:kept]
    if sampling.min_p is not None:
        likely = mass >= sampling.min_p * mass.max()
        order, mass = order[likely], mass[likely]
    return order, mass
