"""The kernels against `tokenizers`: the same ids for every text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers

from benchmarks.vocabularies import cl100k, gpt2
from common.errors import PipelineError
from pipeline.kernels.bpe import merge
from pipeline.kernels.bpe.patterns import Pattern, character_classes, known_patterns
from pipeline.tokenize.tokenizer import EOS, Encoder, train
from tests.conftest import PROSE

MIXED = [
    *PROSE.values(),
    "Die Straße führt übers Feld; le café n'est pas très loin. Это река, а это мост. Το ποτάμι. " * 3,
    "川は村の上の沼から始まり、最初の一里は一歩ほどの幅しかない。河流发源于村庄上方的沼泽地，孩子们在夏天筑坝。" * 3,
    "แม่น้ำไหลผ่านหมู่บ้าน नदी गाँव के ऊपर दलदल से निकलती है। 강은 마을 위의 늪에서 시작된다. النهر ينبع من مستنقع",
    "def f(x_1, y=2.50):\n\treturn x_1 ** 12345  # it's 'quoted'\r\n\r\n   \n",
]
PIECES = st.sampled_from(
    [
        *("'s", "'S", "'\u017f", "'ll", "'LL", "'lL", "'re", "'ve", "'", "''", " ", "  ", "\t", "\n", "\r\n", "\r"),
        *("\u00a0", "\u2028", "\u0085", "\u200b", "\u200d", "\ufeff", "a", "Z", "ß", "é", "e\u0301", "İ", "\u017f"),
        *(
            "\u212a",
            "0",
            "42",
            "٣",
            "½",
            "Ⅻ",
            "😀",
            "👩\u200d🔬",
            "\U0001f1e9\U0001f1ea",
            "。",
            "，",
            "中文",
            "河流",
            "川は",
        ),
        *(
            "河流",
            "川は",
            "ไทย",
            "ที่",
            "한국",
            "\ud7ff",
            "\ue000",
            "\U0010ffff",
            "\x00",
            "\x1c",
            "-",
            "...",
            "_",
            "<|endoftext|>",
        ),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(PIECES, max_size=40).map("".join),
    st.tuples(PIECES, st.integers(1, 200)).map(lambda pair: pair[0] * pair[1]),
    st.lists(st.characters(min_codepoint=0x4E00, max_codepoint=0x4E40), max_size=90).map("".join),
)


@pytest.fixture(scope="module", params=[("gpt2", None), ("cl100k", None), ("cl100k", 1), ("gpt2", 1), ("cl100k", 0)])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    pattern, digits = request.param
    encoder = Encoder(train(MIXED, 900, pattern, digits))
    assert encoder.pattern
    assert encoder.pattern.family == pattern
    assert encoder._kernels
    encoder._kernels._cache = merge.new_cache(1 << 10)  # small enough to overflow
    return encoder


def assert_equal(encoder: Encoder, texts: list[str]) -> None:
    expected = encoder.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for text, ids, reference in zip(texts, encoder.encode_batch(texts), expected, strict=True):
        assert ids.dtype == encoder.dtype
        assert ids.tolist() == reference.ids, repr(text)


@settings(deadline=None)  # the first example learns the classes
@given(texts=st.lists(TEXTS, max_size=4))
@example(texts=[""])
@example(texts=["a" * 3000, "ab" * 100, "\n" * 300, " " * 300 + "x", "中" * 500, "   'ſs"])
def test_made_texts(encoder: Encoder, texts: list[str]) -> None:
    assert_equal(encoder, texts)


def test_every_character_in_context(encoder: Encoder) -> None:
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    # Letters, numbers and spaces were learned one by one below this; above, all are like the private use areas.
    points = [point for point in points if point < 0x33480 or point % 257 == 0]
    texts = ["".join(f"{chr(p)} a{chr(p)}" for p in points[i : i + 4000]) for i in range(0, len(points), 4000)]
    quoted = ["".join(f" {chr(p)}'{chr(p)}\n" for p in points[i : i + 500]) for i in range(0, 70000, 5000)]
    assert_equal(encoder, [*texts, *quoted])


@pytest.mark.long
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_every_character_after_a_quote(pattern: str) -> None:
    """Contractions, spelt with each character in each place, as the engine folds letters."""
    encoder = Encoder(train(MIXED, 900, pattern))
    points = [chr(point) for point in range(0x33480) if not 0xD800 <= point < 0xE000]
    for some in batched(iter(points), 5000):
        assert_equal(encoder, ["".join(f"'{c} '{c}l 'l{c} 'r{c} 'v{c} '{c}e\n" for c in some)])


def test_no_classes_beyond_the_table() -> None:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    text = "".join(map(chr, range(0x33480, 0x110000, 3)))
    assert len(Split(Regex(r"[\p{L}\p{N}\s]+"), "removed").pre_tokenize_str(text)) == 1
    assert character_classes()[ord("a")] == 1


def test_published_vocabularies(shared: Path) -> None:
    texts = [*MIXED, *sample(shared, 1200)]
    for tokenizer in (gpt2(), cl100k()):
        encoder = Encoder(tokenizer)
        assert encoder.pattern
        assert_equal(encoder, texts)
        assert_equal(encoder, texts)  # now from the cache


def sample(shared: Path, every: int) -> Iterator[str]:
    """Every n-th document of the real texts."""
    for path in sorted((shared / "text").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for number, line in enumerate(lines) if number % every == 0)


FILES = [
    *("free-programming-books", "german-laws", "git-manual-l10n", "gutenberg"),
    *("learnxinyminutes", "python-peps", "react-docs", "tldr"),
]


@pytest.mark.long
@pytest.mark.parametrize("vocabulary", [gpt2, cl100k])
@pytest.mark.parametrize("name", FILES)
def test_all_real_texts(shared: Path, name: str, vocabulary: Callable[[], Tokenizer]) -> None:
    """Minutes in all, nearly all of them the reference's: -k with a file's name checks one."""
    assert {path.name for path in (shared / "text").glob("*.jsonl.gz")} == {f"{each}.jsonl.gz" for each in FILES}
    encoder = Encoder(vocabulary())
    with gzip.open(shared / f"text/{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for some in batched((json.loads(line)["text"] for line in lines), 100):
            assert_equal(encoder, some)


def batched(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """Lists of up to `size` texts."""
    while some := list(islice(texts, size)):
        yield some


def test_pieces_that_are_tokens_although_no_merge_leads_there() -> None:
    description = json.loads(train(MIXED, 600, "cl100k").to_str())
    vocabulary = description["model"]["vocab"]
    # "中文" as UTF-8, spelt in byte-level letters: a token that no merge makes
    vocabulary["ä¸ŃæĸĩZ"] = len(vocabulary)
    vocabulary["ä¸Ńæĸĩ"] = len(vocabulary)
    texts = ["中文", "中文Z", "河中文流", "x中文", "中文" * 9, *MIXED]
    for ignore in (False, True):
        description["model"]["ignore_merges"] = ignore
        encoder = Encoder(Tokenizer.from_str(json.dumps(description)))
        assert encoder.pattern
        assert_equal(encoder, texts)
        assert (len(encoder.encode_batch(["中文"])[0]) == 1) == ignore


def test_added_tokens_are_found_and_special_ones_are_text() -> None:
    tokenizer = train(MIXED, 500, "cl100k")
    tokenizer.add_tokens([AddedToken("river bank", lstrip=True), "    "])
    encoder = Encoder(tokenizer)
    texts = ["the  river bank is    here", f"before {EOS} after", "nothing of it"]
    assert_equal(encoder, texts)
    assert tokenizer.token_to_id("river bank") in encoder.encode_batch(texts)[0]
    assert encoder.eos_id not in encoder.encode_batch(texts)[1]


def test_other_kinds_go_through_tokenizers() -> None:
    tokenizer = train(MIXED, 500, "cl100k")
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.enable_truncation(3)
    encoder = Encoder(tokenizer)
    assert encoder.pattern is None
    assert_equal(encoder, MIXED)
    assert len(encoder.encode_batch(MIXED)[0]) > 3


def change(tokenizer: Tokenizer, place: str, value: object) -> Tokenizer:
    """A tokenizer with another value at `a.b.0.c` of its description."""
    description = json.loads(tokenizer.to_str())
    *path, last = place.split(".")
    found = description
    for key in path:
        found = found[int(key)] if key.isdigit() else found[key]
    found[last] = value
    return Tokenizer.from_str(json.dumps(description))


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("pre_tokenizer", BYTE_LEVEL | {"add_prefix_space": True}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [BYTE_LEVEL | {"use_regex": False}]}),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("pre_tokenizer.pretokenizers.0.behavior", "MergedWithNext"),
        ("pre_tokenizer.pretokenizers.0.behavior", "Contiguous"),
        ("pre_tokenizer.pretokenizers.0.invert", True),
        ("pre_tokenizer.pretokenizers.0.pattern", {"Regex": r"\p{N}|\p{L}+"}),
        ("pre_tokenizer.pretokenizers.0.pattern", {"String": " "}),
        ("normalizer", {"type": "NFC"}),
        ("model.byte_fallback", True),
        ("model.dropout", 1.0),
        ("model.end_of_word_suffix", "</w>"),
    ],
)
def test_anything_unknown_goes_through_tokenizers(place: str, value: object) -> None:
    encoder = Encoder(change(train(MIXED, 500, "cl100k"), place, value))
    assert encoder.pattern is None
    assert_equal(encoder, [*MIXED, "e\u0301 1234 x"])


def test_known_patterns_include_those_of_published_tokenizers() -> None:
    llama3 = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    assert known_patterns()[llama3] == Pattern("cl100k", 3)
    assert known_patterns()[llama3.replace("{1,3}", "")] == Pattern("cl100k", 1)  # Qwen 2
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    assert known_patterns()[gpt2] == Pattern("gpt2", 0)


def test_lone_surrogates_are_refused_as_by_tokenizers(encoder: Encoder) -> None:
    with pytest.raises(UnicodeEncodeError):
        encoder.encode_batch(["a\ud800b"])
    with pytest.raises((UnicodeEncodeError, TypeError)):
        encoder.tokenizer.encode_batch_fast(["a\ud800b"])


def test_round_trip_and_token_bytes(encoder: Encoder) -> None:
    texts = [*MIXED, "", "naïve 川 🦊\r\n\t x"]
    for text, ids in zip(texts, encoder.encode_batch(texts), strict=True):
        assert ids.dtype == np.uint16
        assert encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text
        assert int(encoder.token_bytes()[ids].sum()) == len(text.encode())
    assert encoder.token_bytes()[encoder.eos_id] == 0


def test_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PipelineError, match=r"not a tokenizer\.json"):
        Encoder(tmp_path / "tokenizer.json")
    with pytest.raises(PipelineError, match="no file"):
        Encoder(tmp_path / "absent.json")
