"""The data order: a pure function, each sample once an epoch, streams in their shares, nothing kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.sampler import Sampler, interleave, permute, quotas


def draws(sampler: Sampler, steps: range) -> np.ndarray:
    return np.concatenate([sampler.batch(step) for step in steps])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(size=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(size: int, key: int) -> None:
    images = permute(np.arange(size), np.full(size, size), np.full(size, key, np.uint64))
    assert sorted(images.tolist()) == list(range(size))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    batch=st.integers(1, 17),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_every_epoch_of_a_stream_is_each_sample_once(sizes: list[int], batch: int, seed: int, data) -> None:
    weights = data.draw(st.lists(st.floats(0.2, 5), min_size=len(sizes), max_size=len(sizes)))
    sampler = Sampler(sizes, weights, batch, seed)
    order = draws(sampler, range(-(-4 * sum(sizes) // batch)))
    for stream, size in enumerate(sizes):
        seen = order[order[:, 0] == stream, 1]
        for start in range(0, len(seen) - size + 1, size):
            assert sorted(seen[start : start + size].tolist()) == list(range(size))


def test_small_unweighted_corpora_pass_whole_before_anything_repeats() -> None:
    sampler = Sampler([10, 3, 7], None, 4, seed=1)
    first, second = draws(sampler, range(5)), draws(sampler, range(5, 10))
    everything = [(s, i) for s, size in enumerate((10, 3, 7)) for i in range(size)]
    assert sorted(map(tuple, first.tolist())) == everything
    assert sorted(map(tuple, second.tolist())) == everything
    assert not np.array_equal(first, second)


def test_the_order_is_a_function_of_seed_and_position_only() -> None:
    one, other = Sampler([1000, 50], [1, 3], 8, seed=5), Sampler([1000, 50], [1, 3], 8, seed=5)
    late = one.batch(400)
    for step in (3, 400, 0):
        other.batch(step)
    assert np.array_equal(other.batch(400), late)
    assert not np.array_equal(Sampler([1000, 50], [1, 3], 8, seed=6).batch(400), late)
    # two batches of 8 are one of 16: the draws, not the steps, are what is numbered
    assert np.array_equal(Sampler([1000, 50], [1, 3], 16, seed=5).batch(7), draws(one, range(14, 16)))


def test_known_order() -> None:
    """Golden values: a changed order would silently change what every seeded run trains on."""
    assert Sampler([5, 1000], [1, 2], 6, seed=1).batch(100).tolist() == [
        [1, 503],
        [1, 130],
        [1, 89],
        [0, 2],
        [1, 900],
        [1, 111],
    ]


def test_streams_keep_their_shares_in_every_batch() -> None:
    sizes, weights = [9000, 1000, 50], [1.0, 2.0, 4.0]
    shares = np.array(sizes) * weights
    shares = shares / shares.sum()
    sampler = Sampler(sizes, weights, 64, seed=3)
    counts = np.array([np.bincount(sampler.batch(step)[:, 0], minlength=3) for step in range(200)])
    assert (np.abs(counts - 64 * shares) < 2).all()
    np.testing.assert_allclose(counts.sum(0) / counts.sum(), shares, atol=2e-4)


def test_shuffling_leaves_no_trace_of_storage_order() -> None:
    order = draws(Sampler([20_000], None, 1000, seed=1), range(20))[:, 1].astype(float)
    place = np.arange(20_000)
    # standard error of a correlation of 20,000 random pairs is 0.007
    assert abs(np.corrcoef(order, place)[0, 1]) < 0.025
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.025
    again = draws(Sampler([20_000], None, 1000, seed=1), range(20, 40))[:, 1].astype(float)
    assert abs(np.corrcoef(order, again)[0, 1]) < 0.025
    # neighbours in storage are far apart in the order: 1/3 of the length on average for random ones
    position = np.argsort(order)
    assert np.abs(np.diff(position)).mean() == pytest.approx(20_000 / 3, rel=0.03)


def test_any_step_of_ten_billion_samples_is_at_hand() -> None:
    sampler = Sampler([10**10, 3 * 10**9], [1, 1], 256, seed=1)
    late = sampler.batch(10**9)
    assert late.shape == (256, 2)
    assert (late >= 0).all()
    assert (late[late[:, 0] == 0, 1] < 10**10).all()
    assert (late[late[:, 0] == 1, 1] < 3 * 10**9).all()
    assert len(np.unique(late, axis=0)) == 256


def test_quotas_fill_the_cycle_and_leave_nobody_out() -> None:
    assert quotas(np.array([1.0, 1.0, 2.0]), 16).tolist() == [4, 4, 8]
    assert quotas(np.array([1e9, 1.0, 1.0]), 16).tolist() == [14, 1, 1]
    assert quotas(np.array([1.0, 1.0, 1.0]), 16).sum() == 16
    streams, before = interleave(np.array([3, 1]))
    assert streams.tolist() == [0, 0, 1, 0]
    assert before.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(("sizes", "weights"), [([], None), ([3, 0], None), ([3], [0.0]), ([3, 4], [1.0])])
def test_what_cannot_be_mixed_is_refused(sizes: list[int], weights: list[float] | None) -> None:
    with pytest.raises(TrainerError, match="cannot be mixed"):
        Sampler(sizes, weights, 4, seed=1)
