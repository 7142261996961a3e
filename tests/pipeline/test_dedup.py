"""MinHash against exact Jaccard and its theory; clusters against the definition."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup import find_duplicates
from pipeline.dedup.clusters import group_equal, optimal_bands
from pipeline.minhash import EMPTY, MinHasher
from tests.conftest import PROSE


def overlapping(words: int, shared: float, seed: int) -> tuple[str, str, float]:
    """Two texts whose 5-word shingles overlap, and their exact Jaccard similarity."""
    random = np.random.Generator(np.random.PCG64(seed))
    left = [f"w{i}" for i in random.integers(0, 10**9, words)]
    kept = int(words * shared)
    right = left[:kept] + [f"v{i}" for i in random.integers(0, 10**9, words - kept)]
    sets = [{tuple(text[i : i + 5]) for i in range(len(text) - 4)} for text in (left, right)]
    return " ".join(left), " ".join(right), len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_estimate_is_as_good_as_theory() -> None:
    # Digits fold together, so the made-up words are spelt in letters.
    letters = str.maketrans("0123456789", "abcdefghij")
    hasher = MinHasher()
    errors, theory = [], []
    for seed in range(60):
        left, right, exact = overlapping(300, 0.5 + seed / 130, seed)
        signatures = hasher.signatures([left.translate(letters), right.translate(letters)])
        errors.append(abs((signatures[0] == signatures[1]).mean() - exact))
        theory.append(np.sqrt(exact * (1 - exact) / signatures.shape[1]))
    assert np.mean(errors) < 1.2 * np.mean(theory)


def test_folding() -> None:
    hasher = MinHasher()
    one, other = hasher.signatures(["Élan vital, 12 of 7 days!", "elan VITAL 99 of 3 days"])
    assert (one == other).all()


def test_empty_short_and_unspaced_texts() -> None:
    signatures = MinHasher().signatures(["", "?!", "two words", "川は村の上の湿原から流れ出て"])
    assert (signatures[:2] == EMPTY).all()
    assert (signatures[2:] != EMPTY).all()


def test_golden_values_hold_in_another_process() -> None:
    code = (
        "from pipeline.minhash import MinHasher;"
        "print(MinHasher().signatures(['a river rises in a bog'])[0,:3].tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[1118455141, 144450011, 312464739]"


def test_find_duplicates() -> None:
    near = PROSE["bread"].replace("hundred grams", "hundred and ten grams")
    texts = [PROSE["river"], PROSE["bread"], near, PROSE["fox"], PROSE["river"].upper()]
    assert find_duplicates(texts, threshold=0.7).tolist() == [0, 1, 1, 3, 0]


def test_verification_rejects_what_bands_alone_would_join() -> None:
    left, right, exact = overlapping(400, 0.75, 1)
    letters = str.maketrans("0123456789", "abcdefghij")
    texts = [left.translate(letters), right.translate(letters)]
    assert exact < 0.7
    assert find_duplicates(texts, threshold=0.9, bands=56, rows=2).tolist() == [0, 1]
    assert find_duplicates(texts, threshold=0.4, bands=56, rows=2).tolist() == [0, 0]


def test_threshold_picks_bands_as_datasketch_does() -> None:
    from datasketch import MinHashLSH

    reference = MinHashLSH(threshold=0.8, num_perm=112)
    assert optimal_bands(0.8, 112) == (reference.b, reference.r)


@given(st.lists(st.integers(0, 5), max_size=30))
def test_equal_hashes_are_grouped(values: list[int]) -> None:
    hashes = np.array([[value, value * 7] for value in values], np.uint64).reshape(-1, 2)
    assert group_equal(hashes).tolist() == [values.index(value) for value in values]


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
@settings(deadline=None)
def test_any_text_has_a_signature(texts: list[str]) -> None:
    hasher = MinHasher(bands=4, rows=4)
    together = hasher.signatures(texts)
    assert together.shape == (len(texts), 16)
    assert all((hasher.signatures([text])[0] == row).all() for text, row in zip(texts, together, strict=True))


@pytest.mark.parametrize("ngram", [1, 3])
def test_short_shingles(ngram: int) -> None:
    assert find_duplicates(["b a c d", "a b c d"], threshold=0.1, ngram=ngram, bands=28, rows=1)[1] == (
        0 if ngram == 1 else 1
    )
