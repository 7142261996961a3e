"""What every export reads of a training folder: shape, weights, tokenizer. And how an export is published.

Exports are converted from the checkpoint's files alone; no model is built. A sharded checkpoint
is read as a whole one is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from common.errors import TrainerError
from common.files import sync
from trainer.checkpoint import load_newest
from trainer.config import ModelConfig
from trainer.generate import load_tokenizer


@dataclass(frozen=True)
class Trained:
    """A checkpoint and its tokenizer. `weights` are named as in `trainer.model` and read when they are asked for;
    `state` is that of the checkpoint, whose folder is `checkpoint`."""

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
        """The token that ends a document, spelt out."""
        return None if self.eos_id is None else self.tokenizer.id_to_token(self.eos_id)


def load_trained(train_dir: Path, tokenizer: Path | None = None) -> Trained:
    """The newest whole checkpoint of a training folder; `tokenizer`: by default the copy in that folder.

    Raises TrainerError where checkpoint or tokenizer is missing, damaged or another's.
    """
    checkpoint, damage = load_newest(train_dir / "checkpoints")
    if checkpoint is None:
        raise TrainerError(f"{train_dir} holds no checkpoint; train first, or give the folder of a training run")
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


@contextmanager
def published(place: Path) -> Iterator[Path]:
    """A path beside `place` to fill with a file or folder, renamed to `place` at the end of the `with` block.

    What stood there is replaced only then; an error leaves it as it was.
    """
    building = place.with_name(f".{place.name}.partial")
    _remove(building)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield building
        for path in [building, *building.rglob("*")]:
            sync(path)
        if place.is_dir():
            _remove(place)
        building.replace(place)
        sync(place.parent)
    finally:
        _remove(building)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
