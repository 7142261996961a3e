"""C4's line edits: what is left of a text when the lines that C4 deletes are gone (Raffel et al. 2020, section 2.2)."""

from __future__ import annotations

import re

from pipeline.signals.characters import UNSPACED_RANGES
from pipeline.signals.lines import C4_ENDS, FEWEST_C4_WORDS, LONGEST_C4_WORD
from pipeline.signals.parts import NOTICES

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
