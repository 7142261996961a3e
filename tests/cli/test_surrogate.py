"""The fit of losses on mixtures: what it predicts, how sure it is, and that it says when it predicts nothing."""

import numpy as np
import pytest

from cli.surrogate import Fit, capped, propose, spread_out

FREE = np.ones(3)


def loss(shares):
    """A stream that is all that counts, with diminishing returns; one that helps a little; one of noise."""
    return 3.0 - 0.8 * np.sqrt(shares[:, 0]) - 0.25 * np.sqrt(shares[:, 1])


@pytest.fixture
def design():
    return spread_out(np.array([[0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]]), 16, FREE)


def test_a_design_spreads_over_the_simplex_and_can_be_extended(design):
    assert design.sum(1) == pytest.approx(1)
    assert design.min() >= 0
    assert (design.max(0) > 0.9).all()  # each corner
    more = spread_out(design[:2], 20, FREE)
    assert (more[:16] == design).all()
    gaps = ((np.sqrt(design[:, None]) - np.sqrt(design[None])) ** 2).sum(-1) + 9 * np.eye(16)
    assert gaps.min() > 0.03


def test_the_fit_predicts_mixtures_that_it_has_not_seen_within_what_it_says(design):
    random = np.random.default_rng(1)
    fit = Fit(design, loss(design) + random.normal(0, 0.01, len(design)))
    assert fit.explains > 0.9
    fresh = random.dirichlet(np.ones(3), 500)
    expected, deviation = fit.predict(fresh)
    errors = np.abs(expected - loss(fresh))
    assert np.sqrt((errors**2).mean()) < 0.03
    assert (errors < 2 * deviation + 0.01).mean() > 0.85
    best = propose(fit, FREE)
    assert loss(best[None])[0] < loss(design).min() + 0.02
    assert best[2] < 0.05


def test_losses_that_do_not_depend_on_the_mixture_are_not_explained(design):
    explained = [Fit(design, np.random.default_rng(seed).normal(2, 0.01, 16)).explains for seed in range(20)]
    assert np.median(explained) <= 0


def test_no_stream_is_read_more_often_than_allowed(design):
    limits = np.array([0.4, 0.5, 0.6])
    within = capped(design, limits)
    assert (within <= limits + 1e-9).all()
    assert within.sum(1) == pytest.approx(1)
    inside = (design <= limits).all(1)
    assert within[inside] == pytest.approx(design[inside])
    best = propose(Fit(design, loss(design)), limits)
    assert best[0] == pytest.approx(0.4, abs=0.02)
