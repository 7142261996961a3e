"""The longest shared stretch, against a plain search over all substrings."""

from __future__ import annotations

import random

import pytest

from pipeline.kernels.overlap import Overlap


def longest(query: str, text: str) -> int:
    """Bytes of the longest common substring, the slow way."""
    one, two = query.encode(), text.encode()
    return max(
        (end - start for start in range(len(two)) for end in range(start + 1, len(two) + 1) if two[start:end] in one),
        default=0,
    )


def test_it_finds_what_a_plain_search_finds() -> None:
    draw = random.Random(1)
    for _ in range(60):
        query, text = ("".join(draw.choices("abä", k=draw.randint(1, 30))) for _ in range(2))
        shared = Overlap(query).longest(text)
        assert shared in query
        assert shared in text
        assert longest(query, text) - 1 <= len(shared.encode()) <= longest(query, text)  # half an ä is not shown


def test_nothing_shared_is_empty_and_no_query_is_refused() -> None:
    assert Overlap("abc").longest("xyz") == ""
    assert Overlap("abc").longest("") == ""
    with pytest.raises(ValueError, match="0 bytes; expected 1 to"):
        Overlap("")
