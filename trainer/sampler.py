"""The samples that a step trains on: a pure function of (seed, step), with nothing to save and O(1) to jump to.

Draws are numbered 0, 1, 2, ... over the run; step s takes draws s * batch to (s + 1) * batch - 1. A draw becomes a
(stream, sample) pair in three steps:

1. *Stream*: each phase of the run has a fixed cycle of up to 65,536 slots over which the streams are spread evenly
   (slot j of a stream with q slots is at (j + 1/2) / q of the cycle), so every window holds each stream's share to
   within a slot or so, also for small streams. The cycle also gives the number of earlier draws of that stream, hence
   its epoch and its position in the epoch.
2. *Block*: the epoch's positions are cut into blocks of equal size, and a keyed permutation (a Feistel network with
   cycle walking; Black and Rogaway 2002) shuffles the positions within each block.
3. *Shard*: the epoch's key orders the stream's shards; the shuffled position counts along them. So a block holds the
   samples of a few shards from anywhere in the stream, and a shard is read during one block (two, where it crosses
   their border) and then not again in that epoch.

Each sample comes exactly once per epoch of its stream, in an order that every epoch shuffles anew. A stream that is
no larger than a block is shuffled perfectly.

Costs: O(batch) numpy work per step, whatever the number of samples. Memory and the first step of an epoch: tables
of at most 65,536 entries per stream (more shards than that are shuffled in runs of neighbours). Ranks and
micro-batches slice the batch afterwards, so every world size trains on the same samples in the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from common.errors import TrainerError

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
CYCLE = 1 << 16  # most slots of a phase's cycle
RUNS = 1 << 16  # most entries of a stream's table of shards
BLOCK = 1 << 16  # samples that are shuffled together
ROUNDS = 6  # of the Feistel network


@dataclass(frozen=True)
class Phase:
    """From step `start` on, `weights[i]` multiplies stream i's share of all samples; 0 leaves it out."""

    start: int
    weights: Sequence[float]


