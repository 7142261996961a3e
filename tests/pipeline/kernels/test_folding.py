"""Folded texts equal Python's, whatever the characters."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.folding import fold, fold_text
from pipeline.kernels.hashing import join_utf8

NEAR = "aZß éÉ\u0130\u00a0\u2003\u2019\u0301\u0327\x1c\t\n中가\u1100\u1161\u11a8か\u3099µǅﬁ\u212b\u0958\u09be\u09c7"


LONG = st.lists(st.sampled_from([*("aZ~ b" * 9), *"\n\0\x1c\x7fé\u2003"]), min_size=60).map("".join)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.text(st.sampled_from(NEAR)), LONG, st.text(st.characters(exclude_categories=["Cs"])))))
def test_texts_are_folded_as_in_python(texts: list[str]) -> None:
    assert fold(*join_utf8(texts)) == [fold_text(text) for text in texts]


def test_every_character_alone_between_and_after_letters() -> None:
    characters = [chr(point) for point in range(0x20000) if not 0xD800 <= point < 0xE000]
    texts = [" ".join(f"{c} A{c}b" for c in characters[i : i + 64]) for i in range(0, len(characters), 64)]
    assert fold(*join_utf8(texts)) == [fold_text(text) for text in texts]


def test_what_folding_is() -> None:
    assert fold_text(" Straße\u00a0\nE\u0301 ") == unicodedata.normalize("NFC", "strasse é").encode()
