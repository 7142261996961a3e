"""MinHash signatures: MB/s of one core against datatrove, datasketch and rensa, and the accuracy of the estimate.

    make bench && python benchmarks/minhash.py [--quick]

All make 112 hashes of 5-word shingles of the same English-like documents (about 3 kB each, words drawn by Zipf's law
from a made-up vocabulary, so that no text has to be at hand). Ours and datatrove take text and do the
words themselves; datasketch and rensa have no word splitter and are given shingles that are joined from
`str.lower().split()`, inside the clock, as their READMEs do. Peers run on a part of the documents.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from bars import at_least, at_most, finish, options, show_machine, table

from pipeline.kernels.clusters import find_duplicates
from pipeline.kernels.minhash import MinHasher

HASHES, NGRAM = 112, 5


def word_forms(random: np.random.Generator) -> Any:
    """Made-up words, (30,000, 5): as it is, capital, with comma, with full stop, with full stop and line break."""
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    sizes = random.integers(2, 11, 30_000)
    vocabulary = ["".join(letters[np.minimum(random.geometric(0.12, size) - 1, 25)]) for size in sizes]
    vocabulary[40::97] = [str(number) for number in range(len(vocabulary[40::97]))]
    return np.array([[word, word.capitalize(), word + ",", word + ".", word + ".\n"] for word in vocabulary], object)


def pick_words(count: int, words: int, random: np.random.Generator) -> Any:
    """(words, forms) of `word_forms` for texts of sentences, commas, line breaks: int64 (count, words) and (words,)."""
    form = np.zeros(words, np.int64)
    form[::13], form[11::13], form[12::13], form[64::65] = 1, 2, 3, 4
    return np.minimum(random.zipf(1.2, (count, words)), 30_000) - 1, form


def documents(count: int, words: int = 500, seed: int = 1) -> list[str]:
    """English-like texts."""
    random = np.random.Generator(np.random.PCG64(seed))
    forms = word_forms(random)
    return [" ".join(row) for row in forms[pick_words(count, words, random)].tolist()]


def shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))]


def rensa_signatures(texts: list[str]) -> None:
    from rensa import RMinHash

    for text in texts:
        sketch = RMinHash(num_perm=HASHES, seed=1)
        sketch.update(shingles(text))
        sketch.digest()


def datasketch_signatures(texts: list[str]) -> None:
    from datasketch import MinHash

    MinHash.bulk([[part.encode() for part in shingles(text)] for text in texts], num_perm=HASHES)


def datatrove_signatures() -> Callable[[list[str]], None]:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    step = MinhashDedupSignature("unused", MinhashConfig(n_grams=NGRAM, num_buckets=14, hashes_per_bucket=8))

    def run(texts: list[str]) -> None:
        for text in texts:
            step.get_signature(step.get_shingles(text))

    return run


def speed(function: Callable[[list[str]], object], texts: list[str], repeats: int) -> float:
    """MB/s of UTF-8, the best of `repeats`; a first call on two texts warms up."""
    function(texts[:2])
    size, best = sum(len(text.encode()) for text in texts), float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function(texts)
        best = min(best, time.perf_counter() - start)
    return size / best / 1e6


def pair(shared: int, own: int, random: np.random.Generator) -> tuple[str, str, float]:
    """Two word sequences that share a prefix, and the exact Jaccard similarity of their shingles."""
    letters = str.maketrans("0123456789", "abcdefghij")
    words = [str(number).translate(letters) for number in random.integers(10**8, 10**9, shared + 2 * own)]
    left, right = words[: shared + own], words[:shared] + words[shared + own :]
    a, b = ({tuple(side[i : i + NGRAM]) for i in range(len(side) - NGRAM + 1)} for side in (left, right))
    return " ".join(left), " ".join(right), len(a & b) / len(a | b)


def accuracy(pairs: int, seeds: int) -> tuple[float, float]:
    """(mean absolute error over theory's sqrt(s(1-s)/H), largest distance from 1-(1-s^8)^14 in any 0.05 bin).

    Each pair is signed with several seeds: 8 x 20,000 trials leave a bin's share a standard error of 0.4 points.
    """
    random = np.random.Generator(np.random.PCG64(7))
    texts, exact = [], []
    for number in range(pairs):
        wanted = 0.4 + 0.58 * number / pairs
        shared = int(200 * 2 * wanted / (1 + wanted)) + 4
        left, right, jaccard = pair(shared, 204 - shared, random)
        texts += [left, right]
        exact.append(jaccard)
    s = np.array(exact)
    errors, caught = np.zeros(pairs), np.zeros(pairs)
    for seed in range(1, seeds + 1):
        hasher = MinHasher(seed=seed)
        signatures = hasher.signatures(texts)
        keys = hasher.band_keys(signatures)
        errors += np.abs((signatures[::2] == signatures[1::2]).mean(axis=1) - s) / seeds
        caught += (keys[::2] == keys[1::2]).any(axis=1) / seeds
    error = errors.mean() / np.sqrt(s * (1 - s) / HASHES).mean()
    bins = (s / 0.05).astype(int)
    theory = 1 - (1 - s**8) ** 14
    worst = max(abs(caught[bins == b].mean() - theory[bins == b].mean()) for b in np.unique(bins)
                if (bins == b).sum() > pairs / 40)  # fmt: skip
    return float(error), float(worst)


def start_seconds() -> float:
    """Median seconds from start to first signature of five processes that find the compiled kernel in the cache."""
    code = "from pipeline.kernels.minhash import MinHasher; print(MinHasher().signatures(['a b c'])[0, 0], flush=True)"
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline()
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main() -> int:
    quick = options(__doc__, "fewer documents, ends within a minute").parse_args().quick
    texts = documents(2_000 if quick else 8_000)
    repeats = 3 if quick else 7
    show_machine("datatrove", "datasketch", "rensa", "numba", "numpy")
    ours = speed(MinHasher().signatures, texts, repeats)
    peers = {
        "rensa": speed(rensa_signatures, texts[: len(texts) // 4], repeats),
        "datasketch": speed(datasketch_signatures, texts[:300], repeats),
        "datatrove": speed(datatrove_signatures(), texts[:150], 3),
    }
    row = table("", {"MB/s": ".1f", "ours is": ".1f"})
    for name, rate in ({"pretrain": ours} | peers).items():
        row(name, rate, ours / rate)
    error, curve = accuracy(20_000, 8)
    started = start_seconds()
    print(f"error of the estimate / theory {error:.3f}; detection curve within {100 * curve:.2f} points;"
          f" second process {started:.2f} s")  # fmt: skip
    assert find_duplicates(texts[:2] * 2).tolist() == [0, 1, 0, 1]
    bars = {
        "mb_per_s": at_least(ours, 150.0),
        "times_datatrove": at_least(ours / peers["datatrove"], 100.0),
        "times_rensa": at_least(ours / peers["rensa"], 4.0),
        "error_over_theory": at_most(error, 1.2),
        "curve_points": at_most(100 * curve, 2.0),
        "second_process_s": at_most(started, 1.0),
    }
    return finish("minhash", bars)


if __name__ == "__main__":
    sys.exit(main())
