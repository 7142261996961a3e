"""Which samples a step trains on: a pure function of (seed, step), with nothing to save and O(1) to jump to.

Draws are numbered 0, 1, 2, ... over the whole run; step s takes draws s * batch to (s + 1) * batch - 1. A draw
becomes a (stream, sample) pair in two moves:

1. *Stream*: a fixed cycle of up to 65,536 slots spreads the streams evenly (slot j of a stream with q slots stands
   at (j + 1/2) / q of the cycle), so every window holds each stream's share to within a slot or so; no luck of
   the draw for small streams. The cycle also says how many draws of that stream came before.
2. *Sample*: that count, divided by the stream's size, is its epoch and its place in the epoch; a keyed
   permutation (a Feistel network with cycle walking; Black and Rogaway 2002) turns the place into a sample. So
   each sample comes exactly once per epoch of its stream, in an order that each epoch shuffles anew.

Costs: O(batch) numpy work per step; memory for the cycle alone. All of it happens before ranks and micro-batches
slice the batch, so every world size trains on the same samples in the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.errors import TrainerError

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
CYCLE = 1 << 16
ROUNDS = 6


class Sampler:
    """The data order of one run."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None, batch_size: int, seed: int) -> None:
        """sizes: samples of each stream; weights: factor on each stream's natural share (None: as they come).

        A stream of weight 2 is read at twice its share by size, so its epochs pass twice as fast.
        Raises TrainerError for an empty stream or a weight that is not positive.
        """
        factors = [1.0] * len(sizes) if weights is None else list(weights)
        if not sizes or len(factors) != len(sizes) or min(sizes) < 1 or min(factors) <= 0:
            raise TrainerError(
                f"streams of {list(sizes)} samples and weights {factors} cannot be mixed: all must be > 0"
            )
        if len(sizes) > CYCLE:
            raise TrainerError(f"{len(sizes)} streams are more than the {CYCLE} that can be mixed")
        self.sizes = np.array(sizes, np.int64)
        self.batch_size, self.seed = batch_size, seed
        total = int(self.sizes.sum())
        exact = len(set(factors)) == 1 and total <= CYCLE  # then one cycle is one epoch of everything
        self.slots = self.sizes if exact else quotas(self.sizes * np.array(factors), CYCLE)
        self.cycle, self.before = interleave(self.slots)

    def batch(self, step: int) -> Ints:
        """(stream, sample) of each of the step's draws: (batch_size, 2) int64."""
        draws = np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)
        turn, slot = np.divmod(draws, len(self.cycle))
        stream = self.cycle[slot]
        count = turn * self.slots[stream] + self.before[slot]
        epoch, place = np.divmod(count, self.sizes[stream])
        keys = mix(mix(mix(np.uint64(self.seed)) ^ stream.astype(np.uint64)) ^ epoch.astype(np.uint64))
        samples = permute(place, self.sizes[stream], keys)
        batch: Ints = np.stack((stream, samples), axis=1)
        return batch


def quotas(shares: np.ndarray[Any, np.dtype[np.float64]], slots: int) -> Ints:
    """Slots per stream in proportion to `shares` (largest remainder), at least one each, `slots` in all."""
    exact = shares / shares.sum() * slots
    counts: Ints = np.maximum(np.floor(exact).astype(np.int64), 1)
    while (missing := slots - int(counts.sum())) != 0:
        order = np.argsort(counts - exact if missing > 0 else exact - counts, kind="stable")
        order = order if missing > 0 else order[counts[order] > 1]
        counts[order[: abs(missing)]] += np.sign(missing)
    return counts


def interleave(slots: Ints) -> tuple[Ints, Ints]:
    """Spread streams with `slots` slots each over one cycle.

    Returns, for each slot of the cycle, its stream and the number of that stream's slots before it.
    """
    stream = np.repeat(np.arange(len(slots)), slots)
    ordinal = np.concatenate([np.arange(count) for count in slots])
    order = np.argsort((ordinal + 0.5) / slots[stream], kind="stable")
    return stream[order], ordinal[order]


def permute(places: Ints, sizes: Ints, keys: Words) -> Ints:
    """Send each place, 0 <= place < size, to its image under the permutation of range(size) that its key picks.

    A Feistel network permutes the next power of four; images outside the range are sent through again until they
    fall inside (fewer than four passes on average).
    """
    distinct, which = np.unique(sizes, return_inverse=True)
    bits = np.array([max(1, ((size - 1).bit_length() + 1) // 2) for size in distinct.tolist()], np.uint64)[which]
    images = _feistel(places.astype(np.uint64), bits, keys)
    while (outside := np.flatnonzero(images >= sizes.astype(np.uint64))).size:
        images[outside] = _feistel(images[outside], bits[outside], keys[outside])
    return images.astype(np.int64)


def _feistel(values: Words, bits: Words, keys: Words) -> Words:
    mask = (np.uint64(1) << bits) - np.uint64(1)
    left, right = values >> bits, values & mask
    for turn in range(ROUNDS):
        left, right = right, left ^ (mix(mix(keys + np.uint64(turn)) ^ right) & mask)
    return (left << bits) | right


def mix(value: Any) -> Any:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64-bit words that looks random."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
