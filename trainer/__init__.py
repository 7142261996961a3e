"""Train a base model on prepared MDS shards (docs/format.md). Importing this package does not import torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import ModelConfig, TrainConfig
    from trainer.loop import train
    from trainer.model import Transformer
    from trainer.sampler import Phase, Sampler
    from trainer.shards import Shards, open_shards
    from trainer.trained import Trained, load_trained

__all__ = [
    "ModelConfig", "Phase", "Sampler", "Shards", "TrainConfig", "Trained", "Transformer", "load_trained", "open_shards",
    "train",
]  # fmt: skip
_MODULES = {
    "ModelConfig": "config", "Phase": "sampler", "Sampler": "sampler", "Shards": "shards", "TrainConfig": "config",
    "Trained": "trained", "Transformer": "model", "load_trained": "trained", "open_shards": "shards", "train": "loop",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"trainer.{_MODULES[name]}"), name)
