"""The plain peer of the training benchmarks has our size and starts as GPT-2 does."""

import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks.peers import PlainGPT
from trainer.config import PRESETS, parameter_count

SHAPE = PRESETS["tiny"].shape.model_copy(update={"vocab_size": 512, "context": 64})


@pytest.mark.parametrize("tied", [False, True])
def test_a_gpt2_of_our_size_that_knows_nothing_yet(tied: bool) -> None:
    torch.manual_seed(1)
    shape = SHAPE.model_copy(update={"tied": tied})
    model = PlainGPT(shape)
    model.initialize()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameter_count(shape), rel=0.02)
    tokens = torch.randint(0, 512, (2, 65))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(512), abs=0.1)
    assert model.blocks[0].down.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * shape.layers), rel=0.02)
