"""Signatures: what a word is, golden values, the estimate against exact sets and datasketch, any text at all."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.hashing import join_utf8
from pipeline.kernels.minhash import ALONE, EMPTY, IGNORED, LETTER, SEVERAL, MinHasher, fold_parts, fold_table
from tests.conftest import PROSE

GOLDEN = {
    "a river rises in a bog": [710701788, 228240117, 363969053, 603669210],
    "Über 300 Äpfel, Größe 7, in Łódź gekauft": [276772044, 301589419, 2563072791, 91091708],
    "川は村の上の湿原から流れ出て": [529509362, 308985424, 275561149, 240372905],
    "Part 1 of 3": [2836733072, 608647713, 3083164753, 779646278],
}


KOREAN = "강물은 마을 위의 늪에서 시작된다. 처음에는 한 걸음보다 넓지 않다."
MASK = (1 << 64) - 1
BASE, FNV, NUMBER = 0x9E3779B97F4A7C15, 0x100000001B3, 0xD6E8FEB86659FD93


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def plain_words(text: str, keep_numbers: bool) -> list[int]:
    table, found = fold_table(), []
    word = seen = 0
    entries = [int(table[ord(sign)]) if ord(sign) < len(table) else int(IGNORED) for sign in text + " "]
    parts = fold_parts().tolist()
    for folded in itertools.chain.from_iterable(
        itertools.takewhile(bool, parts[entry ^ int(SEVERAL) :]) if entry & int(SEVERAL) else [entry]
        for entry in entries
    ):
        if folded == IGNORED:
            continue
        if 0 < folded < ALONE:
            word, seen = (word ^ folded) * FNV & MASK, seen | folded
            continue
        if seen:
            found.append(mix(word) if keep_numbers or seen >= LETTER else NUMBER)
        word = seen = 0
        if folded:
            found.append(mix(folded))
    return found


def plain_signature(text: str, hashes: int = 112, ngram: int = 5, seed: int = 1) -> list[int]:
    """The kernel's definition in plain Python."""
    words = plain_words(text, False)
    if len(words) < 4 * ngram:
        words = plain_words(text, True)
    shingles = []
    for start in range(len(words) - ngram + 1):
        rolling = 0
        for word in words[start : start + ngram]:
            rolling = (rolling * BASE + word) & MASK
        shingles.append(mix(rolling) >> 32)
    if 0 < len(words) < ngram:
        whole = 0
        for word in words:
            whole = (whole + word) * BASE & MASK
        shingles = [mix(whole) >> 32]
    draws = [mix((i + (seed << 32)) * BASE & MASK) >> 32 for i in range(1, 2 * hashes + 1)]
    permutations = list(zip(draws[::2], draws[1::2], strict=True))
    return [min(((a | 1) * s + b & 0xFFFFFFFF for s in shingles), default=0xFFFFFFFF) for a, b in permutations]


def exact_shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z]+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def overlapping(words: int, shared: float, seed: int) -> tuple[str, str, float]:
    """Two texts whose 5-word shingles overlap, and their exact Jaccard similarity."""
    random = np.random.Generator(np.random.PCG64(seed))
    letters = str.maketrans("0123456789", "abcdefghij")
    drawn = [f"w{i}".translate(letters) for i in random.integers(0, 10**9, 2 * words)]
    kept = int(words * shared)
    left, right = " ".join(drawn[:words]), " ".join(drawn[:kept] + drawn[words : 2 * words - kept])
    one, other = exact_shingles(left), exact_shingles(right)
    return left, right, len(one & other) / len(one | other)


def test_golden_values() -> None:
    found = MinHasher().signatures(list(GOLDEN))[:, :4].tolist()
    assert dict(zip(GOLDEN, found, strict=True)) == GOLDEN
    assert int(fold_table().astype(np.uint64).sum()) == 414439280049348


def test_words_are_those_of_a_regular_expression() -> None:
    text = "set max_poll_records=500 (not __init__.py), then a_b a b_ c-d e_f: 7 x_1 y_2 z_3 are the names of it all"
    words = re.findall(r"\w+", text)
    values, _ = MinHasher().shingles(*join_utf8([text])).sets()
    assert len(values) == len({tuple(words[at : at + 5]) for at in range(len(words) - 4)})


def test_the_kernel_is_its_definition() -> None:
    texts = [*GOLDEN, *PROSE.values(), "", "Ein Übungs\u00adtext: 12 % von 1,999 €, 湿原 x²! " * 9, "🎉 ok ok"]
    texts += [KOREAN, unicodedata.normalize("NFD", KOREAN), "ဦးလေးသည် கொடு ক়ো ကို"]
    assert MinHasher().signatures(texts).tolist() == [plain_signature(text) for text in texts]


def test_golden_values_hold_in_another_process_with_other_threads_and_hash_seed() -> None:
    code = "import pipeline.kernels.minhash as m\nprint(m.MinHasher().signatures(['a river rises in a bog'])[0,:4])"
    environment = {"PYTHONHASHSEED": "77", "NUMBA_NUM_THREADS": "2", "LC_ALL": "C"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert [int(n) for n in re.findall(r"\d+", printed.stdout)] == GOLDEN["a river rises in a bog"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Élan vital, all of the days!", "elan VITAL all of the days"),
        ("On 12 May 7 of them came. " + PROSE["fox"], "On 1 May 1999 of them came. " + PROSE["fox"]),
        ("e\u0301lan vital in the days", "élan vital in the days"),
        ("ｆｕｌｌ width 𝐛𝐨𝐥𝐝 letters fold", "full width bold letters fold"),
        ("soft\u00adhyphen between the two lines", "softhyphen between the two lines"),
        ("ὈΔΥΣΣΕΎΣ came home after years", "οδυσσευς came home after years"),
        ("الكتاب على الطاولة في البيت", "الكـتاب على الطـــاولة في البيت"),
    ],
)
def test_what_falls_together(one: str, other: str) -> None:
    signatures = MinHasher().signatures([one, other])
    assert (signatures[0] == signatures[1]).all()


