"""Charsets: 21 languages, in the labels and with the damage that pages come with, and detection."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extract import decode
from pipeline.extract.decoding import decode_page

PROSE = Path(__file__).parents[3] / "data" / "prose"
# {language: labels of the codec that follows}; the labels are the standard's, the codec is what writes such pages.
LEGACY = {
    "ar": (["windows-1256"], "cp1256"), "cs": (["windows-1250", "x-cp1250"], "cp1250"),
    "de": (["iso-8859-1", "latin1", "us-ascii", "windows-1252"], "cp1252"), "el": (["windows-1253"], "cp1253"),
    "en": (["ISO-8859-1", "cp819"], "cp1252"), "es": (["l1", "iso8859-1"], "cp1252"), "fr": (["ascii"], "cp1252"),
    "id": (["windows-1252"], "cp1252"), "it": (["iso_8859-1"], "cp1252"),
    "ja": (["shift_jis", "x-sjis", "windows-31j", "ms_kanji"], "cp932"),
    "ko": (["euc-kr", "ks_c_5601-1987", "korean", "windows-949"], "cp949"), "nl": (["iso-ir-100"], "cp1252"),
    "pl": (["windows-1250"], "cp1250"), "pt": (["latin1"], "cp1252"), "ru": (["windows-1251"], "cp1251"),
    "sv": (["iso-8859-1"], "cp1252"), "tr": (["iso-8859-9", "latin5", "windows-1254"], "cp1254"),
    "uk": (["koi8-u"], "koi8-u"), "zh": (["gb2312", "gbk", "gb18030", "GB_2312-80", "chinese"], "gb18030"),
}  # fmt: skip
LANGUAGES = sorted(path.stem for path in PROSE.glob("*.txt"))
# Of the wider charset alone: outside GB 2312, KS X 1001, JIS X 0208, and Windows' quotes.
WIDER = {"zh": "镕€", "ko": "똠방", "ja": "①㈱～髙"}
# {name: (bytes damaged, the text that is right)}; a run of U+FFFD counts as one.
BAD = "\ufffd"
DAMAGE = {
    "none": lambda text: (text.encode(), text),
    "stray byte": lambda text: (text.encode().replace(b". ", b"\xff ", 1), text.replace(". ", BAD + " ", 1)),
    "Latin-1": lambda text: (text.encode().replace(b". ", b"\xe9 ", 1), text.replace(". ", BAD + " ", 1)),
    "overlong": lambda text: (text.encode().replace(b". ", b"\xc0\x80 ", 1), text.replace(". ", BAD + " ", 1)),
    "CESU-8": lambda text: (
        text.encode().replace(b". ", b"\xed\xa0\xbd\xed\xb8\x80 ", 1), text.replace(". ", BAD + " ", 1)
    ),
    "cut": lambda text: (text.encode() + "é".encode()[:1], text + BAD),
    "cut in three": lambda text: (text.encode() + "中".encode()[:2], text + BAD),
}  # fmt: skip


def prose(language: str) -> str:
    return (PROSE / f"{language}.txt").read_text("utf-8").partition("\n\n#")[2][:3000].replace("\ufeff", "")


def page(text: str, meta: str = "") -> str:
    return f"<html><head>{meta}<title>x</title></head><body><p>{text}</p></body></html>"


def meta(label: str) -> list[str]:
    return [f'<meta charset="{label}">', f"<META http-equiv=content-type content='text/html; charset={label}'>"]


def one(text: str) -> str:
    return re.sub(f"{BAD}+", BAD, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_utf8_is_read_under_any_label_with_any_damage(language: str) -> None:
    text = prose(language) + " “é – ü”"
    labels = [None, "utf-8", "UTF8", "iso-8859-1", "windows-1252", "windows-1251", "iso-8859-15", "undefined"]
    for name, damage in DAMAGE.items():
        for label in labels:
            for tag in ["", *meta("utf-8"), *meta("iso-8859-1"), *meta("shift_jis")]:
                body, right = damage(page(text, tag))
                assert one(decode(body, label)[0]) == right, (name, label, tag)


@pytest.mark.parametrize("language", sorted(LEGACY))
def test_labels_mean_what_the_standard_says(language: str) -> None:
    labels, codec = LEGACY[language]
    text = prose(language) + WIDER.get(language, "")
    text = "".join(sign for sign in text if sign.encode(codec, "ignore"))
    if codec.startswith("cp125"):
        text += " \u201cquoted\u201d \u2013 \u2026"
    for label in labels:
        for declared, tags in ((label, [""]), (None, meta(label)), ("x-unknown", meta(label))):
            for tag in tags:
                content = page(text, tag)
                assert decode(content.encode(codec), declared)[0] == content, (label, declared, tag)
    if codec in ("cp932", "cp949", "gb18030"):
        assert decode(page(text).encode(codec) + b"\x81", labels[0])[0] == page(text) + BAD
    if not text.isascii():
        assert decode(page(text).encode(codec))[0] == page(text)  # detected


@pytest.mark.parametrize(
    ("label", "body", "text"),
    [
        ("iso-8859-8", "“שלום” –".encode("cp1255"), "“שלום” –"),
        ("tis-620", "“สวัสดี”".encode("cp874"), "“สวัสดี”"),
        ("iso-8859-11", "สวัสดี…".encode("cp874"), "สวัสดี…"),
        ("iso-8859-2", "łódź ".encode("iso8859-2") + b"\x84q\x94 \x85", "łódź „q” …"),
        ("big5", "價錢".encode("big5") + b"\xa3\xe1" + "啲".encode("big5hkscs"), "價錢€啲"),
        ("gbk", b"\x80 " + "金额".encode("gbk"), "€ 金额"),
        ("euc-jp", b"\xad\xa1 \xad\xea \xfc\xe2" + "日本語".encode("euc_jp"), "① ㈱ 髙日本語"),
        ("euc-jp", b"\xa1\xc1" + "日本語".encode("euc_jp"), "～日本語"),
        ("iso-2022-jp", "日本語のカタカナ abc".encode("iso2022_jp"), "日本語のカタカナ abc"),
        (None, "日本語 abc".encode("iso2022_jp"), "日本語 abc"),
        ("x-user-defined", b"caf\xe9 \x93x\x94", "café “x”"),
        ("koi8-r", "Привет".encode("koi8-r"), "Привет"),
        ("windows-1251", "Маяк горел \x98 всю ночь".encode("cp1251", "ignore") + b"\x98", "Маяк горел  всю ночь\ufffd"),
        ("utf-16", "Grüße 中文".encode("utf-16-le"), "Grüße 中文"),
        ("utf-16be", "Grüße 中文".encode("utf-16-be"), "Grüße 中文"),
        (None, "<p>Grüße 中文".encode("utf-16-be"), "<p>Grüße 中文"),
        ("utf-8", b"\xff\xfe" + "Grüße".encode("utf-16-le"), "Grüße"),
        ("gbk", "\ufeffGrüße".encode(), "Grüße"),
    ],
)
def test_single_signs(label: str | None, body: bytes, text: str) -> None:
    assert decode(body, label)[0] == text


@pytest.mark.parametrize("sign", ["§", "¶", "’", "café", "ü", "ä", "ö", "ø", "ç", "»", "Zoë", "🎉", "中", "½", "©"])
@pytest.mark.parametrize("size", [0, 99_000])
def test_one_sign_without_a_declaration_is_utf8(sign: str, size: int) -> None:
    text = "The keeper climbs the stairs. " * (size // 30 + 1) + sign
    for content in (text, f"# A title\n\n{text}\n", page(text), f"{text} {sign}{sign}"):
        assert decode_page(content.encode()) == (content, "utf-8", "utf-8")


NAMES = [
    "undefined", "rot13", "hex", "base64", "zlib", "bz2", "uu", "quopri", "idna", "punycode", "unicode_escape",
    "raw_unicode_escape", "utf-7", "utf-32", "none", "null", "utf-8,gbk", "mbcs", "oem", "css", "replacement",
    "hz-gb-2312", "iso-2022-kr", "utf-16", "utf-16le", "中文", "x-none", "\0", "",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_unknown_and_dangerous_names_are_passed_over(name: str) -> None:
    for content in (page("Grüße aus Köln"), page("plain"), page("Grüße", f"<meta charset='{name}'>")):
        assert decode(content.encode(), name)[0] == content


def test_what_the_choice_rests_on() -> None:
    korean = page("강물은 마을 위의 늪에서 시작된다. " * 9)
    tagged = korean.replace("<title>", "<meta charset=euc-kr><title>")
    assert decode_page(korean.encode("euc-kr"), "euc-kr")[1:] == ("cp949", "header")
    assert decode_page(tagged.encode("euc-kr"))[1:] == ("cp949", "meta")
    assert decode_page(korean.encode("euc-kr"))[1:] == ("cp949", "detected")
    assert decode_page(korean.encode("euc-kr"), "utf-8")[1:] == ("cp949", "detected")  # a wrong header
    assert decode_page(tagged.encode("euc-kr"), "utf-8")[1:] == ("cp949", "meta")
    assert decode_page(korean.encode(), "euc-kr")[1:] == ("utf-8", "utf-8")
    assert decode_page(korean.encode(), "utf-8")[1:] == ("utf-8", "header")
    assert decode_page(korean.encode("utf-16"), "utf-8")[1:] == ("utf-16-le", "bom")
    assert decode_page(b"<!-- <meta charset=gbk> --><p>\xe9t\xe9 \xe0 la mer</p>")[1] != "gb18030"
    assert decode_page(b"<?xml version='1.0' encoding='windows-1251'?><p>\xcf\xf0\xe8</p>").text.endswith("<p>При</p>")


@given(st.binary(max_size=300), st.sampled_from([None, *NAMES, "gbk", "big5", "euc-jp", "iso-2022-jp", "iso-8859-6"]))
def test_any_bytes_can_be_stored(body: bytes, charset: str | None) -> None:
    for content in (body, b"<meta charset=shift_jis>" + body, b"\x1b$B" + body, b"<?xml encoding='gb18030'?>" + body):
        decode(content, charset)[0].encode()
