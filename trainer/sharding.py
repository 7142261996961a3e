"""Sharded tensors and their parts: FSDP2 makes DTensors of parameters, and only this file tells them apart."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one, gathered by all processes together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A full tensor placed and sharded as `like` is."""
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor.to(like.device)


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def from_part(part: Tensor, like: Tensor) -> Tensor:
    """The sharded tensor whose part this is, sharded as `like`; the part itself where `like` is not sharded."""
    return DTensor.from_local(part, like.device_mesh, like.placements) if isinstance(like, DTensor) else part