class Sampler:
    """The data order of one run."""

    def __init__(
        self, shards: Sequence[Sequence[int] | Ints], phases: Sequence[Phase], batch_size: int, seed: int,
        block: int = BLOCK, ramp: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """shards: for each stream, the number of samples of each of its shards in storage order; phases: by start,
        from 0 on; block: samples that are shuffled together; ramp: batch sizes of the first steps, where they differ
        from `batch_size`. A stream of weight 2 is read at twice its share by size, so its epochs pass twice as fast.
        Raises TrainerError for an empty stream, a phase whose weights cannot be mixed, or too many streams.
        """
        self.streams = [_Stream(sizes, seed, number, block) for number, sizes in enumerate(shards)]
        sizes = np.array([stream.size for stream in self.streams], np.int64)
        _check(sizes, phases)
        self.batch_size = batch_size
        self.ramp = np.concatenate(([0], np.cumsum(np.array(ramp, np.int64))))
        self.starts = np.array([self.before(phase.start) for phase in phases], np.int64)
        self.cycles: list[_Cycle] = []
        drawn = np.zeros(len(sizes), np.int64)
        for number, phase in enumerate(phases):
            self.cycles.append(_Cycle(sizes, phase.weights, drawn))
            if number + 1 < len(phases):
                drawn = self.cycles[-1].drawn_after(int(self.starts[number + 1] - self.starts[number]))

    def before(self, step: int) -> int:
        """Draws of all steps before this one."""
        ramped = min(step, len(self.ramp) - 1)
        return int(self.ramp[ramped]) + (step - ramped) * self.batch_size

    def batch(self, step: int) -> Ints:
        """(stream, sample) of each of the step's draws: (batch size of the step, 2) int64."""
        return self.draws(step)[:, :2]

    def draws(self, step: int, steps: int = 1) -> Ints:
        """(stream, sample, epoch of the stream) of each draw of `steps` steps from this one on: (draws, 3) int64."""
        draws = np.arange(self.before(step), self.before(step + steps), dtype=np.int64)
        phases = np.searchsorted(self.starts, draws, side="right") - 1
        batch: Ints = np.empty((len(draws), 3), np.int64)
        for phase in np.unique(phases).tolist():
            rows = np.flatnonzero(phases == phase)
            streams, counts = self.cycles[phase].locate(draws[rows] - self.starts[phase])
            batch[rows, 0] = streams
            for stream in np.unique(streams).tolist():
                chosen = streams == stream
                batch[rows[chosen], 1] = self.streams[stream].samples(counts[chosen])
                batch[rows[chosen], 2] = counts[chosen] // self.streams[stream].size
        return batch

    def steps_of(self, stream: int, sample: int, end: int) -> list[int]:
        """The steps below `end`, ascending, whose batches hold this sample: one or none in each of its epochs."""
        steps = set()
        for phase, cycle in enumerate(self.cycles):
            first, last = self.starts[phase], self.before(end)
            if phase + 1 < len(self.starts):
                last = min(last, self.starts[phase + 1])
            counts = cycle.counts(stream, int(last - first)) if last > first else range(0)
            of = self.streams[stream]
            for epoch in range(counts.start // of.size, -(-counts.stop // of.size)):
                count = epoch * of.size + of.position(sample, epoch)
                if count in counts:
                    steps.add(self._step(int(first + cycle.draw(stream, count))))
        return sorted(steps)

    def _step(self, draw: int) -> int:
        ramped = len(self.ramp) - 1
        if draw < self.ramp[-1]:
            return int(np.searchsorted(self.ramp, draw, side="right")) - 1
        return ramped + (draw - int(self.ramp[-1])) // self.batch_size


class _Cycle:
    """The mixture of one phase: the stream of each draw, and the number of that stream's earlier draws."""

    def __init__(self, sizes: Ints, weights: Sequence[float], drawn: Ints) -> None:
        total = int(sizes.sum())
        is_epoch = len(set(weights)) == 1 and total <= CYCLE  # one cycle is then one epoch of every stream
        self.slots = sizes if is_epoch else quotas(np.multiply(sizes, weights, dtype=np.float64), CYCLE)
        self.stream, self.before = interleave(self.slots)
        self.drawn = drawn

    def locate(self, draws: Ints) -> tuple[Ints, Ints]:
        """Stream of each draw (counted from the phase's start) and that stream's draws before it in the whole run."""
        turn, slot = divmod(draws, len(self.stream))
        stream = self.stream[slot]
        return stream, self.drawn[stream] + turn * self.slots[stream] + self.before[slot]

    def counts(self, stream: int, draws: int) -> range:
        """Numbers of a stream's draws, counted over the whole run, among the first `draws` of this phase."""
        return range(int(self.drawn[stream]), int(self.drawn_after(draws)[stream]))

    def draw(self, stream: int, count: int) -> int:
        """The draw (counted from the phase's start) that is a stream's draw number `count`: `locate` turned round."""
        turn, before = divmod(count - int(self.drawn[stream]), int(self.slots[stream]))
        return turn * len(self.stream) + int(np.flatnonzero(self.stream == stream)[before])

    def drawn_after(self, draws: int) -> Ints:
        """Draws of each stream in the whole run once this phase has made `draws`."""
        turns, rest = divmod(draws, len(self.stream))
        counts: Ints = self.drawn + turns * self.slots + np.bincount(self.stream[:rest], minlength=len(self.slots))
        return counts


class _Stream:
    def __init__(self, shards: Sequence[int] | Ints, seed: int, number: int, block: int) -> None:
        sizes = np.asarray(shards, np.int64)
        together = max(1, -(-len(sizes) // RUNS))
        starts = np.concatenate(([0], np.cumsum(sizes)))
        self.starts = starts[:-1:together]
        self.size = int(starts[-1])
        self.sizes = np.diff(np.append(self.starts, self.size))
        self.key = mix(mix(np.uint64(seed)) ^ np.uint64(number))
        self.block = -(-self.size // max(1, -(-self.size // block)))  # blocks of equal size, none larger than `block`
        self.table = lru_cache(maxsize=2)(self._table)  # a batch may lie across an epoch's end

    def samples(self, counts: Ints) -> Ints:
        """The samples of this stream's draws number `counts`."""
        epochs, positions = np.divmod(counts, self.size)
        samples = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            key, ends, shift = self.table(epoch)
            blocks, inside = np.divmod(positions[rows], self.block)
            sizes = np.minimum(self.block, self.size - blocks * self.block)
            shuffled = blocks * self.block + permute(inside, sizes, mix(key ^ (blocks + 1).astype(np.uint64)))
            samples[rows] = shuffled + shift[np.searchsorted(ends, shuffled, side="right")]
        return samples

    def position(self, sample: int, epoch: int) -> int:
        """Where in an epoch's order a sample comes: `samples` turned round."""
        key, ends, shift = self.table(epoch)
        number = int(np.flatnonzero((sample - shift < ends) & (sample - shift >= ends - np.diff(ends, prepend=0)))[0])
        block, inside = divmod(sample - int(shift[number]), self.block)
        size = min(self.block, self.size - block * self.block)
        keys = np.array([mix(key ^ np.uint64(block + 1))])
        return block * self.block + int(permute(np.array([inside]), np.array([size]), keys, inverse=True)[0])

    def _table(self, epoch: int) -> tuple[Any, Ints, Ints]:
        """The epoch's key and, in its order of shards, the end of each and the shift from position to sample."""
        key = mix(self.key ^ np.uint64(epoch))
        order = np.argsort(mix(key ^ mix(np.arange(len(self.sizes), dtype=np.uint64))), kind="stable")
        ends = np.cumsum(self.sizes[order])
        return key, ends, self.starts[order] - (ends - self.sizes[order])


def _check(sizes: Ints, phases: Sequence[Phase]) -> None:
    if not len(sizes) or sizes.min() < 1:
        raise TrainerError(f"streams of {sizes.tolist()} samples cannot be mixed: expected at least one, none empty")
    if len(sizes) > CYCLE:
        raise TrainerError(f"{len(sizes)} streams are more than the {CYCLE} that can be mixed")
    starts = [phase.start for phase in phases]
    if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
        raise TrainerError(f"phases start at steps {starts}; the first must start at 0 and each later than the last")
    for phase in phases:
        weights = list(phase.weights)
        if len(weights) != len(sizes) or not all(0 <= weight < np.inf for weight in weights) or not any(weights):
            raise TrainerError(
                f"weights {weights} from step {phase.start} cannot mix {len(sizes)} streams: expected "
                "one finite weight each, none negative, at least one above 0"
            )


def ramped_sizes(steps: int, full: int) -> list[int]:
    """Batch sizes of the first `steps` updates: an eighth of `full`, two eighths, ... each for as many steps."""
    return [max(1, full * (1 + 8 * step // steps) // 8) for step in range(steps)]


def quotas(shares: np.ndarray[Any, np.dtype[np.float64]], slots: int) -> Ints:
    """Slots per stream in proportion to `shares` (largest remainder), `slots` in all; at least one where share > 0."""
    exact = shares / shares.sum() * slots
    least = (shares > 0).astype(np.int64)
    counts: Ints = np.maximum(np.floor(exact).astype(np.int64), least)
    while (missing := slots - int(counts.sum())) != 0:
        order = np.argsort(counts - exact if missing > 0 else exact - counts, kind="stable")
        order = order[shares[order] > 0] if missing > 0 else order[counts[order] > least[order]]
        counts[order[: abs(missing)]] += np.sign(missing)
    return counts


def interleave(slots: Ints) -> tuple[Ints, Ints]:
    """Spread streams over one cycle: for each slot its stream, and the number of that stream's slots before it."""
    stream = np.repeat(np.arange(len(slots)), slots)
    ordinal = np.concatenate([np.arange(count) for count in slots])
    order = np.argsort((ordinal + 0.5) / slots[stream], kind="stable")
    return stream[order], ordinal[order]


def permute(positions: Ints, sizes: Ints, keys: Words, *, inverse: bool = False) -> Ints:
    """Map each position, 0 <= position < size, by the permutation of range(size) that its key selects, or back.

    A Feistel network permutes the next power of four; images outside the range are mapped again until they fall
    inside (fewer than four passes on average).
    """
    distinct, which = np.unique(sizes, return_inverse=True)
    bits = np.array([max(1, ((size - 1).bit_length() + 1) // 2) for size in distinct.tolist()], np.uint64)[which]
    turns = range(ROUNDS - 1, -1, -1) if inverse else range(ROUNDS)
    images = _feistel(positions.astype(np.uint64), bits, keys, turns)
    while (outside := np.flatnonzero(images >= sizes.astype(np.uint64))).size:
        images[outside] = _feistel(images[outside], bits[outside], keys[outside], turns)
    return images.astype(np.int64)


def _feistel(values: Words, bits: Words, keys: Words, turns: range) -> Words:
    mask = (np.uint64(1) << bits) - np.uint64(1)
    left, right = values >> bits, values & mask
    for turn in turns:
        if turns.step > 0:
            left, right = right, left ^ (mix(mix(keys + np.uint64(turn)) ^ right) & mask)
        else:
            left, right = right ^ (mix(mix(keys + np.uint64(turn)) ^ left) & mask), left
    return (left << bits) | right


def mix(value: Any) -> Any:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64-bit words that looks random."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
