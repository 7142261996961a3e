"""Verdicts on scores that come seed by seed: what they can tell, when to stop, with one stated error rate.

The scores of every variant are taken as normal with the same deviation, estimated from all of them. After each round of
seeds from the second on, each pair's difference gets an interval. The intervals' widths are such that, in experiments
where no variant differs, ERROR of them call some pair different after some round: simulated, EXPERIMENTS times with a
fixed seed, every round spending as much as the others. So it is allowed to look after each round and to stop at a
verdict, and the error rate is that of the whole experiment, not of a pair. It holds for the number of seeds that was
planned: more seeds afterwards are another experiment. Costs: less than a second for ten variants and ten seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

ERROR = 0.05  # share of experiments with a wrong verdict
POWER = 0.8  # share of experiments in which the smallest difference is told
EXPERIMENTS = 50_000
MOST_SEEDS = 32  # that are thought of for a wished difference
Scores = Mapping[str, Sequence[float]]  # by variant, one a seed
Row = dict[str, Any]


@lru_cache(maxsize=256)
def critical_values(variants: int, seeds: int, error: float = ERROR) -> tuple[float, ...]:
    """Half-widths after 2, 3, ... `seeds` rounds, in deviations of a difference of two means."""
    random = np.random.default_rng(20261126)
    scores = random.standard_normal((EXPERIMENTS, variants, seeds), np.float32)
    counts = np.arange(1, seeds + 1)
    means = scores.cumsum(2) / counts
    squares = ((scores**2).cumsum(2) - counts * means**2).sum(1)[:, 1:]
    deviations = np.sqrt(squares / (variants * (counts[1:] - 1)) * 2 / counts[1:])
    statistics = np.ptp(means, axis=1)[:, 1:] / deviations
    ranks = statistics.argsort(0).argsort(0).max(1)  # of an experiment: of its most extreme round
    chosen = int(np.quantile(ranks, 1 - error, method="higher"))
    return tuple(np.sort(statistics, axis=0)[chosen].tolist())


def pooled_deviation(scores: Scores) -> float | None:
    """The deviation of one score; None with a single seed."""
    squares = sum(float(np.var(each)) * len(each) for each in scores.values())
    degrees = sum(len(each) - 1 for each in scores.values())
    return math.sqrt(squares / degrees) if degrees else None


def smallest_difference(variants: int, seeds: int, deviation: float) -> float:
    """The difference that an experiment tells with probability POWER."""
    from scipy.stats import t

    width = critical_values(variants, seeds)[-1] + float(t.ppf(POWER, variants * (seeds - 1)))
    return width * deviation * math.sqrt(2 / seeds)


def seeds_for(variants: int, difference: float, deviation: float) -> int | None:
    """The seeds that tell a difference with probability POWER; None where MOST_SEEDS do not."""
    low, high = 2, MOST_SEEDS
    if smallest_difference(variants, high, deviation) > difference:
        return None
    while low < high:
        middle = (low + high) // 2
        if smallest_difference(variants, middle, deviation) <= difference:
            high = middle
        else:
            low = middle + 1
    return low


def verdicts(scores: Scores, planned: int, error: float = ERROR, wished: float | None = None) -> list[Row]:
    """For each pair of variants: {one, other, seeds, difference, interval, better, settled, says}; lower is better.

    planned: seeds that the experiment may take; settled: whether more seeds would change nothing, because one is
    better, or because they differ by less than `wished`. A pair's verdict is that of the round that settled it, after
    `seeds` seeds, else of the last. No interval with a single seed.
    """
    seeds = len(next(iter(scores.values())))
    rounds = [
        _round({name: each[:count] for name, each in scores.items()}, count, max(planned, seeds), error, wished)
        for count in range(min(2, seeds), seeds + 1)
    ]
    return [next((row for row in pair if row["settled"]), pair[-1]) for pair in zip(*rounds, strict=True)]


def _round(scores: Scores, seeds: int, planned: int, error: float, wished: float | None) -> list[Row]:
    """The rows of `verdicts` after one round."""
    rows = []
    deviation = pooled_deviation(scores)
    for one, other in combinations(scores, 2):
        difference = float(np.mean(scores[one]) - np.mean(scores[other]))
        row: Row = {"one": one, "other": other, "seeds": seeds, "difference": difference}
        if deviation is None:
            says = "no verdict: a spread needs `--seeds 2` or more"
            rows.append(row | {"interval": None, "better": None, "settled": False, "says": says})
            continue
        half = critical_values(len(scores), planned, error)[seeds - 2] * deviation * math.sqrt(2 / seeds)
        better, worse = (one, other) if difference < 0 else (other, one)
        decided = abs(difference) > half
        alike = wished is not None and abs(difference) + half < wished
        row |= {"interval": half, "better": better if decided else None, "settled": decided or alike}
        gap = f"{abs(difference):.4f} ± {half:.4f} bits per byte ({seeds} seeds)"
        if decided:
            row["says"] = f"{better} is better than {worse} by {gap}"
        elif alike:
            row["says"] = f"{one} and {other} differ by {gap}: less than the {wished:g} asked for"
        else:
            row["says"] = f"{one} and {other} differ by {gap}: the spread allows no verdict"
        rows.append(row)
    return rows


def foresight(variants: int, planned: int, deviation: float, seconds: float, wished: float | None) -> Row:
    """What an experiment will tell: {deviation, smallest_difference, wished, seeds, runs, seconds, says}.

    seconds: of a training run.
    """
    from cli.terminal import duration

    row: Row = {"deviation": deviation, "smallest_difference": None, "wished": wished, "seeds": None}
    says = f"spread of a score over seeds: {deviation:.4f} bits per byte"
    if planned > 1:
        row["smallest_difference"] = smallest_difference(variants, planned, deviation)
        says += (
            f"; up to {planned} seeds a variant tell differences from {row['smallest_difference']:.4f} on in"
            f" {POWER:.0%} of experiments, {ERROR:.0%} of which are wrong where there is none"
        )
    if wished is not None:
        row["seeds"] = seeds_for(variants, wished, deviation)
        if row["seeds"] is None:
            says += f"; {wished:g} would need more than {MOST_SEEDS} seeds: train longer or on more text instead"
        else:
            row["runs"] = row["seeds"] * variants
            row["seconds"] = row["runs"] * seconds
            says += f"; {wished:g} needs {row['seeds']} seeds, {row['runs']} runs, {duration(row['seconds'])}"
    return row | {"says": says}
