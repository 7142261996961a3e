"""Data parallelism: one run in several processes, started by `torchrun`.

Every process has the same samplers and takes its rows of each step's batch, so any number of processes trains on the
same samples in the same steps. `ddp` holds the full model in each and averages gradients while backward runs
(DistributedDataParallel); `fsdp` shards weights, gradients and optimizer state over the processes and gathers one
block at a time (FSDP2's `fully_shard`). Communication is NCCL between GPUs, gloo between CPUs.

A process that dies ends the job: torchrun stops the others and prints its error, or with `--max-restarts` starts all of
them again, which go on from the last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
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
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from common.errors import TrainerError
from common.files import locked
from trainer.model import Transformer

Losses = Callable[..., tuple[Tensor, Tensor]]
T = TypeVar("T")
POLL = 0.02  # seconds between two looks into the store, between which signals are answered


@dataclass(frozen=True)
class World:
    """The processes of a run, and this one's rank. Without a mesh there is only this process."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    side: dist.ProcessGroup | None = None  # for `gather`, which background threads call too

    @classmethod
    def join(cls, device: torch.device) -> World:
        """The world that torchrun's environment describes; starts the process group."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
            store, rank, _ = next(rendezvous("env://"))
            own = dist.PrefixStore(meet(store, rank, size), store)  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=own, rank=rank, world_size=size)
        mesh = init_device_mesh(device.type, (size,), mesh_dim_names=("data",))
        return cls(dist.get_rank(), size, mesh, cast(dist.ProcessGroup, dist.new_group(backend="gloo")))

    @property
    def main(self) -> bool:
        """Whether this is the main process, which writes files and reports progress."""
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
        """Whether `flag` is true in any process."""
        return bool(self.total(torch.tensor(int(flag))))

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank. Raises ConnectionError where a process is gone."""
        if self.mesh is None:
            return [value]
        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value, self.side)
        except RuntimeError as error:
            raise ConnectionError(f"another process of the run is gone ({error})") from error
        return values

    def from_main(self, work: Callable[[], T]) -> T:
        """The result of `work`, run in the main process only; its TrainerError is raised in all."""
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
        self.agree(False)

    def leave(self) -> None:
        if self.mesh is not None:
            dist.destroy_process_group()


ALONE = World()


def meet(store: Any, rank: int, size: int) -> str:
    """A name that the processes of this start have in common and no earlier start had.

    store: the `torch.distributed.Store` of all. torchrun keeps it over its restarts, and a restarted process that is
    faster than another reads there at which address that other one's predecessor listened, and cannot connect, however
    often it is started again (docs/log.md, 2026-11-27). So each process asks under a name of its own, and the first
    answers the names that it finds until every process has said that its answer came.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"ask/{rank}", mine)
        while not store.check([f"answer/{mine}"]):
            time.sleep(POLL)
        name: str = store.get(f"answer/{mine}").decode()
        store.set(f"came/{name}/{rank}", "")
        return name
    missing = set(range(1, size))
    while missing:
        missing = {each for each in missing if not store.check([f"came/{mine}/{each}"])}
        for each in missing:
            if store.check([f"ask/{each}"]):
                store.set(f"answer/{store.get(f'ask/{each}').decode()}", mine)
        time.sleep(POLL)
    return mine


class _Objective(nn.Module):
    """A module whose forward pass is the loss, because DistributedDataParallel hooks into forward passes."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, *parts: Any, **settings: Any) -> tuple[Tensor, Tensor]:
        return self.model.losses(*parts, **settings)


def distribute(model: Transformer, world: World, kind: str) -> Losses:
    """Average the model's gradients over all processes; call the returned function in place of `model.losses`.

    `fsdp` turns the parameters into DTensors in place: create the optimizer afterwards.
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
    """Say whether the next backward pass exchanges gradients: only the last micro-batch of a step has to."""
    if isinstance(losses, DistributedDataParallel):
        losses.require_backward_grad_sync = wanted
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)


@contextmanager
def own_folder(world: World, output: Path) -> Iterator[Path]:
    """Where this process writes: the main one to `output`, locked; the others to a temporary folder.

    So a run is the same code in every process. The others start with a copy of the main one's ledger.
    """
    if world.main:
        with locked(output, "give this run another `--output`"):
            yield output
        return
    with tempfile.TemporaryDirectory() as folder:
        if (ledger := output / "ledger.json").is_file():
            shutil.copy(ledger, folder)
        yield Path(folder)
