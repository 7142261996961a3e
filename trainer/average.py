"""Exponential moving average of the weights: a steadier model for evaluation, generation and export.

Costs one fp32 copy of the weights and one pass over them a step. A checkpoint's model.safetensors then holds the
average, so that whatever reads it gets that; the weights that training goes on from stand beside the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.model import Transformer
from trainer.sharding import local_part, take
from trainer.tensors import Tensors

PREFIX = "weights."


class Average:
    """The average of a model's weights over its steps, `decay` of it kept at each."""

    def __init__(self, model: Transformer, decay: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.decay = decay
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of one more step."""
        averages, weights = ([local_part(each) for each in of.values()] for of in (self.values, self.parameters))
        torch._foreach_lerp_(averages, weights, 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with its average for weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name] = kept

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a saved average."""
        for name, value in self.values.items():
            value.copy_(take(tensors, name, value))


def training_weights(model: Tensors, optimizer: Tensors) -> Tensors:
    """The weights that a checkpoint's training goes on from: beside the optimizer's state where there is an average."""
    return optimizer.under(PREFIX) or model
