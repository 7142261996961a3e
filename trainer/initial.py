"""Training that starts from given weights instead of random ones: `train.initial`, a folder of `pretrain import`.

The shape is the given model's; only the context is that of the shards. The tokenizer must be the one that the weights
were trained with, or the embeddings would mean other text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from common.errors import TrainerError
from trainer.config import ModelConfig
from trainer.shards import Shards
from trainer.trained import load_trained


def load_initial(folder: Path, shards: Shards) -> tuple[ModelConfig, Mapping[str, Tensor], str]:
    """Shape and weights to start from, and the SHA-256 of their file, by which a resumed run knows them.

    Raises TrainerError where the folder holds no model, or the shards were made with another tokenizer.
    """
    given = load_trained(folder)
    if shards.tokenizer is None or Tokenizer.from_file(str(shards.tokenizer)).to_str() != given.tokenizer.to_str():
        raise TrainerError(
            f"train.initial: {folder} has another tokenizer than the shards; build them with "
            f"`tokenize.tokenizer.path: {given.tokenizer_file}`"
        )
    shape = given.shape.model_copy(update={"context": shards.sequence_length})
    return shape, given.weights, given.weights_sha256
