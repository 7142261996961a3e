"""What a training folder holds: its checkpoint, as tensors or as a model, and its tokenizer.

Generation, scoring, tracing and the exports all read a run through this module. Hashes are checked; a sharded
checkpoint is read like one in a single file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from common.errors import TrainerError
from common.files import sha256
from trainer.checkpoint import Checkpoint, load_newest, load_step
from trainer.config import ModelConfig
from trainer.machine import find_device
from trainer.model import Transformer


@dataclass(frozen=True)
class Trained:
    """A checkpoint and its tokenizer. `weights` are named as in `trainer.model` and read when they are asked for;
    `state` is the content of the checkpoint's state.json."""

    shape: ModelConfig
    weights: Mapping[str, Tensor]
    weights_sha256: str
    tokenizer_file: Path
    tokenizer: Tokenizer
    eos_id: int | None
    step: int
    checkpoint: Path
    state: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def eos_token(self) -> str | None:
        """The text of the token that ends a document."""
        return None if self.eos_id is None else self.tokenizer.id_to_token(self.eos_id)


def load_checkpoint(train_dir: Path, step: int | None = None) -> tuple[Checkpoint, list[str]]:
    """The newest intact checkpoint of a training folder, or that of a step; and a message for each damaged newer one.

    Raises TrainerError where there is no checkpoint, or none that is intact.
    """
    folder = train_dir / "checkpoints"
    checkpoint, damage = load_newest(folder) if step is None else (load_step(folder, step), [])
    if checkpoint is None:
        raise TrainerError(f"{train_dir} holds no checkpoint; train first, or give the folder of a training run")
    return checkpoint, damage


def load_trained(train_dir: Path, tokenizer: Path | None = None) -> Trained:
    """The newest intact checkpoint of a training folder; `tokenizer`: by default the copy in that folder.

    No model is built. Raises TrainerError where checkpoint or tokenizer is missing, damaged or of another run.
    """
    checkpoint, damage = load_checkpoint(train_dir)
    state = checkpoint.state
    return Trained(
        shape=ModelConfig(**state["model"]),
        weights=checkpoint.model,
        weights_sha256=checkpoint.model_sha256,
        tokenizer_file=tokenizer or train_dir / "tokenizer.json",
        tokenizer=load_tokenizer(train_dir, state, tokenizer),
        eos_id=state["eos_id"],
        step=checkpoint.step,
        checkpoint=checkpoint.path,
        state=state,
        warnings=tuple(damage),
    )


def load_model(train_dir: Path, device: str = "cpu", step: int | None = None) -> tuple[Transformer, dict[str, Any]]:
    """A checkpoint as a model in its training precision, and its state.json with `warnings` of damaged newer ones.

    step: default the newest intact one. Raises TrainerError as `load_checkpoint`.
    """
    checkpoint, damage = load_checkpoint(train_dir, step)
    state = checkpoint.state | {"warnings": damage}
    dtype = torch.bfloat16 if state["settings"]["precision"] == "bf16" else torch.float32
    model = Transformer(ModelConfig(**state["model"]), compute_dtype=dtype)
    model.load_weights(checkpoint.model)
    return model.to(find_device(device)), state


def load_tokenizer(train_dir: Path, state: dict[str, Any], path: Path | None = None) -> Tokenizer:
    """The run's tokenizer: `path`, by default the copy in its folder. Raises TrainerError for another run's."""
    path = path or train_dir / "tokenizer.json"
    if not path.is_file():
        raise TrainerError(f"{path} does not exist; name the tokenizer.json that the shards were made with")
    expected = state["identity"]["tokenizer"]
    if expected is not None and (actual := sha256(path)) != expected:
        raise TrainerError(
            f"{path} is not the tokenizer that the model was trained with: its SHA-256 is {actual}, expected {expected}"
        )
    tokenizer = Tokenizer.from_file(str(path))
    if tokenizer.get_vocab_size() > state["model"]["vocab_size"]:
        raise TrainerError(
            f"{path} has {tokenizer.get_vocab_size()} tokens, but the model knows {state['model']['vocab_size']}"
        )
    return tokenizer
