"""What the trainer's tests share: one small shards folder, a model of 35,000 parameters, an observer that records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.observe import Observer
from tests.trainer.corpus import prose_shards
from trainer.config import ModelConfig, TrainConfig
from trainer.generate import Sampling, stream_tokens
from trainer.model import Transformer

SMALL = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, and slower still beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training streams and a held-out one, sequences of 32 bytes. Read only: damage copies."""
    return prose_shards(tmp_path_factory.mktemp("prose") / "shards")


def small_model(**fields: Any) -> ModelConfig:
    return ModelConfig(**{**SMALL, "vocab_size": 61, "context": 16} | fields)


def small_run(**fields: Any) -> TrainConfig:
    """Twelve steps of eight sequences in micro-batches of three, with everything in between."""
    defaults: dict[str, Any] = {
        "model": SMALL | {"embedding_deviation": SMALL["width"] ** -0.5},
        "optimizer": {"lr": 3e-3, "muon_lr": 3e-3},
        "steps": 12,
        "global_batch_tokens": 256,
        "micro_batch": 3,
        "compile": False,
        "device": "cpu",
        "precision": "fp32",
        "log_every": 3,
        "schedule": {"warmup": 2, "decay": 0.2, "floor": 0.1},
        "checkpoint": {"every": 4, "keep_last": 2},
        "evaluation": {"every": 5, "batches": 2},
    }
    return TrainConfig(**defaults | fields)


def continue_tokens(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, eos: int | None
) -> list[tuple[list[int], str]]:
    """Tokens after each prompt, without EOS, and why each stopped: eos, length or context."""
    written: list[list[int]] = [[] for _ in prompts]
    finishes = [""] * len(prompts)
    for row, token, finish in stream_tokens(model, prompts, sampling, () if eos is None else (eos,)):
        if token is not None:
            written[row].append(token)
        finishes[row] = finish or ""
    return list(zip(written, finishes, strict=True))


class Recorder(Observer):
    """Remembers what a run said; `die_at` raises once that step was logged, as a crash would."""

    def __init__(self, die_at: int | None = None) -> None:
        self.die_at = die_at
        self.info: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.resumes: list[int] = []

    def training_started(self, info: dict[str, Any]) -> None:
        self.info.append(info)

    def resumed(self, step: int) -> None:
        self.resumes.append(step)

    def step(self, record: dict[str, Any]) -> None:
        self.rows.append(record)
        if record["step"] == self.die_at:
            raise Crash

    def warning(self, message: str) -> None:
        self.warnings.append(message)


class Crash(Exception):
    """Not a TrainerError: nothing in the trainer may catch it."""
