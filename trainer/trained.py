"""What a training folder holds: its checkpoint, as tensors or as a model, and its tokenizer.

Generation, scoring, tracing and the exports all read a run through this module. Hashes are checked; a sharded
checkpoint is read like one in a single file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from common.errors import TrainerError
from common.files import sha256
from trainer.checkpoint import Checkpoint, best_step, load_newest, load_step
from trainer.config import ModelConfig, TrainConfig, continued_shape
from trainer.machine import find_device
from trainer.model import Transformer
from trainer.vocabulary import Special, load_codec, vocabulary_size


@dataclass(frozen=True)
class Trained:
    """A checkpoint and its tokenizer. `weights` are named as in `trainer.model` and read when they are asked for;
    `state` is the content of the checkpoint's state.json."""

    shape: ModelConfig
    weights: Mapping[str, Tensor]
    weights_sha256: str
    tokenizer_file: Path
    tokenizer: Tokenizer
    special: Special
    step: int
    checkpoint: Path
    state: dict[str, Any]
    warnings: tuple[str, ...]

    def text_of(self, token: int | None) -> str | None:
        return None if token is None else self.tokenizer.id_to_token(token)


def load_checkpoint(train_dir: Path, step: int | str | None = None) -> tuple[Checkpoint, list[str]]:
    """The newest intact checkpoint of a training folder, or that of a step; and a message for each damaged newer one.

    step: a number, `best` (by held-out loss), `last` or None. Raises TrainerError where there is no checkpoint, or none
    that is intact.
    """
    folder = train_dir / "checkpoints"
    if step == "best" and (step := best_step(folder)) is None:
        raise TrainerError(f"{folder}: no checkpoint has a held-out loss of its own step, so none is the best")
    newest = step in (None, "last")
    checkpoint, damage = load_newest(folder) if newest else (load_step(folder, _number(step)), [])
    if checkpoint is None:
        raise TrainerError(f"{train_dir} holds no checkpoint; train first, or give the folder of a training run")
    return checkpoint, damage


def _number(step: int | str | None) -> int:
    try:
        return int(str(step))
    except ValueError:
        raise TrainerError(f"--step: got {step!r}; expected a number, `best` or `last`") from None


def load_trained(
    train_dir: Path, tokenizer: Path | None = None, step: int | str | None = None, eos: str | None = None
) -> Trained:
    """A checkpoint of a training folder (`load_checkpoint`); `tokenizer`: by default the copy in that folder.

    eos: the token that ends documents, where checkpoint and tokenizer do not tell. No model is built. Raises
    TrainerError where checkpoint or tokenizer is missing, damaged or of another run.
    """
    checkpoint, damage = load_checkpoint(train_dir, step)
    state = checkpoint.state
    codec, special = load_tokenizer(train_dir, state, tokenizer, eos)
    return Trained(
        shape=ModelConfig(**state["model"]),
        weights=checkpoint.model,
        weights_sha256=checkpoint.model_sha256,
        tokenizer_file=tokenizer or train_dir / "tokenizer.json",
        tokenizer=codec,
        special=special,
        step=checkpoint.step,
        checkpoint=checkpoint.path,
        state=state,
        warnings=tuple(damage),
    )


def load_model(
    train_dir: Path, device: str = "cpu", step: int | str | None = None
) -> tuple[Transformer, dict[str, Any]]:
    """A checkpoint as a model in its training precision, and its state.json with `warnings` of damaged newer ones.

    Raises TrainerError as `load_checkpoint`.
    """
    checkpoint, damage = load_checkpoint(train_dir, step)
    state = checkpoint.state | {"warnings": damage}
    dtype = torch.bfloat16 if state["settings"]["precision"] == "bf16" else torch.float32
    model = Transformer(ModelConfig(**state["model"]), compute_dtype=dtype)
    model.load_weights(checkpoint.model)
    return model.to(find_device(device)), state


def load_tokenizer(
    train_dir: Path, state: dict[str, Any], path: Path | None = None, eos: str | None = None
) -> tuple[Tokenizer, Special]:
    """The run's tokenizer: `path`, by default the copy in its folder; and its special tokens (eos: as `load_trained`).

    Raises TrainerError for another run's tokenizer.
    """
    if path is None and not (train_dir / "tokenizer.json").is_file():
        raise TrainerError(
            f"{train_dir / 'tokenizer.json'} does not exist; name the tokenizer.json that the shards were made with: "
            "`--tokenizer FILE`"
        )
    path = path or train_dir / "tokenizer.json"
    codec = load_codec(path)
    expected = state["identity"]["tokenizer"]
    if expected is not None and (actual := sha256(path)) != expected:
        raise TrainerError(
            f"{path} is not the tokenizer that the model was trained with: its SHA-256 is {actual}, expected {expected}"
        )
    if (size := vocabulary_size(codec)) > state["model"]["vocab_size"]:
        raise TrainerError(f"{path} has ids up to {size - 1}, but the model knows {state['model']['vocab_size']}")
    return codec, Special.of(state, codec, path, eos)


def load_initial(config: TrainConfig, tokenizer: Path | None, context: int, special: Special) -> Trained:
    """The model of `train.initial` in the shape of this training; its weights take the place of random ones.

    tokenizer, context, special: those of the shards; what the shards do not say of special tokens, the given model
    says. Raises TrainerError where the folder holds no model, the shards were made with another tokenizer, or the
    recipe asks for another shape.
    """
    given = load_trained(Path(str(config.initial)))
    if tokenizer is None or load_codec(tokenizer).to_str() != given.tokenizer.to_str():
        raise TrainerError(
            f"train.initial: {config.initial} has another tokenizer than the shards; build them with "
            f"`tokenize.tokenizer.path: {given.tokenizer_file}`"
        )
    shape, theirs = continued_shape(config, given.shape, context), given.special
    merged = replace(
        theirs,
        bos=theirs.bos if special.bos is None else special.bos,
        eos=tuple(dict.fromkeys([*special.eos, *theirs.eos])),
        prefix=special.prefix,
    )
    hint = (
        f"train.initial: the shards' sequences of {context} tokens are longer than the given model's context of "
        f"{given.shape.context}; `model.rope_scaling` is not changed for it"
    )
    longer = context > given.shape.context and shape.rope_scaling == given.shape.rope_scaling
    return replace(given, shape=shape, special=merged, warnings=(hint,) if longer else ())
