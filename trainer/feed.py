"""What a run trains on, step by step: this process's share of each step's samples, read while the step before computes.

The order is the sampler's, a function of (seed, step); nothing of it is saved. Shards of a remote folder are fetched
ahead as far as the cache allows.
"""

from __future__ import annotations

import torch

from trainer.ahead import ReadAhead
from trainer.config import TrainConfig
from trainer.errors import TrainerError
from trainer.parallel import World
from trainer.sampler import Sampler
from trainer.schedule import ramped_sizes
from trainer.shards import Samples, Shards
from trainer.step import Part


class Feed:
    """The batches of a run."""

    def __init__(self, config: TrainConfig, shards: Shards, world: World, device: torch.device) -> None:
        """Raises TrainerError where a step's tokens are no sequence, or cannot be shared evenly by the processes."""
        self.shards, self.world, self.device = shards, world, device
        self.micro_batch = config.micro_batch
        self.masked = config.document_mask and shards.has_documents
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
        sizes = [stream.data.shard_sizes for stream in shards.train]
        phases = shards.phases(config.steps)
        self.sampler = Sampler(sizes, phases, sequences, config.seed, config.data.shuffle_block, ramp)
        self.ahead = ReadAhead(self._read, config.steps)
        self.prefetcher = shards.prefetcher(self.sampler) if shards.remote else None

    def start(self, step: int) -> None:
        """Begin to fetch remote shards, from those of `step` on."""
        if self.prefetcher is not None:
            self.prefetcher.start(step)

    def parts(self, step: int) -> list[Part]:
        """The micro-batches of a step, on the device, once they are there."""
        if self.prefetcher is not None:
            self.prefetcher.advance(step)
        batch = self.ahead.batch(step)
        starts = range(0, len(batch.tokens), self.micro_batch)
        return [batch[at : at + self.micro_batch].tensors(self.device, self.masked) for at in starts]

    def tokens_before(self, step: int) -> int:
        """Tokens of all steps before this one, over all processes."""
        return self.sampler.before(step) * self.shards.sequence_length

    def close(self) -> None:
        """Stop fetching, and let a read under way come to its end."""
        if self.prefetcher is not None:
            self.prefetcher.close()
        self.ahead.close()

    def _read(self, step: int) -> Samples:
        drawn = self.sampler.batch(step)
        return self.shards.read(self.shards.train, drawn[self.world.rows(len(drawn))])
