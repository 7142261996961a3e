"""Verdicts: which of two variants is better, where the spread over seeds allows to say so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

CONFIDENCE = 0.95  # of the interval that must exclude zero before one variant is called better


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pair of variants: the difference of means, its interval, and which is better if that excludes zero.

    Two-sample t interval with pooled variance (Student 1908), at CONFIDENCE; none with a single seed.
    """
    from scipy.stats import t

    found = []
    for one, other in combinations(rows, 2):
        difference = one["mean"] - other["mean"]
        count = len(one["bits_per_byte"])
        verdict: dict[str, Any] = {"one": one["variant"], "other": other["variant"], "difference": difference}
        better = one if difference < 0 else other
        worse = other if difference < 0 else one
        if count < 2:
            verdict |= {"interval": None, "better": None, "says": "one seed tells no spread, so there is no verdict"}
        else:
            error = ((one["spread"] ** 2 + other["spread"] ** 2) / count) ** 0.5
            half = float(t.ppf(0.5 + CONFIDENCE / 2, 2 * (count - 1))) * error
            decided = abs(difference) > half
            gap = f"{abs(difference):.4f} ± {half:.4f} bits per byte"
            verdict |= {"interval": half, "better": better["variant"] if decided else None}
            verdict["says"] = (
                f"{better['variant']} is better than {worse['variant']} by {gap}"
                if decided
                else f"{one['variant']} and {other['variant']} differ by {gap}: the spread allows no verdict"
            )
        found.append(verdict)
    return found
