"""Several processes, one run: what `torchrun` starts, as data parallelism.

Every process holds the same samplers and takes its rows of each step's batch, so any number of them trains on the same
samples in the same steps. `ddp` keeps the model whole on each and averages gradients while backward runs
(DistributedDataParallel); `fsdp` shards weights, gradients and optimizer state over the processes and gathers one block
at a time (FSDP2's `fully_shard`). Communication is NCCL between GPUs, gloo between CPUs.

A process that dies takes the job with it: torchrun stops the others and prints its error.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from common.errors import TrainerError
from common.files import locked
from trainer.model import Transformer

Losses = Callable[..., tuple[Tensor, Tensor]]
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run and this one's place among them. Without a mesh there is this process alone."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    side: dist.ProcessGroup | None = None  # over which values travel, also from a thread beside the training

    @classmethod
    def join(cls, device: torch.device) -> World:
        """The world that torchrun's environment describes; the process group is started where there is none yet."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo")
        mesh = init_device_mesh(device.type, (size,), mesh_dim_names=("data",))
        return cls(dist.get_rank(), size, mesh, cast(dist.ProcessGroup, dist.new_group(backend="gloo")))

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's share of `count` rows, which `size` divides."""
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.mesh is not None:
            dist.all_reduce(tensor)
        return tensor

    def agree(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.total(torch.tensor(int(flag))))

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of their ranks. Raises ConnectionError where a process is gone."""
        if self.mesh is None:
            return [value]
        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value, self.side)
        except RuntimeError as error:
            raise ConnectionError(f"another process of the run is gone ({error})") from error
        return values

    def from_main(self, work: Callable[[], T]) -> T:
        """What `work` gives in the main process, which alone runs it; its TrainerError is raised in all."""
        result, problem = None, None
        if self.main:
            try:
                result = work()
            except TrainerError as error:
                problem = str(error)
        result, problem = self.gather((result, problem))[0]
        if problem is not None:
            raise TrainerError(problem)
        return cast(T, result)

    def barrier(self) -> None:
        """Wait for all."""
        self.agree(False)

    def leave(self) -> None:
        """End the process group."""
        if self.mesh is not None:
            dist.destroy_process_group()


ALONE = World()


class _Objective(nn.Module):
    """The module whose forward pass is the loss, which is what DistributedDataParallel hooks into."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, *parts: Any, **settings: Any) -> tuple[Tensor, Tensor]:
        return self.model.losses(*parts, **settings)


def distribute(model: Transformer, world: World, kind: str) -> Losses:
    """Make the model's gradients those of all processes; returns what to call in place of `model.losses`.

    With `fsdp` the parameters become DTensors, in place: make the optimizer afterwards.
    """
    if world.mesh is None:
        return model.losses
    if kind == "ddp":
        return DistributedDataParallel(_Objective(model), broadcast_buffers=False, gradient_as_bucket_view=True)
    policy = MixedPrecisionPolicy(model.compute_dtype, torch.float32, cast_forward_inputs=False)
    for block in (*model.layers, model):
        fully_shard(block, mesh=world.mesh, mp_policy=policy)
    for method in ("losses", "extend", "logits"):
        register_fsdp_forward_method(model, method)
    return model.losses


def set_gradient_sync(losses: Losses, model: Transformer, wanted: bool) -> None:
    """Whether the next backward pass exchanges gradients: only the last micro-batch of a step has to."""
    if isinstance(losses, DistributedDataParallel):
        losses.require_backward_grad_sync = wanted
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)


@contextmanager
def own_folder(world: World, output: Path) -> Iterator[Path]:
    """Where this process writes: `output`, locked, for the main one; a temporary folder, soon gone, for the others.

    So a run is the same code in every process. The others start from the ledger that the main one has.
    """
    if world.main:
        with locked(output, "give this run another `--output`"):
            yield output
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if (ledger := output / "ledger.json").is_file():
            shutil.copy(ledger, place)
        yield place
