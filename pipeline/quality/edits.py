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
_BLANK = re.compile(r"\s")
_RANGES = "".join("-".join(chr(int(end, 16)) for end in part.split("-")) for part in UNSPACED_RANGES.split())
_BETWEEN_WORDS = re.compile(rf"\s+|([{_RANGES}])")  # keeps letters of scripts without spaces, each a word
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_Replace = Callable[[str], str | None]


def mask(text: str, kinds: Sequence[str] = ("email", "ip")) -> tuple[str, dict[str, int]]:
    """The text with personal data of these kinds (of KINDS) replaced, and how many of each there were.

    >>> mask("Write to jane.doe@mail.org from 8.8.8.8.")
    ('Write to email@example.com from 192.0.2.1.', {'email': 1, 'ip': 1})
    """
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = 0
        for sign, pattern, replace in _MASKS[kind]:  # the sign shows where a match may be; None: anywhere

            def substitute(match: re.Match[str], kind: str = kind, replace: _Replace = replace) -> str:
                placeholder = replace(match.group())
                counts[kind] += placeholder is not None
                return match.group() if placeholder is None else placeholder

            stretches = [(0, len(text))] if sign is None else _stretches(text, sign)
            pieces, at = [], 0
            for begin, end in stretches:
                pieces += [text[at:begin], pattern.sub(substitute, text[begin:end])]
                at = end
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


def _email(match: str) -> str | None:
    return None if match.lower().endswith(("@example.com", "@example.org", "@example.net")) else "email@example.com"


def _ip(match: str) -> str | None:
    try:
        address = ipaddress.ip_address(match)
    except ValueError:
        return None
    if not address.is_global:
        return None
    return "192.0.2.1" if address.version == 4 else "2001:db8::1"


def _phone(match: str) -> str | None:
    return "555-0100" if 8 <= sum(map(str.isdigit, match)) <= 15 else None


def _iban(match: str) -> str | None:
    joined = match.replace(" ", "")
    digits = "".join(str(int(sign, 36)) for sign in joined[4:] + joined[:4])
    return "XX00 0000 0000 0000" if 15 <= len(joined) <= 34 and int(digits) % 97 == 1 else None


_MASKS: dict[str, tuple[tuple[re.Pattern[str] | None, re.Pattern[str], _Replace], ...]] = {
    "email": ((re.compile("@[A-Za-z0-9]"), _EMAIL, _email),),
    "ip": (
        (re.compile(r"\.\d{1,3}\.\d{1,3}\.\d"), _IPV4, _ip),
        (re.compile(":[0-9A-Fa-f]{0,4}:"), _IPV6, _ip),
    ),
    "phone": ((None, _PHONE, _phone),),
    "iban": ((None, _IBAN, _iban),),
}


def edit_lines(text: str, *, terminal: bool = False) -> str:
    """The text without the lines that C4 deletes; in the others, without citation marks and outer white space.

    C4 deletes lines of fewer than 3 words, with a word of over 1,000 characters, with `javascript` or a notice on
    cookies and terms; with `terminal`, also those that do not end in . ? ! " or '.
    """
    return "\n".join(line for line in map(_edit, text.splitlines()) if line and not (terminal and _is_open(line)))


def _edit(line: str) -> str:
    words = line.split() if line.isascii() else [word for word in _BETWEEN_WORDS.split(line) if word]
    if len(words) < FEWEST_C4_WORDS or max(map(len, words)) > LONGEST_C4_WORD:
        return ""
    folded = line.lower()
    return "" if any(notice in folded for notice in NOTICES) else _CITATION.sub("", line.strip())


def _is_open(line: str) -> bool:
    """Whether the line does not end in terminal punctuation."""
    return not line.endswith(tuple(C4_ENDS)) or line.endswith("...")
