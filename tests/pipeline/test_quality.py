"""Each signal with a value computed by hand, and the presets on clear cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import QualityConfig
from pipeline.presets import PRESETS
from pipeline.quality import keep, signals
from pipeline.quality.rules import rules_for
from tests.conftest import PROSE

CASES = [
    ("words", "One two, three!", 3),
    ("words", "川は村", 3),
    ("mean_word_length", "ab abcd", 3),
    ("hash_ratio", "# one # two", 0.5),
    ("ellipsis_ratio", "so ...", 0.5),
    ("bullet_lines", "- a\n- b\nc\nd", 0.5),
    ("ellipsis_lines", "wait...\nno", 0.5),
    ("alpha_words", "one 2 three 4", 0.5),
    ("stop_words", "The end of the day", 2),
    ("duplicate_lines", "a\nb\na\na", 0.5),
    ("duplicate_line_characters", "aa\nb\naa", 0.4),
    ("duplicate_paragraphs", "a\n\nb\n\na", 1 / 3),
    ("duplicate_paragraph_characters", "aa\n\nb\n\naa", 0.4),
    ("top_2gram", "a b a b cc", 4 / 6),
    ("top_3gram", "a b c d e", 0),
    ("duplicate_5gram", "a b c d e x a b c d e", 5 / 11),
    ("duplicate_6gram", "a b c d e x a b c d e", 0),
    ("c4_sentences", "One two three. Four five six! Seven", 2),
    ("c4_sentences", "We use cookies on this site.\nOne two three.", 1),
    ("curly_brackets", "if (x) { y }", 1),
    ("lorem_ipsum", "Lorem ipsum dolor", 1),
    ("punctuated_lines", "One.\nTwo", 0.5),
    ("short_lines", "short\n" + "long " * 10, 0.5),
    ("newlines_per_word", "one\ntwo", 0.5),
]


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_signal(name: str, text: str, expected: float) -> None:
    assert signals([text])[name][0] == pytest.approx(expected)


def test_every_rule_reads_an_existing_signal() -> None:
    known = signals([""])
    assert all(rule.signal in known for rules in PRESETS.values() for rule in rules.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_prose_is_kept(preset: str) -> None:
    assert keep(list(PROSE.values()), preset=preset) == [None, None, None]


def test_bad_texts_fail_the_rule_that_names_them() -> None:
    spam = "buy cheap shoes online now " * 60
    assert keep(["too short"], preset="gopher") == ["gopher_min_words"]
    assert keep([spam], preset="gopher")[0] in ("gopher_stop_words", "gopher_top_2gram")
    assert keep(["void f() { return; }"], preset="c4")[0] == "c4_sentences"
    assert keep([PROSE["fox"] + " {"], preset="c4") == ["c4_curly_brackets"]
    assert keep(["\n".join(["menu"] * 40)], preset="fineweb")[0] == "fineweb_line_punctuation"


def test_overrides_and_languages() -> None:
    settings_ = QualityConfig(
        rules={"gopher_min_words": 10, "gopher_hashes": False},
        languages={"fr": {"gopher_min_words": {"threshold": 20}}},
    )
    assert rules_for(settings_, "en")["gopher_min_words"].threshold == 10
    assert rules_for(settings_, "fr")["gopher_min_words"].threshold == 20
    assert "gopher_hashes" not in rules_for(settings_, "en")
    assert "gopher_stop_words" in rules_for(settings_, "en")
    assert "gopher_stop_words" not in rules_for(settings_, "fr")
    assert "gopher_min_word_length" not in rules_for(settings_, "ja")


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_has_finite_signals(text: str) -> None:
    assert all(np.isfinite(column).all() for column in signals([text]).values())
