"""Charsets, extraction and URL rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import decode, extract_text
from pipeline.extract.step import is_blocked
from tests.conftest import PROSE, page

KOREAN = "강물은 마을 위의 늪에서 시작된다. 처음에는 한 걸음보다 넓지 않다."


@pytest.mark.parametrize("extractor", ["fast", "resiliparse", "trafilatura"])
def test_main_text_without_chrome(extractor: str) -> None:
    text = extract_text(page(PROSE["river"]), extractor=extractor)
    assert "four streams" in text
    assert "Contact" not in text


def test_charset_order() -> None:
    meta = f'<html><head><meta charset="euc-kr"></head><body>{KOREAN}</body></html>'
    assert KOREAN in decode(meta.encode("euc-kr"), "euc-kr")[0]  # header
    assert KOREAN in decode(meta.encode("euc-kr"))[0]  # meta
    assert KOREAN in decode(KOREAN.encode("utf-16"), "latin-1")[0]  # a byte-order mark beats the header
    assert KOREAN in decode((KOREAN * 8).encode("euc-kr"))[0]  # detection
    assert KOREAN in decode(KOREAN.encode(), "no-such-charset")[0]


@given(st.binary(max_size=400), st.sampled_from([None, "utf-8", "euc-kr", "x-unknown"]))
@settings(deadline=None)
def test_any_bytes_give_text(body: bytes, charset: str | None) -> None:
    extract_text(body, charset=charset).encode("utf-8")


def test_blocklist_matches_hosts_parents_and_paths() -> None:
    blocked = frozenset({"bad.example", "mixed.example/ads"})
    assert is_blocked("https://www.bad.example/x", blocked) == "bad.example"
    assert is_blocked("https://mixed.example/ads/1.html", blocked) == "mixed.example/ads"
    assert is_blocked("https://mixed.example/adsorption", blocked) is None
    assert is_blocked("https://notbad.example/", blocked) is None
