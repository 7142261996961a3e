"""What a mixture's loss will be: a fit to a few measured mixtures, with its uncertainty; and which mixtures to measure.

A Gaussian process on the square roots of the shares (between which the distance is Hellinger's: a loss changes fastest
where a share is near zero), with a constant mean. Its length scale and noise are those under which each run is best
predicted by the others (leave-one-out predictive probability; Rasmussen and Williams 2006, section 5.4.2). How good it
is, fits to all runs but one say, each with its own choice. Mixtures to measure fill the space: each is as far as
possible from those before it, so that more of them extend a design instead of replacing it. Costs: n^4 for n runs, a
second for 32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
LENGTHS = np.geomspace(0.2, 4.0, 10)  # the space's diameter is sqrt(2)
NOISES = np.geomspace(1e-4, 3.0, 12)  # variance of a run's noise as a share of the losses' variance
CANDIDATES = 20_000


class Fit:
    """The fit of one loss. `others`: what fits to the other runs predict for each; `error`: its root mean square error;
    `error_of_mean`: that of the others' mean."""

    def __init__(self, shares: Floats, losses: Floats) -> None:
        """shares: (runs, streams), rows that sum to 1; losses: (runs,), at least four."""
        self.process = _Process(np.sqrt(shares), losses)
        rest = [np.delete(np.arange(len(losses)), run) for run in range(len(losses))]
        others = [_Process(np.sqrt(shares[these]), losses[these]) for these in rest]
        self.others = np.array([of.predict(np.sqrt(shares[[run]]))[0][0] for run, of in enumerate(others)], np.float64)
        means = np.array([losses[these].mean() for these in rest])
        self.error = float(np.sqrt(((losses - self.others) ** 2).mean()))
        self.error_of_mean = float(np.sqrt(((losses - means) ** 2).mean()))

    @property
    def explains(self) -> float:
        """Share of the variance that the fit predicts; zero or less: no better than the mean of the other runs."""
        return 1 - (self.error / self.error_of_mean) ** 2

    def predict(self, shares: Floats) -> tuple[Floats, Floats]:
        """Expected loss of mixtures, and its deviation (of the expectation, without a run's own noise)."""
        return self.process.predict(np.sqrt(shares))


class _Process:
    """A Gaussian process on points, with the length scale and noise that are best for it."""

    def __init__(self, points: Floats, losses: Floats) -> None:
        self.points, self.mean = points, float(losses.mean())
        centred, squares = losses - self.mean, _squares(points, points)
        best = -np.inf
        for length in LENGTHS:
            kernel = np.exp(-squares / (2 * length**2))
            inverses = np.linalg.inv(kernel[None] + NOISES[:, None, None] * np.eye(len(losses)))
            for inverse in inverses:
                weights = inverse @ centred
                scale = float(centred @ weights) / len(losses)
                errors, variances = weights / np.diag(inverse), scale / np.diag(inverse)
                score = -float((np.log(variances) + errors**2 / variances).sum())
                if score > best:
                    best, self.length, self.inverse, self.weights, self.scale = score, length, inverse, weights, scale

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        near = np.exp(-_squares(points, self.points) / (2 * self.length**2))
        variance = self.scale * (1 - ((near @ self.inverse) * near).sum(1))
        return self.mean + near @ self.weights, np.sqrt(np.maximum(variance, 0.0))


def candidates(limits: Floats) -> Floats:
    """Mixtures from all over the simplex, none above `limits` (the largest share of each stream)."""
    random = np.random.default_rng(20261126)
    drawn = [random.dirichlet(np.full(len(limits), width), CANDIDATES // 4) for width in (0.2, 0.5, 1.0, 3.0)]
    return capped(np.concatenate(drawn), limits)


def capped(shares: Floats, limits: Floats) -> Floats:
    """The shares with what lies above `limits` given to the streams that have room, in proportion to it."""
    shares = np.minimum(shares, limits)
    room = limits - shares
    missing = 1 - shares.sum(-1, keepdims=True)
    whole: Floats = shares + missing * room / np.maximum(room.sum(-1, keepdims=True), 1e-12)
    return whole


def spread_out(first: Floats, count: int, limits: Floats) -> Floats:
    """`count` mixtures, from `first` on each the candidate that is farthest from all before it."""
    pool = candidates(limits)
    chosen = [*first]
    distance = _squares(np.sqrt(pool), np.sqrt(first)).min(1)
    while len(chosen) < count:
        chosen.append(pool[distance.argmax()])
        distance = np.minimum(distance, _squares(np.sqrt(pool), np.sqrt(chosen[-1:]))[:, 0])
    return np.array(chosen)


def propose(fit: Fit, limits: Floats) -> Floats:
    """The mixture with the lowest loss, taken one deviation above what is expected: where the fit knows little, no gain
    is hoped for."""
    pool = candidates(limits)
    expected, deviation = fit.predict(pool)
    best: Floats = pool[(expected + deviation).argmin()]
    return best


def _squares(one: Any, other: Any) -> Floats:
    squares: Floats = ((np.asarray(one)[:, None] - np.asarray(other)[None]) ** 2).sum(-1)
    return squares
