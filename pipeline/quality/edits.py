"""Edits of kept texts: masks for personal data, and C4's line edits.

Personal data is replaced by placeholders reserved for documentation (RFC 2606, RFC 5737, RFC 3849), which are not
masked again. IP addresses count only if they are valid and public (`ipaddress`), IBANs only if their check digits are
right. The regular expressions have no nested repetition: the cost is linear. Those for e-mail and IP addresses, which
contain no white space, are tried only on stretches without any around a sign that each address has: a text without such
a sign costs one search for it.

C4's line edits delete lines and citation marks (Raffel et al. 2020, section 2.2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.kernels.signals.chunks import NOTICES
from pipeline.kernels.signals.lexicon import SEPARATORS, UNSPACED_RANGES
from pipeline.kernels.signals.line_counts import C4_ENDS, FEWEST_C4_WORDS, LONGEST_C4_WORD

KINDS = ("email", "ip", "phone", "iban")
# Words of other scripts may touch an address: only Latin letters and ASCII digits bound one. No match is cut back to a
# shorter one (`(?>`), which would leave the rest of the data in the text.
_LATIN = "A-Za-z0-9À-ÖØ-öø-ʯḀ-ỿ"
_LABEL = rf"(?:[{_LATIN}](?:[{_LATIN}-]{{0,61}}[{_LATIN}])?|(?:(?![{_LATIN}])[^\W_]){{1,63}})"  # one script at a time
# Top-level domains of other scripts end at no border of words in scripts without spaces, so they are named.
_DOMAINS = (
    "中国|中國|公司|网络|網絡|香港|台湾|台灣|澳門|みんな|コム|한국|닷컴|닷넷|ไทย|ລາວ|भारत|ভারত|বাংলা|இந்தியா|рф|рус|бел|укр|срб|бг|қаз|мон|москва|"
    "сайт|онлайн|ελ|ευ|հայ|გე|ישראל|السعودية|امارات|ایران|مصر|المغرب|الجزائر|قطر|موقع|شبكة"
)
_LOCAL = (
    rf"(?<![{_LATIN}])[{_LATIN}][{_LATIN}._%+'-]{{0,63}}|(?<![\u0370-\u052f])[\u0370-\u052f][\u0370-\u052f._-]{{0,63}}"
)
_EMAIL = re.compile(rf"(?:{_LOCAL})@(?:{_LABEL}\.){{1,8}}(?:[A-Za-z]{{2,63}}(?![{_LATIN}])|{_DOMAINS})")
_IPV4 = re.compile(r"(?<![A-Za-z0-9.-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9-]|\.[0-9])")
# Behind a colon only where a name stands before it (`IP:2001:...`).
_IPV6 = re.compile(
    r"(?:(?<![A-Za-z0-9:.])|(?<=[^0-9A-Fa-f:]:)|(?<=[Vv]6:))"
    r"(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)(?>[0-9A-Fa-f:]{3,39})(?![A-Za-z0-9])"
)
_GAP = "[ .\u00a0\u2009\u202f\u2011-]?"
_PHONE = re.compile(
    rf"(?<![A-Za-z0-9+.-])(?:(?>\+[1-9][0-9]{{0,2}}(?:{_GAP}(?:\([0-9]{{1,4}}\)|[0-9]{{1,4}})){{2,7}})"
    r"|\([0-9]{3}\) ?[0-9]{3}-[0-9]{4}|[0-9]{3}-[0-9]{3}-[0-9]{4})(?!(?!ext|x[0-9])[A-Za-z0-9]|[.-][0-9])"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ \u00a0]?[A-Z0-9]{4}){2,7}(?:[ \u00a0]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
# Four numbers that are no address: version numbers, and object identifiers (X.500's are known without the word).
_NUMBERED = re.compile(
    r"(?i)(?:\b(?:oids?|object identifiers?|versions?|ver|release)|版本|バージョン|버전|версия)\W{0,3}$"
)
_OIDS = ("2.5.4.", "2.5.29.", "1.3.6.1")
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")  # all that is assigned (RFC 4291); `dead::beef` is not in it
_BLANK = re.compile(r"\s")
_RANGES = "".join("-".join(chr(int(end, 16)) for end in part.split("-")) for part in UNSPACED_RANGES.split())
_BETWEEN_WORDS = re.compile(rf"[\s{SEPARATORS}]+|([{_RANGES}])")  # keeps letters of scripts without spaces, each a word
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_Replace = Callable[[re.Match[str]], str | None]


def mask(text: str, kinds: Sequence[str] = ("email", "ip")) -> tuple[str, dict[str, int]]:
    """The text with personal data of these kinds (of KINDS) replaced, and how many of each there were.

    >>> mask("Write to jane.doe@mail.org from 8.8.8.8.")
    ('Write to email@example.com from 192.0.2.1.', {'email': 1, 'ip': 1})
    """
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = 0
        for sign, pattern, replace in _MASKS[kind]:  # the sign shows where a match may be; None: anywhere
            pieces, at = [], 0
            for begin, end in [(0, len(text))] if sign is None else _stretches(text, sign):
                for match in pattern.finditer(text, begin, end):
                    if (placeholder := replace(match)) is not None:
                        pieces += [text[at : match.start()], placeholder]
                        at, counts[kind] = match.end(), counts[kind] + 1
            text = "".join([*pieces, text[at:]])
    return text, counts


def _stretches(text: str, sign: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """(begin, end) of the stretches between white space in which `sign` occurs."""
    end = 0
    for match in sign.finditer(text):
        at = match.start()
        if at >= end:
            begin = max(text.rfind(" ", end, at) + 1, text.rfind("\n", end, at) + 1, end)
            blank = _BLANK.search(text, match.end())
            end = blank.start() if blank else len(text)
            yield begin, end


def _email(match: re.Match[str]) -> str | None:
    known = match.group().lower().endswith(("@example.com", "@example.org", "@example.net"))
    return None if known else "email@example.com"


def _ipv4(match: re.Match[str]) -> str | None:
    before = match.string[max(match.start() - 24, 0) : match.start()]
    if match.group().startswith(_OIDS) or _NUMBERED.search(before):
        return None
    address = _address(match.group())
    return "192.0.2.1" if address and address.is_global else None


def _ipv6(match: re.Match[str]) -> str | None:
    text = match.group()
    colon = ":" if text.endswith(":") and not text.endswith("::") else ""
    address = _address(text.removesuffix(colon))
    return f"2001:db8::1{colon}" if address and address.is_global and address in _GLOBAL_IPV6 else None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _phone(match: re.Match[str]) -> str | None:
    """A number without gaps that is too short or ends in zeros is an amount (`+150000000 dollars`)."""
    text = match.group()
    digits = "".join(filter(str.isdigit, text))
    if text == f"+{digits}" and (len(digits) < 10 or digits.endswith("00000")):
        return None
    fewest, most = (11, 11) if text.startswith(("+1", "+7")) else (8, 15)
    return "555-0100" if fewest <= len(digits) <= most else None


def _iban(match: re.Match[str]) -> str | None:
    """The longest beginning that is valid: a word in capitals may follow."""
    text = match.group().replace("\u00a0", " ")
    end = len(text)
    while end > 0:
        joined = text[:end].replace(" ", "")
        digits = "".join(str(int(sign, 36)) for sign in joined[4:] + joined[:4])
        if 15 <= len(joined) <= 34 and int(digits) % 97 == 1:
            return "XX00 0000 0000 0000" + match.group()[end:]
        end = text.rfind(" ", 0, end)
    return None


_MASKS: dict[str, tuple[tuple[re.Pattern[str] | None, re.Pattern[str], _Replace], ...]] = {
    "email": ((re.compile(r"@\w"), _EMAIL, _email),),
    "ip": (
        (re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"), _IPV4, _ipv4),
        (re.compile(":[0-9A-Fa-f]{0,4}:"), _IPV6, _ipv6),
    ),
    "phone": ((None, _PHONE, _phone),),
    "iban": ((None, _IBAN, _iban),),
}


def edit_lines(text: str, *, terminal: bool = False) -> str:
    """The text without the lines that C4 deletes; in the others, without citation marks and outer white space.

    C4 deletes lines of fewer than 3 words, with a word of over 1,000 characters, with `javascript` or a notice on
    cookies and terms; with `terminal`, also those that do not end in . ? ! " or '.
    """
    lines = filter(None, map(_edit, text.splitlines()))
    ends = tuple(C4_ENDS)
    return "\n".join(line for line in lines if not terminal or (line.endswith(ends) and not line.endswith("...")))


def _edit(line: str) -> str:
    words = line.split() if line.isascii() else [word for word in _BETWEEN_WORDS.split(line) if word]
    if len(words) < FEWEST_C4_WORDS or max(map(len, words)) > LONGEST_C4_WORD:
        return ""
    folded = line.lower()
    return "" if any(notice in folded for notice in NOTICES) else _CITATION.sub("", line.strip())
