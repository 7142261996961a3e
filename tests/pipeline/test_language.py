"""Language identification with the real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.language import LanguageIdentifier, find_model
from pipeline.language.identify import WINDOW, WINDOWS, sample
from tests.conftest import PROSE

SENTENCES = {
    "de": "Der Fluss entspringt in einem Moor oberhalb des Dorfes und ist anfangs kaum breiter als ein Schritt.",
    "fr": "La rivière prend sa source dans une tourbière au-dessus du village et n'est guère plus large qu'un pas.",
    "ru": "Река берёт начало в болоте над деревней и поначалу не шире одного шага.",
    "ja": "川は村の上の湿原から流れ出て、はじめは一歩の幅ほどしかない。",
    "en": PROSE["river"],
}


def test_names_languages() -> None:
    found = LanguageIdentifier().identify(list(SENTENCES.values()))
    assert [language for language, _ in found] == list(SENTENCES)
    assert all(0.5 < score <= 1.0 for _, score in found)


def test_nothing_to_judge() -> None:
    assert all(score <= 1.0 for _, score in LanguageIdentifier().identify(["", "\n", "12345"]))


def test_long_texts_are_sampled() -> None:
    assert len(sample("a b " * 100_000)) <= WINDOW * WINDOWS + WINDOWS


def test_absent_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no file at"):
        find_model(tmp_path / "missing.ftz")
