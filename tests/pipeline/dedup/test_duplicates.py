"""Clusters of texts in memory: against planted and labelled duplicates, exact Jaccard, and the definition."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup import find_duplicates
from pipeline.kernels.clusters import join, labels, optimal_bands, similar_pairs, similarity
from pipeline.kernels.hashing import join_utf8
from pipeline.kernels.minhash import MinHasher
from tests.conftest import PROSE
from tests.pipeline.kernels.test_minhash import overlapping


def test_find_duplicates() -> None:
    near = PROSE["bread"].replace("hundred grams", "hundred and ten grams")
    texts = [PROSE["river"], PROSE["bread"], near, PROSE["fox"], PROSE["river"].upper(), "", "", "Part 1", "Part 2"]
    assert find_duplicates(texts, threshold=0.7).tolist() == [0, 1, 1, 3, 0, 5, 6, 7, 8]
    assert find_duplicates([]).tolist() == []
    with pytest.raises(ValueError, match="threshold is 7"):
        find_duplicates(texts, threshold=7)


def test_verification_rejects_what_bands_alone_would_join() -> None:
    left, right, exact = overlapping(400, 0.75, 1)
    assert exact < 0.7
    assert find_duplicates([left, right], threshold=0.9, bands=56, rows=2).tolist() == [0, 1]
    assert find_duplicates([left, right], threshold=0.4, bands=56, rows=2).tolist() == [0, 0]


def test_of_a_chain_those_stay_that_are_unlike_what_stays_before_them() -> None:
    words = [f"w{i}".translate(str.maketrans("0123456789", "abcdefghij")) for i in range(700)]
    texts = [" ".join(words[start : start + 500]) for start in range(0, 200, 20)]  # Jaccard of neighbours 0.92
    sets = [{tuple(text.split()[i : i + 5]) for i in range(496)} for text in texts]
    found = find_duplicates(texts, threshold=0.8)

    def alike(i: int, k: int) -> float:
        return len(sets[i] & sets[k]) / len(sets[i] | sets[k])

    rims: dict[int, int] = {}
    expected: list[int] = []
    for i in range(len(texts)):
        leader = next((k for k in rims if min(alike(i, k), alike(i, rims[k])) >= 0.8), i)
        expected.append(leader)
        rims[leader] = min(i, rims.get(leader, i), key=lambda k: alike(leader, k))
    assert found.tolist() == expected
    assert len(set(expected)) > 1
    by_estimate = find_duplicates(texts, threshold=0.8, verify_by="estimate")
    signatures = MinHasher().signatures(texts)
    assert all((signatures[i] == signatures[k]).mean() >= 0.8 for i, k in enumerate(by_estimate))


def test_two_groups_in_one_bucket_stay_two() -> None:
    signatures = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 1, 9], [2, 2, 2, 9], [1, 1, 1, 8]], np.uint32)
    offsets = np.arange(6) * 4
    pairs, leaders = similar_pairs(np.zeros(5, np.uint64), np.arange(5), signatures.ravel(), offsets, 0.75, False)
    assert pairs.tolist() == [[0, 2], [1, 3], [0, 4]]
    assert leaders.tolist() == [[0, 2], [1, 3]]


def test_a_bucket_cut_in_two_ends_as_in_one() -> None:
    random = np.random.Generator(np.random.PCG64(5))
    rows = random.integers(0, 3, (60, 8)).astype(np.uint32)
    one, keys = np.arange(60), np.zeros(60, np.uint64)
    whole, ends = similar_pairs(keys, one, rows.ravel(), np.arange(61) * 8, 0.5, False, by_rim=True)
    head, state = similar_pairs(keys, one[:30], rows[:30].ravel(), np.arange(31) * 8, 0.5, False, by_rim=True)
    part = np.concatenate([state.ravel(), one[30:]])
    known = np.arange(state.size)
    values, offsets = rows[part].ravel(), np.arange(len(part) + 1) * 8
    tail, last = similar_pairs(
        keys[part],
        np.arange(state.size, len(part)),
        values,
        offsets,
        0.5,
        False,
        by_rim=True,
        leaders=known.reshape(-1, 2),
    )
    assert np.concatenate([head, part[tail]]).tolist() == whole.tolist()
    assert part[last].tolist() == ends.tolist()
    assert len(whole) > 20


def test_numbers_count_when_a_pair_is_verified() -> None:
    page = " ".join(f"{word} {{}}" for word in PROSE["fox"].split())
    first, second = (page.format(*range(start, start + 999)) for start in (1000, 5000))
    assert find_duplicates([first, second]).tolist() == [0, 1]
    assert find_duplicates([first, second], verify_by="estimate").tolist() == [0, 0]
    assert find_duplicates([PROSE["river"] + " Page 1", PROSE["river"] + " Page 2"]).tolist() == [0, 0]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(st.integers(0, 20), unique=True), min_size=2, max_size=2))
def test_exact_similarity_is_the_jaccard_similarity(sets: list[list[int]]) -> None:
    values = np.array([*sorted(sets[0]), *sorted(sets[1])], np.uint32)
    offsets = np.cumsum([0, len(sets[0]), len(sets[1])])
    one, other = set(sets[0]), set(sets[1])
    found = similarity(values, offsets, np.array([0]), np.array([1]), True)[0]
    assert found == pytest.approx(len(one & other) / max(len(one | other), 1))


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_labels_are_the_connected_components(edges: list[tuple[int, int]]) -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    parent = np.arange(31)
    join(parent, np.array(edges, np.int64).reshape(-1, 2))
    ones, ends = np.ones(len(edges)), np.array(edges, np.int64).reshape(-1, 2)
    _, truth = connected_components(coo_matrix((ones, (ends[:, 0], ends[:, 1])), (31, 31)), directed=False)
    assert labels(parent).tolist() == [truth.tolist().index(component) for component in truth]


@pytest.mark.parametrize(("hashes", "missed"), [(8, 0.5), (64, 0.95), (112, 0.5), (112, 0.95)])
def test_threshold_picks_bands_as_datasketch_does(hashes: int, missed: float) -> None:
    from datasketch.lsh import _optimal_param

    for threshold in (0.0, 0.01, *np.arange(0.05, 1, 0.05).tolist(), 0.99, 1.0):
        assert optimal_bands(threshold, hashes, missed) == _optimal_param(threshold, hashes, 1 - missed, missed)
    assert optimal_bands(0.8, 112, missed=0.95) == (14, 8)


@pytest.mark.parametrize("ngram", [1, 3])
def test_short_shingles(ngram: int) -> None:
    found = find_duplicates(["b a c d", "a b c d"], threshold=0.1, ngram=ngram, bands=28, rows=1)
    assert found[1] == (0 if ngram == 1 else 1)


@pytest.mark.parametrize("size", [1000, 2500])
def test_labelled_news_are_all_found_and_no_others(shared: Path, size: int) -> None:
    folder = shared / "eval/dedup/mccormick"
    rows = [line.split(" ", 1) for line in (folder / f"data/articles_{size}.train").read_text("latin-1").splitlines()]
    with (folder / f"pairs_{size}.tsv").open() as file:
        pairs = [row for row in csv.DictReader(file, delimiter="\t") if float(row["jaccard5"]) >= 0.8]
    truth = {frozenset((row["id_a"], row["id_b"])) for row in pairs}
    found = find_duplicates([text for _, text in rows], threshold=0.8)
    names = np.array([name for name, _ in rows])
    groups = [names[found == label] for label, count in Counter(found.tolist()).items() if count > 1]
    assert {frozenset(pair) for group in groups for pair in combinations(group.tolist(), 2)} == truth


def test_scanned_editions_are_estimated_at_their_similarity(shared: Path) -> None:
    paths = sorted((shared / "eval/dedup/textreuse/inst/extdata/ats").glob("remember*.txt"))
    data, ends = join_utf8([path.read_text("utf-8") for path in paths])
    hasher = MinHasher()
    first, second = np.array([0]), np.array([1])
    exact = similarity(*hasher.shingles(data, ends).sets(), first, second, True)[0]
    signatures = hasher.signatures_utf8(data, ends)
    assert 0.3 < exact < 0.95
    assert (signatures[0] == signatures[1]).mean() == pytest.approx(exact, abs=0.1)
