"""Sharded tensors and their parts: FSDP2 makes DTensors of parameters, and only this file tells them apart.

FSDP2 cuts a tensor's rows evenly, the last processes having fewer or none: process r of n has rows r * c to
(r + 1) * c, with c = ceil(rows / n).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor

from trainer.tensors import Tensors


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one, gathered by all processes together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def from_part(part: Tensor, like: Tensor) -> Tensor:
    """The sharded tensor whose part this is, sharded as `like`; the part itself where `like` is not sharded."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())


def place(tensor: Tensor) -> tuple[int, int] | None:
    """First row of this process's part and rows of the whole; None where a tensor is not sharded."""
    if not isinstance(tensor, DTensor):
        return None
    rows = tensor.shape[0]
    each = -(-rows // tensor.device_mesh.size())
    return min(tensor.device_mesh.get_local_rank() * each, rows), rows


def take(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A saved tensor, on the device of `like` and sharded as that is; of files only this process's rows are read."""
    if (found := place(like)) is None:
        return tensors[name].to(like.device)
    start, stop = found[0], found[0] + len(local_part(like))
    rows = tensors.rows(name, start, stop) if isinstance(tensors, Tensors) else tensors[name][start:stop]
    return from_part(rows.to(like.device), like)
