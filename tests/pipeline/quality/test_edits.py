"""Personal data planted among what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.edits import KINDS, mask


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("email", "Ask jane.doe+x@mail.org, or a@b.co.uk.", "Ask email@example.com, or email@example.com."),
        ("email", "user@localhost and @handle and a@b and x@example.com", None),
        ("ip", "from 8.8.8.8: to 93.184.216.34.", "from 192.0.2.1: to 192.0.2.1."),
        ("ip", "10.0.0.1 192.168.1.1 127.0.0.1 1.2.3 300.1.1.1 v1.2.3.4 1.2.3.4.5", None),
        ("ip", "at 2001:4860:4860::8888 now", "at 2001:db8::1 now"),
        ("ip", "12:30:45 and fe80::1 and ::1 and a::b::c and std::vector", None),
        ("phone", "call +49 30 1234567 or (212) 555-0123", "call 555-0100 or 555-0100"),
        ("phone", "in 1999-2004, 3.14159265358, 12345678901", None),
        (
            "iban",
            "to DE89 3704 0044 0532 0130 00 or GB82WEST12345698765432",
            "to XX00 0000 0000 0000 or XX00 0000 0000 0000",
        ),
        ("iban", "not DE89 3704 0044 0532 0130 01", None),
    ],
)
def test_planted(kind: str, text: str, expected: str | None) -> None:
    masked, counts = mask(text, [kind])
    assert masked == (text if expected is None else expected)
    assert (counts[kind] > 0) == (expected is not None)


@given(st.text(alphabet="ab1 .:@-+()A2", max_size=80))
def test_masking_twice_changes_nothing(text: str) -> None:
    once, _ = mask(text, KINDS)
    assert mask(once, KINDS)[0] == once


def test_long_lines_take_linear_time() -> None:
    for part in ("a.", "1.", "a:", "1 ", "A1", "a@", "+1-"):
        mask(part * 200_000, KINDS)
