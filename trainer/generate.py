"""Continue prompts with a trained model.

The prompts run as one batch over a key-value cache: one pass over the prompts, then one token a step for each that is
not finished. Every sequence has its own random stream (seed, row), so a sample does not depend on what it is batched
with, up to the rounding of differently shaped matrix products. Choosing happens on the CPU in float64, in the order
and by the definitions of `transformers`: repetition penalty, temperature, top-k, top-p, min-p.

Costs: a token's pass reads every weight and the cache once, where generation without a cache would pass over the
whole text again. `benchmarks/generate.py` measures the difference.
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
from common.files import sha256
from trainer.checkpoint import load_newest, load_step
from trainer.config import ModelConfig
from trainer.machine import find_device
from trainer.model import Cache, Transformer

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
        """Raises TrainerError for a value that means nothing."""
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
    """A prompt and what the model wrote after it; `finish` says why it stopped: eos, length or context."""

    prompt: str
    text: str
    tokens: int
    finish: str


def load_model(train_dir: Path, device: str = "cpu", step: int | None = None) -> tuple[Transformer, dict[str, Any]]:
    """The newest whole checkpoint of a training folder as a model in its training precision, and its state.json.

    step: that checkpoint instead. Raises TrainerError where there is no checkpoint, or none that is whole.
    """
    folder, damage = train_dir / "checkpoints", list[str]()
    if step is None:
        checkpoint, damage = load_newest(folder)
    else:
        checkpoint = load_step(folder, step)
    if checkpoint is None:
        raise TrainerError(f"{train_dir} holds no checkpoint; train first, or give the folder of a training run")
    meta = checkpoint.state | {"warnings": damage}
    dtype = torch.bfloat16 if meta["settings"]["precision"] == "bf16" else torch.float32
    model = Transformer(ModelConfig(**meta["model"]), compute_dtype=dtype)
    model.load_weights(checkpoint.model)
    return model.to(find_device(device)), meta


def load_tokenizer(train_dir: Path, meta: dict[str, Any], path: Path | None = None) -> Tokenizer:
    """The run's tokenizer: `path`, by default the copy in its folder. Raises TrainerError where it is another's."""
    path = path or train_dir / "tokenizer.json"
    if not path.is_file():
        raise TrainerError(f"{path} does not exist; name the tokenizer.json that the shards were made with")
    expected = meta["identity"]["tokenizer"]
    if expected is not None and (found := sha256(path)) != expected:
        raise TrainerError(
            f"{path} is not the tokenizer that the model was trained with: its SHA-256 is {found}, expected {expected}"
        )
    tokenizer = Tokenizer.from_file(str(path))
    if tokenizer.get_vocab_size() > meta["model"]["vocab_size"]:
        raise TrainerError(
            f"{path} has {tokenizer.get_vocab_size()} tokens, but the model knows {meta['model']['vocab_size']}"
        )
    return tokenizer


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
    written; the pieces make up the completion's text. Raises TrainerError where checkpoint or tokenizer is missing or
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
    """Continue each prompt with a model at hand, which is left as it was; arguments and errors as in `generate`."""
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
            on_text(row, text[len(sent[row]) :])  # a character of which only the first bytes were written
    return [Completion(*parts) for parts in zip(prompts, texts, map(len, written), finishes, strict=True)]


def encode_prompts(prompts: Sequence[str], codec: Tokenizer, eos: int | None, context: int) -> list[list[int]]:
    """Token ids of each prompt, EOS for an empty one. Raises TrainerError where one leaves no room in the context."""
    encoded = [codec.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    for row, ids in enumerate(encoded):
        if not ids and eos is None:
            raise TrainerError("a prompt is empty, and without an end-of-document token there is nothing to start from")
        encoded[row] = ids or [eos]
        if len(ids) >= context:
            raise TrainerError(
                f"a prompt has {len(ids)} tokens; the model's context of {context} leaves no room after it"
            )
    return encoded


def continue_tokens(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, eos: int | None
) -> list[tuple[list[int], str]]:
    """Tokens after each (non-empty) prompt, without EOS, and why each stopped: eos, length or context."""
    written: list[list[int]] = [[] for _ in prompts]
    finishes = [""] * len(prompts)
    for row, token, finish in stream_tokens(model, prompts, sampling, eos):
        if token is not None:
            written[row].append(token)
        finishes[row] = finish or ""
    return list(zip(written, finishes, strict=True))


@torch.no_grad()
def stream_tokens(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, eos: int | None
) -> Iterator[tuple[int, int | None, str | None]]:
    """(prompt's number, token, None or why it ends) as tokens are written; the token is None where EOS ends it.

    The prompts are shorter than the model's context, and none is empty.
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
    rows = list(range(len(prompts)))  # those that are not finished, in the order of the cache
    while True:
        scores = model.logits(hidden).double().cpu().numpy()
        going = []
        for place, row in enumerate(rows):
            token = choose(scores[place], sampling, draws[row], texts[row])
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
                going.append(place)
        if not going:
            return
        if len(going) < len(rows):
            kept = torch.tensor(going, device=device)
            cache.layers = [(keys[kept], values[kept]) for keys, values in cache.layers]
            rows = [rows[place] for place in going]
        latest = torch.tensor([[texts[row][-1]] for row in rows], device=device)
        places = torch.tensor([[len(texts[row]) - 1] for row in rows], device=device)
        hidden = model.extend(latest, places, cache)[:, 0]


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
        # the token that crosses the bound is kept, so at least one always is
        kept = int(np.searchsorted(np.cumsum(mass), sampling.top_p * mass.sum())) + 1
        order, mass = order[:kept], mass[:kept]
    if sampling.min_p is not None:
        likely = mass >= sampling.min_p * mass.max()
        order, mass = order[likely], mass[likely]
    return order, mass
