"""Personal data in texts, replaced by placeholders that are reserved for documentation.

Addresses count only if they are valid and public (`ipaddress`), IBANs only if their check digits are right. The
placeholders (RFC 2606, RFC 5737, RFC 3849) are not masked again. Regular expressions without nested repetition: the
cost is linear. Those for addresses, which hold no white space, look only at the stretches without any around a sign
that each address has: a text without one costs a search for a character.

C4's line edits: what is left of a text when the lines that C4 deletes are gone (Raffel et al. 2020, section 2.2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.kernels.signals.chunks import NOTICES
from pipeline.kernels.signals.lexicon import UNSPACED_RANGES
from pipeline.kernels.signals.line_counts import C4_ENDS, FEWEST_C4_WORDS, LONGEST_C4_WORD

KINDS = ("email", "ip", "phone", "iban")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?<![\w.%+-])[A-Za-z0-9][\w.%+'-]{{0,63}}@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,63}}(?![\w-])")
_IPV4 = re.compile(r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{3,39}(?![\w:])")
_PHONE = re.compile(
    r"(?<![\w+.-])(?:\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-]|\.\d)"
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")


def mask(text: str, kinds: Sequence[str] = ("email", "ip")) -> tuple[str, dict[str, int]]:
    """The text with personal data of these kinds (of KINDS) replaced, and how many of each there were.

    >>> mask("Write to jane.doe@mail.org from 8.8.8.8.")
    ('Write to email@example.com from 192.0.2.1.', {'email': 1, 'ip': 1})
    """
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = 0
        for sign, pattern, replace in _MASKS[kind]:

            def substitute(match: re.Match[str], kind: str = kind, replace: _Replace = replace) -> str:
                found = replace(match.group())
                counts[kind] += found is not None
                return match.group() if found is None else found

            stretches = [(0, len(text))] if sign is None else _stretches(text, sign)
            pieces, at = [], 0
            for begin, end in stretches:
                pieces += [text[at:begin], pattern.sub(substitute, text[begin:end])]
                at = end
            text = "".join([*pieces, text[at:]])
    return text, counts


def _stretches(text: str, sign: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """(begin, end) of the stretches between blanks in which `sign` occurs."""
    end = 0
    for match in sign.finditer(text):
        at = match.start()
        if at >= end:
            begin = max(text.rfind(" ", end, at) + 1, text.rfind("\n", end, at) + 1, end)
            blank = _BLANK.search(text, match.end())
            end = blank.start() if blank else len(text)
            yield begin, end


_Replace = Callable[[str], str | None]


def _email(found: str) -> str | None:
    return None if found.lower().endswith(("@example.com", "@example.org", "@example.net")) else "email@example.com"


def _ip(found: str) -> str | None:
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return None
    if not address.is_global:
        return None
    return "192.0.2.1" if address.version == 4 else "2001:db8::1"


def _phone(found: str) -> str | None:
    return "555-0100" if 8 <= sum(map(str.isdigit, found)) <= 15 else None


def _iban(found: str) -> str | None:
    joined = found.replace(" ", "")
    digits = "".join(str(int(sign, 36)) for sign in joined[4:] + joined[:4])
    return "XX00 0000 0000 0000" if 15 <= len(joined) <= 34 and int(digits) % 97 == 1 else None


_BLANK = re.compile(r"\s")
_MASKS: dict[str, tuple[tuple[re.Pattern[str] | None, re.Pattern[str], _Replace], ...]] = {
    "email": ((re.compile("@[A-Za-z0-9]"), _EMAIL, _email),),
    "ip": (
        (re.compile(r"\.\d{1,3}\.\d{1,3}\.\d"), _IPV4, _ip),
        (re.compile(":[0-9A-Fa-f]{0,4}:"), _IPV6, _ip),
    ),
    "phone": ((None, _PHONE, _phone),),
    "iban": ((None, _IBAN, _iban),),
}


_RANGES = "".join("-".join(chr(int(end, 16)) for end in part.split("-")) for part in UNSPACED_RANGES.split())
_BETWEEN_WORDS = re.compile(rf"\s+|([{_RANGES}])")  # keeps letters of scripts without spaces, which are words
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


def edit_lines(text: str, *, terminal: bool = False) -> str:
    """Lines without citation marks, white space at their ends, and the lines that C4 deletes.

    Deleted are lines of fewer than 3 words, with a word of over 1,000 characters, with `javascript` or a notice on
    cookies and terms; with `terminal`, also those that do not end in . ? ! " or '.
    """
    return "\n".join(line for line in map(_edit, text.splitlines()) if line and not (terminal and _open(line)))


def _edit(line: str) -> str:
    words = line.split() if line.isascii() else [word for word in _BETWEEN_WORDS.split(line) if word]
    if len(words) < FEWEST_C4_WORDS or max(map(len, words)) > LONGEST_C4_WORD:
        return ""
    folded = line.lower()
    return "" if any(notice in folded for notice in NOTICES) else _CITATION.sub("", line.strip())


def _open(line: str) -> bool:
    return not line.endswith(tuple(C4_ENDS)) or line.endswith("...")
