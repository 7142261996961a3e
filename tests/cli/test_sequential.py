"""Verdicts seed by seed: the stated error rate, the power that is told beforehand, when to stop."""

import numpy as np
import pytest

from cli.sequential import (
    critical_values,
    foresight,
    pooled_deviation,
    seeds_for,
    smallest_difference,
    verdicts,
)


def test_a_single_look_at_two_variants_is_students_test():
    clear = verdicts({"a": [2.50, 2.51], "b": [2.30, 2.31]}, 2)
    unclear = verdicts({"a": [2.5, 2.6], "b": [2.4, 2.5]}, 2)
    assert clear[0]["better"] == "b"
    assert clear[0]["difference"] == pytest.approx(0.2)
    # Pooled: spread 0.00707 each, error 0.00707, t(0.975, 2) = 4.3027; simulated to 2 %.
    assert clear[0]["interval"] == pytest.approx(4.3027 * 0.0070711, rel=0.02)
    assert clear[0]["says"].startswith("b is better than a by 0.2000 ± 0.03")
    assert unclear[0]["better"] is None
    assert "allows no verdict" in unclear[0]["says"]
    single = verdicts({"a": [1.0], "b": [2.0]}, 2)[0]
    assert (single["better"], single["interval"], single["settled"]) == (None, None, False)
    assert len(verdicts({name: [1.0, 1.1] for name in "abcd"}, 2)) == 6


def experiment(random, means, planned, wished=None):
    """(whether a pair of equal variants was called different, whether any was, seeds) of one experiment."""
    names = [f"v{number}" for number in range(len(means))]
    drawn = random.normal(np.array(means)[:, None], 0.01, (len(means), planned))
    found = []
    for seeds in range(2, planned + 1):
        found = verdicts(dict(zip(names, drawn[:, :seeds], strict=True)), planned, wished=wished)
        if all(row["settled"] for row in found):
            break
    equal = [row["better"] for row in found if means[int(row["one"][1])] == means[int(row["other"][1])]]
    return any(equal), any(row["better"] for row in found), seeds


@pytest.mark.parametrize(("means", "least"), [((1.0, 1.0, 1.0), 0.035), ((1.0, 1.0, 1.2), 0.005)])
def test_wrong_verdicts_are_as_rare_as_stated_although_every_round_is_looked_at(means, least):
    random = np.random.default_rng(1)
    wrong = np.mean([experiment(random, means, 5)[0] for _ in range(1500)])
    assert least < wrong < 0.065  # stated: 0.05, less where a pair does differ; the deviation of the count is 0.006


def test_the_smallest_difference_is_told_as_often_as_said():
    random = np.random.default_rng(2)
    gap = smallest_difference(2, 4, 0.01)
    results = [experiment(random, (1.0, 1.0 - gap), 4) for _ in range(1000)]
    assert 0.77 < np.mean([told for _, told, _ in results]) < 0.86
    assert np.mean([seeds for _, _, seeds in results]) < 3.9  # many stop early


def test_a_large_difference_stops_early_and_a_small_one_is_settled_by_what_was_asked_for():
    random = np.random.default_rng(3)
    large = [experiment(random, (1.0, 1.5), 8)[2] for _ in range(20)]
    assert np.mean(large) < 3
    near = verdicts({"a": [1.0, 1.001, 0.999], "b": [1.0, 0.999, 1.001]}, 3, wished=0.05)[0]
    assert near["settled"]
    assert near["better"] is None
    assert "less than the 0.05 asked for" in near["says"]


def test_seeds_for_a_wished_difference():
    needed = seeds_for(3, 0.02, 0.01)
    assert smallest_difference(3, needed, 0.01) <= 0.02 < smallest_difference(3, needed - 1, 0.01)
    assert seeds_for(3, 1e-6, 0.01) is None
    told = foresight(3, 4, 0.01, 60.0, 0.02)
    assert told["runs"] == 3 * needed
    assert told["seconds"] == 180 * needed
    assert f"0.02 needs {needed} seeds" in told["says"]
    assert "80% of experiments" in told["says"]
    assert "more than 32 seeds" in foresight(3, 4, 0.01, 60.0, 1e-6)["says"]


def test_the_deviation_is_that_of_all_variants():
    assert pooled_deviation({"a": [1.0, 2.0], "b": [5.0, 5.0]}) == pytest.approx(0.5)
    assert pooled_deviation({"a": [1.0], "b": [5.0]}) is None
    assert list(critical_values(2, 4)) == sorted(critical_values(2, 4), reverse=True)
