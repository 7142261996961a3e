"""Bytes of a page to text, and a text's blanks to what documents have.

Charsets follow the WHATWG Encoding Standard, with one difference: bytes that are UTF-8 are read as UTF-8 whatever the
header or the page says, since other charsets almost never look like it, and wrong declarations are common. The order
is: byte-order mark, UTF-8, HTTP header, `<meta>`, detection. Undecodable bytes become U+FFFD. A label is passed over
where the standard does not know it, or where more than a few bytes contradict it. Figures: benchmarks/charsets.py.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What the standard means by a label, where Python's codec of that name knows fewer characters. (ISO-8859-8 differs
# from windows-1255 in two signs that no page uses.)
_WIDER = {"gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932", "big5": "big5hkscs", "iso8859-11": "cp874",
          "iso8859-8": "cp1255"}  # fmt: skip
_LABELS = {"x-user-defined": "cp1252", "x-mac-cyrillic": "mac-cyrillic", "x-mac-ukrainian": "mac-cyrillic"}
_EAST_ASIAN = {"gb18030", "cp949", "cp932", "big5hkscs", "euc_jp"}
_META = re.compile(
    rb"<!--.*?-->|(?:<meta\b[^>]{0,500}?\bcharset|<\?xml\b[^>]{0,99}?\bencoding)\s*=\s*[\"']?\s*([\w.:-]+)",
    re.IGNORECASE | re.DOTALL,
)
META_BYTES = 4096  # where a declaration is looked for; the standard asks for 1,024 at least
DETECTED_BYTES = 1_000_000
_DAMAGE = re.compile("\ufffd{1,6}")  # a broken character becomes up to six
_JIS = str.maketrans("\u301c\u2016\u2212\u00a2\u00a3\u00ac", "\uff5e\u2225\uff0d\uffe0\uffe1\uffe2")  # as in Shift_JIS
_BLANK_LINES = re.compile(r"\n\s*\n+")
_CONTROLS = re.compile("[\x80-\x9f]")


class Decoded(NamedTuple):
    """A decoded page. charset: Python's codec; basis: why this one (bom, utf-8, header, meta or detected)."""

    text: str
    charset: str
    basis: str


def decode(body: bytes, charset: str | None = None) -> tuple[str, str]:
    """(text, charset used) of a page; charset: the declared one. Undecodable bytes become U+FFFD; never raises."""
    return decode_page(body, charset)[:2]


