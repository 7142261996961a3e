"""The data order: a pure function, each sample once an epoch, streams in their shares, shards visited once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import TrainerError
from trainer.sampler import Phase, Sampler, interleave, permute, quotas, ramped_sizes


def mixed(sizes: list[int], weights: list[float] | None = None, batch: int = 8, seed: int = 1) -> Sampler:
    """One phase over streams of one shard each."""
    return Sampler([[size] for size in sizes], [Phase(0, weights or [1.0] * len(sizes))], batch, seed)


def draws(sampler: Sampler, steps: range) -> np.ndarray:
    return np.concatenate([sampler.batch(step) for step in steps])


def assert_epochs_are_whole(seen: np.ndarray, size: int) -> None:
    for start in range(0, len(seen) - size + 1, size):
        assert sorted(seen[start : start + size].tolist()) == list(range(size))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(size=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(size: int, key: int) -> None:
    images = permute(np.arange(size), np.full(size, size), np.full(size, key, np.uint64))
    assert sorted(images.tolist()) == list(range(size))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shards=st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=4),
    batch=st.integers(1, 17),
    block=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_every_epoch_of_a_stream_is_each_sample_once(shards, batch: int, block: int, seed: int, data) -> None:
    """Whatever the shards, the mixture, its phases and the block: also across changes of phase."""
    starts = [0, *sorted(data.draw(st.sets(st.integers(1, 12), max_size=2)))]
    weight = st.one_of(st.just(0.0), st.floats(0.2, 5))
    row = st.lists(weight, min_size=len(shards), max_size=len(shards)).filter(any)
    sampler = Sampler(shards, [Phase(start, data.draw(row)) for start in starts], batch, seed, block)
    order = draws(sampler, range(-(-4 * sum(map(sum, shards)) // batch)))
    for stream, sizes in enumerate(shards):
        assert_epochs_are_whole(order[order[:, 0] == stream, 1], sum(sizes))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shards=st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=3),
    batch=st.integers(1, 17),
    ramp=st.lists(st.integers(1, 9), max_size=3),
    block=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_a_sample_leads_back_to_the_steps_that_read_it(shards, batch: int, ramp, block: int, seed: int, data) -> None:
    starts = [0, *sorted(data.draw(st.sets(st.integers(1, 12), max_size=2)))]
    row = st.lists(st.one_of(st.just(0.0), st.floats(0.2, 5)), min_size=len(shards), max_size=len(shards)).filter(any)
    sampler = Sampler(shards, [Phase(start, data.draw(row)) for start in starts], batch, seed, block, ramp)
    end = data.draw(st.integers(0, 30))
    steps: dict[tuple[int, int], set[int]] = {}
    for step in range(end):
        for pair in map(tuple, sampler.batch(step).tolist()):
            steps.setdefault(pair, set()).add(step)
    for stream, sizes in enumerate(shards):
        for sample in range(sum(sizes)):
            assert sampler.steps_of(stream, sample, end) == sorted(steps.get((stream, sample), set()))


def test_small_unweighted_corpora_pass_whole_before_anything_repeats() -> None:
    sampler = mixed([10, 3, 7], batch=4)
    first, second = draws(sampler, range(5)), draws(sampler, range(5, 10))
    everything = [(s, i) for s, size in enumerate((10, 3, 7)) for i in range(size)]
    assert sorted(map(tuple, first.tolist())) == everything
    assert sorted(map(tuple, second.tolist())) == everything
    assert not np.array_equal(first, second)


def test_the_order_is_a_function_of_seed_and_position_only() -> None:
    one, other = mixed([1000, 50], [1, 3], seed=5), mixed([1000, 50], [1, 3], seed=5)
    late = one.batch(400)
    for step in (3, 400, 0):
        other.batch(step)
    assert np.array_equal(other.batch(400), late)
    assert not np.array_equal(mixed([1000, 50], [1, 3], seed=6).batch(400), late)
    # two batches of 8 are one of 16: the draws, not the steps, are what is numbered
    assert np.array_equal(mixed([1000, 50], [1, 3], batch=16, seed=5).batch(7), draws(one, range(14, 16)))


def test_known_order() -> None:
    """Golden values: a changed order would silently change what every seeded run trains on."""
    sampler = Sampler([[5], [400, 200, 400]], [Phase(0, [1, 2]), Phase(100, [2, 1])], 6, seed=1, block=300)
    assert sampler.batch(100).tolist() == [[1, 54], [1, 91], [1, 3], [1, 983], [1, 31], [1, 953]]


def test_streams_keep_their_shares_in_every_batch() -> None:
    sizes, weights = [9000, 1000, 50], [1.0, 2.0, 4.0]
    shares = np.array(sizes) * weights
    shares = shares / shares.sum()
    sampler = mixed(sizes, weights, batch=64, seed=3)
    counts = np.array([np.bincount(sampler.batch(step)[:, 0], minlength=3) for step in range(200)])
    assert (np.abs(counts - 64 * shares) < 2).all()
    np.testing.assert_allclose(counts.sum(0) / counts.sum(), shares, atol=2e-4)


def test_phases_change_the_shares_at_their_step() -> None:
    phases = [Phase(0, [1.0, 1.0]), Phase(10, [1.0, 0.0]), Phase(15, [0.0, 1.0])]
    sampler = Sampler([[600], [200]], phases, 16, seed=1)
    counts = np.array([np.bincount(sampler.batch(step)[:, 0], minlength=2) for step in range(20)])
    assert counts[:10].tolist() == [[12, 4]] * 10
    assert counts[10:15].tolist() == [[16, 0]] * 5
    assert counts[15:].tolist() == [[0, 16]] * 5


def test_shuffling_leaves_no_trace_of_storage_order() -> None:
    order = draws(mixed([20_000], batch=1000), range(20))[:, 1].astype(float)
    place = np.arange(20_000)
    # standard error of a correlation of 20,000 random pairs is 0.007
    assert abs(np.corrcoef(order, place)[0, 1]) < 0.025
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.025
    again = draws(mixed([20_000], batch=1000), range(20, 40))[:, 1].astype(float)
    assert abs(np.corrcoef(order, again)[0, 1]) < 0.025
    # neighbours in storage are far apart in the order: 1/3 of the length on average for random ones
    position = np.argsort(order)
    assert np.abs(np.diff(position)).mean() == pytest.approx(20_000 / 3, rel=0.03)


def test_blocks_leave_no_trace_of_storage_order_beyond_them() -> None:
    """Shards of 100, blocks of 1,000: a random order within each block, and other blocks in each epoch."""
    sampler = Sampler([np.full(1000, 100)], [Phase(0, [1.0])], 1000, seed=1, block=1000)
    epochs = [draws(sampler, range(start, start + 100))[:, 1] for start in (0, 100)]
    for order in epochs:
        blocks = order.reshape(100, 1000)
        assert all(len(np.unique(block // 100)) == 10 for block in blocks)  # ten whole shards
        inside = [np.corrcoef(block, np.arange(1000))[0, 1] for block in blocks]
        assert np.abs(inside).max() < 0.16  # 5 standard errors
        assert abs(np.corrcoef(blocks.mean(1), np.arange(100))[0, 1]) < 0.3  # 3 standard errors
    together = [{frozenset(np.unique(block // 100).tolist()) for block in order.reshape(100, 1000)} for order in epochs]
    assert not together[0] & together[1]


def test_a_shard_is_visited_once_an_epoch() -> None:
    """Uneven shards: between its first and its last sample lie two blocks at most."""
    sizes = np.random.default_rng(1).integers(50, 150, 200)
    total = int(sizes.sum())
    sampler = Sampler([sizes], [Phase(0, [1.0])], total, seed=1, block=2000)
    shard = np.searchsorted(np.cumsum(sizes), sampler.batch(0)[:, 1], side="right")
    place = np.arange(total)
    spans = [np.ptp(place[shard == number]) for number in range(200)]
    assert max(spans) < 2 * 2000
    assert np.mean(spans) < 2000


def test_any_step_of_ten_billion_samples_is_at_hand() -> None:
    shards = [np.full(10**10 // 16_384, 16_384), np.full(10**5, 30_000)]
    sampler = Sampler(shards, [Phase(0, [1, 1]), Phase(10**7, [0, 1])], 256, seed=1)
    tracemalloc.start()
    late = sampler.batch(10**9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # the order of all samples would take 104 GB
    assert (late[:, 0] == 1).all()
    for step in (10**7 - 1, 10**7, 10**9):
        batch = sampler.batch(step)
        assert batch.shape == (256, 2)
        assert (batch >= 0).all()
        assert (batch[:, 1] < np.array([sum(map(int, s)) for s in shards])[batch[:, 0]]).all()
        assert len(np.unique(batch, axis=0)) == 256


def test_quotas_fill_the_cycle_and_leave_nobody_out() -> None:
    assert quotas(np.array([1.0, 1.0, 2.0]), 16).tolist() == [4, 4, 8]
    assert quotas(np.array([1e9, 1.0, 1.0]), 16).tolist() == [14, 1, 1]
    assert quotas(np.array([1.0, 0.0, 1.0]), 16).tolist() == [8, 0, 8]
    assert quotas(np.array([1.0, 1.0, 1.0]), 16).sum() == 16
    streams, before = interleave(np.array([3, 1]))
    assert streams.tolist() == [0, 0, 1, 0]
    assert before.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(("sizes", "weights"), [([], []), ([3, 0], [1, 1]), ([3], [0.0]), ([3], [-1.0]), ([3, 4], [1])])
def test_what_cannot_be_mixed_is_refused(sizes: list[int], weights: list[float]) -> None:
    with pytest.raises(TrainerError, match=r"cannot (be mixed|mix)"):
        Sampler([[size] for size in sizes], [Phase(0, weights)], 4, seed=1)


@pytest.mark.parametrize("starts", [[], [1], [0, 5, 5], [0, 7, 3]])
def test_phases_out_of_order_are_refused(starts: list[int]) -> None:
    with pytest.raises(TrainerError, match="the first must start at 0"):
        Sampler([[3]], [Phase(start, [1.0]) for start in starts], 4, seed=1)


def test_the_batch_grows_by_eighths() -> None:
    assert ramped_sizes(16, 64) == [8, 8, 16, 16, 24, 24, 32, 32, 40, 40, 48, 48, 56, 56, 64, 64]
    assert ramped_sizes(0, 64) == []
    assert ramped_sizes(2, 4) == [1, 2]