@pytest.mark.parametrize(
    "text",
    [
        KOREAN,
        "각값 닭이 넋을 잃고 앉았다",  # syllables with and without a final consonant, which may be a cluster
        "கொடுத்தோம் பௌர்ணமி நாளில் போனார்கள் கோவில்",  # vowel signs of two parts
        "বইটো কৌটোর ভেতরে ড়য়ঢ় ছিলো কোনো",
        "ಕೊಡು ಹೋಗೋಣ ಕೈ ಕೀಲಿ ಮೇಲೆ",
        "കൊടുത്തു പോയോ കൌതുകം",
        "කොළඹ නගරයේ ගෞරවය දෝෂය කේ",
        "ဦးလေး ဦးစွာ ဥရောပ ကို သွား",
        "がぎぐげご パピプペポ ヴァイオリン",
        "Żółć gęślą jaźń, Việt Nam điều kiện, Ǆ ſ ḍ̇",
    ],
)
def test_composed_and_decomposed_are_the_same(text: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    mixed = "".join(unicodedata.normalize("NFC" if i % 2 else "NFD", sign) for i, sign in enumerate(composed))
    signatures = MinHasher().signatures([composed, decomposed, mixed])
    assert composed != decomposed
    assert (signatures == signatures[0]).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("All links, part 1/3", "All links, part 2/3"),
        ("two words", "two birds"),
        ("this is page 1 of the list of all links of the site", "this is page 2 of the list of all links of the site"),
        ("python2 is not the same as python", "python3 is not the same as python"),
        ("서울은 한국의 수도이다 그리고 크다", "소율은 한곡의 수다이도 그라고 키다"),
        ("नदी गाँव के ऊपर दलदल से", "नदा गाँव की ऊपर दलदल सा"),
    ],
)
def test_what_does_not(one: str, other: str) -> None:
    signatures = MinHasher().signatures([one, other])
    assert not (signatures[0] == signatures[1]).all()


def test_empty_and_unspaced_texts() -> None:
    signatures = MinHasher().signatures(["", "?! ... \n", "two words", "川は村の上の湿原から流れ出て"])
    assert (signatures[:2] == EMPTY).all()
    assert (signatures[2:] != EMPTY).all()
    data, ends = join_utf8(["川は村の上の湿原から流れ出て", "แม่น้ำไหลจาก"])
    assert np.diff(MinHasher().shingles(data, ends).sets()[1]).tolist() == [10, 6]


def test_estimate_is_as_good_as_theory_and_as_datasketch() -> None:
    hasher = MinHasher()
    errors, others, theory = [], [], []
    for seed in range(80):
        left, right, exact = overlapping(300, 0.5 + seed / 165, seed)
        signatures = hasher.signatures([left, right])
        errors.append(abs((signatures[0] == signatures[1]).mean() - exact))
        sketches = [MinHash(num_perm=112) for _ in range(2)]
        for sketch, text in zip(sketches, (left, right), strict=True):
            sketch.update_batch([" ".join(shingle).encode() for shingle in exact_shingles(text)])
        others.append(abs(sketches[0].jaccard(sketches[1]) - exact))
        theory.append(np.sqrt(exact * (1 - exact) / signatures.shape[1]))
    assert np.mean(errors) < 1.2 * np.mean(theory)
    assert np.mean(errors) < 1.2 * np.mean(others)


def test_shingle_sets_are_the_exact_ones() -> None:
    texts = [PROSE["river"], PROSE["bread"], PROSE["river"] + " " + PROSE["fox"]]
    texts += ["Of the 12 rivers, 7 freeze; of 12 lakes, 40."]
    values, offsets = MinHasher().shingles(*join_utf8(texts)).sets()
    sets = [set(values[low:high].tolist()) for low, high in itertools.pairwise(offsets)]
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    true = [{tuple(found[i : i + 5]) for i in range(len(found) - 4)} for found in words]
    assert [len(found) for found in sets] == [len(expected) for expected in true]
    assert len(sets[0] & sets[2]) == len(true[0] & true[2])


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
@settings(deadline=None)
def test_any_text_has_the_same_signature_alone_and_among_others(texts: list[str]) -> None:
    hasher = MinHasher(bands=4, rows=4)
    together = hasher.signatures(texts)
    assert together.shape == (len(texts), 16)
    assert all((hasher.signatures([text])[0] == row).all() for text, row in zip(texts, together, strict=True))


def test_lone_surrogates_and_long_texts() -> None:
    assert MinHasher().signatures(["a\ud800b"]).shape == (1, 112)
    long = " ".join(PROSE.values()) * 40  # more shingles than one block
    twice = MinHasher().signatures([long, long + " " + long])
    assert (twice[0] == twice[1]).mean() > 0.95


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="ngram"):
        MinHasher(ngram=0)