def decode_page(body: bytes, declared: str | None = None) -> Decoded:
    """Like `decode`, with what the choice rested on. A declaration that proved right is named before `utf-8`."""
    for mark, name in _BOMS:
        if body.startswith(mark):
            return Decoded(_read(body, name)[0], name, "bom")
    header = _codec(declared)
    if wide := _utf16(body, header):
        return Decoded(_read(body, wide)[0], wide, "header" if header == wide else "detected")
    labels = {"header": header, "meta": None if header == "utf-8" else _declared_within(body)}
    text, bad = _read(body, "utf-8")
    if not bad and text.isascii() and (codec := _ascii_codec(body, labels)):
        text = _read(body, codec)[0] if codec == "iso2022_jp" else text
        return Decoded(text, codec, next((basis for basis, label in labels.items() if label == codec), "detected"))
    named = next((basis for basis, codec in labels.items() if codec == "utf-8"), "utf-8")
    if not bad and header not in _EAST_ASIAN:
        return Decoded(text, "utf-8", named)
    good = _count(text)
    # Two or three East Asian characters may happen to be UTF-8.
    chance = good < 4 and header in _EAST_ASIAN and not _read(body, header)[1]
    if (bad * 4 <= good and not chance) or (named != "utf-8" and bad <= max(1, good // 2)):
        return Decoded(text, "utf-8", named)
    labels["meta"] = labels["meta"] or _declared_within(body)
    for basis, codec in labels.items():
        if codec and codec != "utf-8":
            text, bad = _read(body, codec)
            if bad <= max(1, _count(text) // 8):
                return Decoded(text, codec, basis)
    guess = _detect(body)
    return Decoded(_read(body, guess)[0], guess, "detected")


def tidy(text: str) -> str:
    """Lines without trailing blanks, at most one blank line in a row, no NUL characters."""
    lines = text.replace("\0", "").replace("\r\n", "\n").split("\n")
    return _BLANK_LINES.sub("\n\n", "\n".join([line.rstrip(" \t\f\v") for line in lines])).strip()


def _codec(label: str | None) -> str | None:
    """Python's codec for a label of the standard, None for any other name."""
    label = (label or "").strip().lower()
    codec = map_encoding_to_html5(label, fallback_utf8=False) or _LABELS.get(label) if label.isascii() else None
    return _WIDER.get(codec, codec) if codec else None


def _declared_within(body: bytes) -> str | None:
    """Codec that a page names itself. Where the name could be read, the page is not UTF-16 (so the standard)."""
    labels = (match[1] for match in _META.finditer(body[:META_BYTES]) if match[1])
    codec = next(filter(None, (_codec(label.decode("ascii")) for label in labels)), None)
    return "utf-8" if codec and codec.startswith("utf-16") else codec


def _utf16(body: bytes, header: str | None) -> str | None:
    """UTF-16 without a mark: declared, with the zero bytes that its blanks and tags have, or begun by a tag."""
    if header and header.startswith("utf-16") and b"\0" in body[:1000]:
        return header
    return {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(body[:2])


def _ascii_codec(body: bytes, labels: dict[str, str | None]) -> str | None:
    """Codec of bytes below 128, None for UTF-8 without a declaration; ISO-2022-JP shows by its escapes."""
    if b"\x1b" in body and (b"\x1b$B" in body or b"\x1b$@" in body):
        return "iso2022_jp"
    return next((codec for codec in labels.values() if codec and not codec.startswith(("utf-16", "iso2022"))), None)


def _read(body: bytes, codec: str) -> tuple[str, int]:
    """(text, number of broken characters) of bytes in a codec."""
    if codec == "iso2022_jp":
        body, codec = _from_iso2022(body), "euc_jp"
    try:
        text, bad = body.decode(codec), 0
    except UnicodeDecodeError:
        text = body.decode(codec, "charset" if codec in _EAST_ASIAN else "replace")
        bad = text.count("\ufffd")
        if bad < 100:  # else slow, and one more or less decides nothing
            bad = len(_DAMAGE.findall(text))
    if codec == "euc_jp":
        text = text.translate(_JIS)
    elif codec.startswith("iso8859") and _CONTROLS.search(text):  # Windows' quotes and dashes under another name
        text = _CONTROLS.sub(lambda control: control[0].encode("latin-1").decode("cp1252", "replace"), text)
    return text.lstrip("\ufeff"), bad


def _count(text: str) -> int:
    """Number of characters beyond ASCII that are not broken."""
    return len(text) - text.count("\ufffd") - len(text.encode("ascii", "ignore"))


def _from_iso2022(body: bytes) -> bytes:
    """ISO-2022-JP as EUC-JP."""
    high = bytes(range(128, 256)) * 2
    body = re.sub(rb"\x1b\$[B@]([^\x1b\n]*)", lambda part: part[1].translate(high), body)
    body = re.sub(rb"\x1b\(I([^\x1b\n]*)", lambda part: re.sub(b"(.)", b"\x8e\\1", part[1].translate(high)), body)
    return re.sub(rb"\x1b\([BJ]", b"", body)


def _mend(error: UnicodeError) -> tuple[str, int]:
    """What the standard reads where Python's codec stops, else U+FFFD."""
    assert isinstance(error, UnicodeDecodeError)
    pair = error.object[error.start : error.start + 2]
    try:
        if error.encoding == "gb18030" and pair[:1] == b"\x80":
            return "\u20ac", error.start + 1
        if error.encoding == "big5hkscs":
            return pair.decode("cp950"), error.start + 2
        if error.encoding == "euc_jp" and min(pair) > 0xA0:  # NEC's and IBM's characters, by their place in Shift_JIS
            row, cell = pair[0] - 0xA1, pair[1] - 0xA1
            first = row // 2 + (0x81 if row < 62 else 0xC1)
            second = cell + (0x9F if row % 2 else 0x40 + (cell >= 63))
            return bytes((first, second)).decode("cp932"), error.start + 2
    except (UnicodeDecodeError, IndexError):
        pass
    return "\ufffd", error.end


codecs.register_error("charset", _mend)


def _detect(body: bytes) -> str:
    """uchardet's guess if the standard has it, else what browsers assume."""
    guess = detect_encoding(body, max_len=DETECTED_BYTES, html5_compatible=False) or ""
    codec = {"cp949": "cp949", "koi8-r": "koi8-u"}.get(guess) or _codec(guess)  # KOI8-U: box drawing is rarer
    return codec if codec and codec != "utf-8" else "cp1252"
