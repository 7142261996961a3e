"""Continue prompts with a trained model.

The prompts run as one batch over a key-value cache: one pass over the prompts, then one token a step for each. Every
sequence has its own random stream (seed, row), so a sample does not depend on what it is batched with. Sampling draws
on the CPU in float64, in the order temperature, top-k, top-p.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from trainer.checkpoint import load_newest
from trainer.config import ModelConfig
from trainer.errors import TrainerError
from trainer.files import sha256
from trainer.model import Cache, Transformer
from trainer.runtime import find_device


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 takes the likeliest; top_k and top_p keep that many, or that much mass."""

    max_tokens: int = 128
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises TrainerError for a value that means nothing."""
        allowed = {
            "max_tokens": (self.max_tokens > 0, "at least 1"),
            "temperature": (self.temperature >= 0, "0 (greedy) or more"),
            "top_k": (self.top_k is None or self.top_k > 0, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
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


def load_model(train_dir: Path, device: str = "cpu") -> tuple[Transformer, dict[str, Any]]:
    """The newest whole checkpoint of a training folder as a model in its training precision, and its state.json.

    Raises TrainerError where there is no checkpoint, or none that is whole.
    """
    checkpoint, damage = load_newest(train_dir / "checkpoints", optimizer=False)
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
) -> list[Completion]:
    """Continue each prompt with the newest checkpoint of a training folder.

    An empty prompt starts a new document. Raises TrainerError where checkpoint or tokenizer is missing or wrong, or a
    prompt leaves no room in the model's context.
    """
    sampling = sampling or Sampling()
    model, meta = load_model(train_dir, device)
    codec = load_tokenizer(train_dir, meta, tokenizer)
    eos = meta["eos_id"]
    encoded = [codec.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    for row, ids in enumerate(encoded):
        if not ids and eos is None:
            raise TrainerError("a prompt is empty, and without an end-of-document token there is nothing to start from")
        encoded[row] = ids or [eos]
    finished = continue_tokens(model, encoded, sampling, eos)
    return [
        Completion(prompt, codec.decode(tokens), len(tokens), finish)
        for prompt, (tokens, finish) in zip(prompts, finished, strict=True)
    ]


@torch.no_grad()
def continue_tokens(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, eos: int | None
) -> list[tuple[list[int], str]]:
    """Tokens after each (non-empty) prompt, without EOS, and why each stopped: eos, length or context."""
    context = model.config.context
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest >= context:
        raise TrainerError(f"a prompt has {longest} tokens; the model's context of {context} leaves no room after it")
    if not prompts:
        return []
    device = model.embed_tokens.weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    padded = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts], device=device)
    cache = Cache.empty(model, len(prompts), min(context, longest + sampling.max_tokens))
    hidden = model.extend(padded, torch.arange(longest, device=device).expand_as(padded), cache)
    hidden = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    draws = [np.random.default_rng([sampling.seed, row]) for row in range(len(prompts))]
    written: list[list[int]] = [[] for _ in prompts]
    finish: list[str | None] = [None] * len(prompts)
    while True:
        scores = model.logits(hidden).double().cpu().numpy()
        for row, tokens in enumerate(written):
            if finish[row] is not None:
                continue
            token = choose(scores[row], sampling, draws[row])
            if token == eos:
                finish[row] = "eos"
                continue
            tokens.append(token)
            if len(tokens) == sampling.max_tokens:
                finish[row] = "length"
            elif len(prompts[row]) + len(tokens) == context:
                finish[row] = "context"
        if all(finish):
            return [(tokens, reason or "") for tokens, reason in zip(written, finish, strict=True)]
        latest = torch.tensor([[tokens[-1] if tokens else 0] for tokens in written], device=device)
        places = torch.tensor([[len(p) + max(0, len(w) - 1)] for p, w in zip(prompts, written, strict=True)])
        hidden = model.extend(latest, places.to(device), cache)[:, 0]


def choose(scores: np.ndarray[Any, np.dtype[np.float64]], sampling: Sampling, draw: np.random.Generator) -> int:
    """One token from unnormalized log-probabilities (vocabulary,)."""
    if sampling.temperature == 0:
        return int(scores.argmax())
    order = np.argsort(-scores, kind="stable")[: sampling.top_k]
    scaled = scores[order] / sampling.temperature
    mass = np.exp(scaled - scaled[0])
    mass /= mass.sum()
    if sampling.top_p is not None:
        # the token that crosses the bound is kept, so at least one always is
        mass = mass[: int(np.searchsorted(np.cumsum(mass), sampling.top_p)) + 1]
    reached = np.searchsorted(np.cumsum(mass), draw.random() * mass.sum(), side="right")
    return int(order[min(int(reached), len(mass) - 1)])
