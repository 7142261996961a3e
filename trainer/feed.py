"""The micro-batches of a run's steps, read ahead and copied ahead to a GPU: this process's, in the sampler's order.

A thread reads the next step's samples while this one computes, finds where documents begin, and starts the copies, so
that training waits for storage only where that is slower, and never for a copy. Costs: one step's samples in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from common.errors import TrainerError
from trainer.attention import Documents, document_bounds
from trainer.cache import Prefetcher
from trainer.config import TrainConfig
from trainer.parallel import World
from trainer.sampler import Sampler, ramped_sizes
from trainer.shards import Samples, Shards

Part = tuple[Tensor, Tensor, Documents]  # tokens, targets, documents of a micro-batch


class Feed:
    """The micro-batches of a run; no state to save. Remote shards are fetched ahead as far as the cache allows."""

    def __init__(self, config: TrainConfig, shards: Shards, world: World, device: torch.device) -> None:
        """Raises TrainerError where a step has less than a sequence or its sequences cannot be shared evenly."""
        self.shards, self.world, self.device, self.steps = shards, world, device, config.steps
        self.micro_batch = config.micro_batch
        self.masked = config.document_mask and shards.has_documents
        self.uploads = Uploads(device) if device.type == "cuda" else None
        self.bounded = device.type == "cuda" and config.precision != "fp32"  # as `trainer.attention.within` does
        sequences = config.global_batch_tokens // shards.sequence_length
        if not sequences:
            raise TrainerError(
                f"global_batch_tokens is {config.global_batch_tokens}, less than one sequence of "
                f"{shards.sequence_length} tokens; a step needs at least one"
            )
        ramp = ramped_sizes(config.batch_ramp, sequences)
        for size in {*ramp, sequences}:
            if size % world.size:
                raise TrainerError(
                    f"a step's {size} sequences of {shards.sequence_length} tokens cannot be shared evenly by "
                    f"{world.size} processes; change global_batch_tokens ({config.global_batch_tokens})"
                )
        self.step_tokens = sequences * shards.sequence_length
        sets = [stream.data for stream in shards.train]
        sizes = [each.shard_sizes for each in sets]
        phases = shards.phases(config.steps)
        self.sampler = Sampler(sizes, phases, sequences, config.seed, config.data.shuffle_block, ramp)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self.ahead: tuple[int, Future[list[Part]]] | None = None  # the step that is being read
        self.prefetcher = Prefetcher(shards.cache, sets, self.sampler) if shards.remote else None

    def start(self, step: int) -> None:
        """Begin to fetch remote shards, from those of `step` on."""
        if self.prefetcher is not None:
            self.prefetcher.start(step)

    def parts(self, step: int) -> list[Part]:
        """The micro-batches of a step, on the device."""
        if self.prefetcher is not None:
            self.prefetcher.advance(step)
        ahead, self.ahead = self.ahead, None
        reading = ahead[1] if ahead and ahead[0] == step else self.thread.submit(self._read, step)
        parts = reading.result()
        if self.uploads is not None:
            self.uploads.receive()
        if step + 1 < self.steps:
            self.ahead = step + 1, self.thread.submit(self._read, step + 1)
        return parts

    def tokens_before(self, step: int) -> int:
        """Number of tokens of all steps before this one, over all processes."""
        return self.sampler.before(step) * self.shards.sequence_length

    def close(self) -> None:
        """Stop fetching, and wait for a read under way."""
        if self.prefetcher is not None:
            self.prefetcher.close()
        self.thread.shutdown(cancel_futures=True)

    def _read(self, step: int) -> list[Part]:
        drawn = self.sampler.batch(step)
        samples = self.shards.read(self.shards.train, drawn[self.world.rows(len(drawn))])
        starts = range(0, len(samples.tokens), self.micro_batch)
        return [self._part(samples[start : start + self.micro_batch]) for start in starts]

    def _part(self, samples: Samples) -> Part:
        send: Callable[[Tensor], Tensor] = self.uploads.send if self.uploads else lambda tensor: tensor
        documents: Documents = None
        if self.masked and samples.documents is not None:
            numbers = torch.from_numpy(samples.documents)
            bounds = document_bounds(numbers) if self.bounded else None
            documents = bounds._replace(offsets=send(bounds.offsets)) if bounds else send(numbers)
        return send(torch.from_numpy(samples.tokens)), send(torch.from_numpy(samples.targets)), documents


class Uploads:
    """Copies tensors from main memory to a GPU ahead of their use, on a stream of their own, from another thread."""

    def __init__(self, device: torch.device) -> None:
        self.stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.sent: list[Tensor] = []

    def send(self, tensor: Tensor) -> Tensor:
        """Start a copy of `tensor`; the result may be used after `receive`. Pinned memory, so nothing waits for it."""
        with torch.cuda.stream(self.stream):
            copy = tensor.pin_memory().to(self.stream.device, non_blocking=True)
        self.sent.append(copy)
        return copy

    def receive(self) -> None:
        """Let the present stream wait for all copies that were started; this thread does not wait."""
        present = torch.cuda.current_stream(self.stream.device)
        present.wait_stream(self.stream)
        for copy in self.sent:
            copy.record_stream(present)  # else its memory could serve the next copies while it is still read
        self.sent = []
