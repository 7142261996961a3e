"""Each signal with a value computed by hand, the word rule, and any text whatever."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.hashing import code_points
from pipeline.kernels.signals.lexicon import SEPARATORS
from pipeline.kernels.signals.measure import SIGNALS, signals
from pipeline.kernels.signals.stop_words import STOP_WORDS
from pipeline.kernels.signals.words import tokenize

CASES = [
    ("characters", "añ\n😀", 4),
    ("words", "One two, three!", 3),
    ("words", "川は村", 3),
    ("mean_word_length", "ab abcd ,", 3),
    ("hash_ratio", "# one # two", 0.5),
    ("ellipsis_ratio", "so ... ......", 1.0),
    ("bullet_lines", "- a\n • b\nc\n* d", 0.5),
    ("ellipsis_lines", "wait... \nno", 0.5),
    ("alpha_words", "one 2 three 4 ...", 0.4),
    ("alpha_only_words", "one 2 three 4 ...", 0.5),
    ("stop_words", "the end of the day and The", 3),
    ("duplicate_lines", "a\nb\n\na\na", 0.5),
    ("duplicate_lines", "\na\n", 1 / 3),
    ("duplicate_line_characters", "aa\nb\naa", 2 / 7),
    ("repeated_line_characters", "aa\nb\n  \naa\n  ", 2 / 9),
    ("duplicate_paragraphs", "a\n\nb\n\n\na\n", 1 / 3),
    ("duplicate_paragraph_characters", "aa\n\nb\n\naa", 2 / 9),
    ("top_2gram", "a b a b cc", 6 / 10),
    ("top_2gram", "a b c", 3 / 5),
    ("top_3gram", "a b c x a b c", 10 / 13),
    ("top_4gram", "a b", 0),
    ("duplicate_5gram", "a b c d e x a b c d e", 5 / 21),
    ("duplicate_6gram", "a b c d e x a b c d e", 0),
    ("duplicate_5gram", "a " * 20, 15 / 40),  # places 0 new, 1-5, 6-10, 11-15 seen; then too few are left
    ("c4_sentences", "One two three. Four five six! Seven", 3),
    ("c4_sentences", "We use cookies on this site.\nOne two three.\nToo short.", 1),
    ("c4_sentences", "One two three.[1] Four.", 2),
    ("c4_sentences", "One two three.\n[1] Four five", 2),  # nothing ends before the mark in its own line
    ("c4_sentences", "川は沼から流れる。そして海へ行く。", 2),
    ("c4_terminal_sentences", "One two three. Four\nOne two three.\nAnd so on...", 1),
    ("c4_lines", "One two three.\n" + "x" * 1001 + " two three\nTwo words\nThe JavaScript is off", 0.25),
    ("curly_brackets", "if (x) { y }\n{ x\nnothing in here", 1),
    ("lorem_ipsum", "Lorem ipsum dolor", 1),
    ("c4_terminal_lorem_ipsum", "Lorem ipsum dolor", 0),
    ("c4_terminal_curly_brackets", "if (x) { y }.", 1),
    ("punctuated_lines", "One.\nTwo\n\nसच।\n“Four.”", 0.5),
    ("short_lines", "short\n" + "long " * 10, 0.5),
    ("longest_line", "one\nthree\n", 5),
    ("newlines_per_word", "one\ntwo", 0.5),
    ("stop_word_ratio", "The cat and the dog", 3 / 5),
    ("unique_words", "a b a b", 0.5),
    ("word_entropy", "a b a b", 1),
    ("word_entropy", "a b c d", 2),
    ("digit_ratio", "ab 12", 0.5),
    ("punctuation_ratio", "a,b.", 0.5),
    ("upper_ratio", "Ab cD", 0.5),
    ("copied_characters", "a b c d x a b c d e b c d e", 8 / 27),  # then `b c d e`, which begins within the first copy
    ("copied_characters", "a b c a b c", 0),
    ("copied_characters", "all letters here differ somehow", 0),
]


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_signal(name: str, text: str, expected: float) -> None:
    assert signals([text])[name][0] == pytest.approx(expected)


def test_every_signal_is_defined_and_tested() -> None:
    assert tuple(signals(["a"])) == SIGNALS
    tested = {name for name, _, _ in CASES} | {f"duplicate_{n}gram" for n in range(5, 11)}
    assert set(SIGNALS) == tested


@pytest.mark.parametrize("n", range(5, 11))
def test_duplicate_ngrams_of_each_length(n: int) -> None:
    gram = [f"w{i}" for i in range(n)]
    text = " ".join([*gram, "between", *gram])
    expected = sum(map(len, gram)) / len(text)
    assert signals([text])[f"duplicate_{n}gram"][0] == pytest.approx(expected)
    assert signals([text.replace("w1 ", "other ", 1)])[f"duplicate_{n}gram"][0] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, it's (really) fine.", "Do n't stop , it 's ( really ) fine ."),
        ("well-known e.g. U.S. 3.5 10km 5%", "well - known e.g. U.S. 3.5 10 km 5 %"),
        ("see https://a.example/x-y?z=1.", "see https://a.example/x-y?z=1 ."),
        ("cannot wait... end.Next a/b", "can not wait ... end . Next a / b"),
        ("“Quoted,” she said — twice", "“ Quoted , ” she said — twice"),
        ("## `f(x)` == y_", "# # ` f(x ) ` = = y _"),
        ("東京is大★★x", "東 京 is 大 ★ ★ x"),
        ("กินข้าว", "กิ น ข้ า ว"),
        ("नमस्ते दुनिया।", "नमस्ते दुनिया ।"),
        ("བོད་ཀྱི་མི། ཡིན།", "བོད ཀྱི མི ། ཡིན །"),
        ("ሰው፡ሁሉ፡ነጻ፡ነው።", "ሰው ሁሉ ነጻ ነው ።"),
    ],
)
def test_words(text: str, expected: str) -> None:
    starts, lengths, *_ = tokenize(*code_points([text]))
    assert [text[a : a + n] for a, n in zip(starts, lengths, strict=True)] == expected.split()


def test_stop_words_of_each_language_are_counted() -> None:
    assert len(STOP_WORDS) >= 20
    texts = list(STOP_WORDS.values())
    found = signals(texts, language=list(STOP_WORDS))
    assert (found["stop_word_ratio"] > 0.99).all()
    assert (found["stop_words"] >= 8).all()
    assert signals(["der Hund und die Katze"], language="xx")["stop_words"][0] == 0


def test_a_text_is_measured_alike_alone_and_among_others() -> None:
    texts = ["", "One. Two", "\n\n", "a b a b [1] c", "x" * 3000, "Der Hund schläft."]
    together = signals(texts, language="de")
    for i, text in enumerate(texts):
        alone = signals([text], language="de")
        assert all(alone[name][0] == together[name][i] for name in SIGNALS)


@given(st.lists(st.text(max_size=60), max_size=4), st.integers(1, 40))
@settings(deadline=None)
def test_any_text_has_finite_signals(parts: list[str], repeat: int) -> None:
    found = signals(["".join(parts) * repeat, " ".join(parts)])
    for name in SIGNALS:
        assert np.isfinite(found[name]).all()
        assert (found[name] >= 0).all()


@given(st.text(alphabet=st.characters(), max_size=80))  # lone surrogates too
@settings(deadline=None)
def test_tokens_are_the_visible_characters_in_order(text: str) -> None:
    starts, lengths, *_ = tokenize(*code_points([text]))
    assert "".join(text[a : a + n] for a, n in zip(starts, lengths, strict=True)) == re.sub(
        rf"[\s{SEPARATORS}]+", "", text
    )


@pytest.mark.parametrize(
    "text",
    ["", "\n", "\n" * 10_000_000, "a" * 10_000_000, "ab " * 3_333_333, ".)" * 5_000_000, "\ud800\udfff\U0010ffff"],
)
def test_extreme_texts(text: str) -> None:
    found = signals([text])
    assert all(np.isfinite(column).all() for column in found.values())
    assert found["characters"][0] == len(text)
