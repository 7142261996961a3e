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


ADDRESS = {
    "email": "eva.lim@post.org",
    "ip": "93.184.216.34",
    "phone": "+44 20 7946 0018",
    "iban": "GB82WEST12345698765432",
}
AROUND = [
    "请联系{}谢谢",
    "住所は{}です",
    "주소는 {}로",
    "ที่อยู่{}นะ",
    "адрес{}конец",
    "عنوان{}نهاية",
    "_{}_",
    "({})",
    "：{}。",
    "{}、",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("around", AROUND)
def test_data_beside_other_scripts_is_masked_entirely(kind: str, around: str) -> None:
    masked, counts = mask(around.format(ADDRESS[kind]), KINDS)
    assert counts == {name: int(name == kind) for name in KINDS}
    assert masked == around.format(mask(ADDRESS[kind], [kind])[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("地址2a00:1450:4001:81b::200e无效", "地址2001:db8::1无效"),
        ("ping IP:2a00:1450:4001:81b::200e: ok", "ping IP:2001:db8::1: ok"),
        (".eva@post.org -eva@post.org", ".email@example.com -email@example.com"),
        (
            "post@bücher.de, почта@письмо.рф, li@例子.中国联系",
            "email@example.com, email@example.com, email@example.com联系",
        ),
        ("andré.lópez@correo.es", "email@example.com"),
        ("+33\u00a01\u00a023\u00a045\u00a067\u00a089, (+81 3 1234 5678)", "555-0100, (555-0100)"),
        ("+44 20 7946 0018 ext 5, +44 20 7946 0018x5", "555-0100 ext 5, 555-0100x5"),
        ("BE68 5390 0754 7034 KBC", "XX00 0000 0000 0000 KBC"),
        ("+44 20 7946 0018abc", None),
        ("b::c, fade::cafe, std::vec, OID 2.5.29.17, 1.3.6.1, version 1.2.3.4, v1.2.3.4", None),
        ("+250000000 euros, +12000000000", None),
    ],
)
def test_no_half_of_it_and_no_more(text: str, expected: str | None) -> None:
    assert mask(text, KINDS)[0] == (text if expected is None else expected)


@given(st.text(alphabet="ab1 .:@-+()A2", max_size=80))
def test_masking_twice_changes_nothing(text: str) -> None:
    once, _ = mask(text, KINDS)
    assert mask(once, KINDS)[0] == once


def test_long_lines_take_linear_time() -> None:
    for part in ("a.", "1.", "a:", "1 ", "A1", "a@", "+1-"):
        mask(part * 200_000, KINDS)
