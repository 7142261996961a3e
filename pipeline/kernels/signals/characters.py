"""Properties of characters as bits of one table, which the kernels index by code point.

Built once a process from `unicodedata` (0.1 s), for the planes that hold letters; code points above have no
property. Sets that no Unicode property gives are listed here.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np

U16 = np.ndarray[Any, np.dtype[np.uint16]]
LETTERS_END = 0x32400

ALPHA = 1  # a letter (categories L*)
LOWER = 2  # a lower-case letter, or one of a script without case
UPPER = 4  # an upper-case letter, or one of a script without case
DIGIT = 8  # category Nd
SPACE = 16  # as str.isspace
AFFIX = 32  # cut off at the beginning and at the end of a word
PREFIX = 64  # cut off at the beginning only
SYMBOL = 128  # a word made of these alone is none
PUNCTUATION = 256  # categories P*
TERMINAL = 512  # ends a sentence
UNSPACED = 1024  # a letter of a script without spaces between words
BREAK = 2048  # ends a line, as str.splitlines; newlines aside
QUOTE = 4096  # quotation marks
MARK = 8192  # combining marks (categories M*)

_AFFIXES = ",:;!?()[]{}<>_#*&'\"`"  # of ASCII; beyond it all punctuation and pictographs
_PREFIXES = "=%+$£€¥§₹₽₩₴"
_QUOTES = "'\"`´‘’‚“”„«»"
# Beyond ASCII few signs count as no word: a bullet or a currency sign is one, as in the reference.
_SYMBOLS = "“”„’…–—«»►━∶´～（）【】「」、《》〈〉％；：，"
_BREAKS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# Unicode's property Sentence_Terminal (PropList.txt), first and last code point of each run.
_TERMINALS = (
    "21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d5"
    " 1803 1809 1944-1945 1aa8-1aab 1b4e-1b4f 1b5a-1b5b 1b5e-1b5f 1b7d-1b7f 1c3b-1c3c 1c7e-1c7f 2024 203c-203d"
    " 2047-2049 2cf9-2cfb 2e2e 2e3c 2e53-2e54 2e60-2e61 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f"
    " a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe12 fe15-fe16 fe52 fe56-fe57 ff01 ff0e ff1f ff61"
)
UNSPACED_RANGES = "e00-eff 1000-109f 1780-17ff 3040-30ff 3400-4dbf 4e00-9fff f900-faff 20000-323af"


@cache
def character_table() -> U16:
    """uint16 (0x110000,): the bits above for each code point."""
    characters = [chr(point) for point in range(LETTERS_END)]
    categories = [unicodedata.category(character) for character in characters]
    bits = np.array([_BY_CATEGORY.get(category, 0) for category in categories], np.uint16)
    bits[:128] &= ~np.uint16(AFFIX)
    for flag, members in ((AFFIX, _AFFIXES), (PREFIX, _PREFIXES), (QUOTE, _QUOTES), (BREAK, _BREAKS)):
        bits[[ord(member) for member in members]] |= flag
    bits[[point for point, character in enumerate(characters) if character.isspace()]] |= SPACE
    for low, high in _ranges(_TERMINALS):
        bits[low : high + 1] |= TERMINAL
    for low, high in _ranges(UNSPACED_RANGES):
        bits[low : high + 1] |= np.where(bits[low : high + 1] & ALPHA, UNSPACED, 0).astype(np.uint16)
    signs = [point for point in range(160) if not characters[point].isalnum()]
    bits[[*signs, *map(ord, _SYMBOLS)]] |= SYMBOL
    bits[(bits & TERMINAL) > 0] |= SYMBOL
    return np.concatenate([bits, np.zeros(0x110000 - LETTERS_END, np.uint16)])


_CASED = {"Lu": ALPHA | UPPER, "Lt": ALPHA | UPPER, "Ll": ALPHA | LOWER}
_UNCASED = dict.fromkeys(("Lm", "Lo"), ALPHA | LOWER | UPPER)
_SIGNS = dict.fromkeys(("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"), PUNCTUATION | AFFIX)
_MARKS = dict.fromkeys(("Mn", "Mc", "Me"), MARK)
_BY_CATEGORY = {**_CASED, **_UNCASED, **_SIGNS, **_MARKS, "Nd": DIGIT, "So": AFFIX}


def _ranges(text: str) -> list[tuple[int, int]]:
    pairs = [part.partition("-") for part in text.split()]
    return [(int(low, 16), int(high or low, 16)) for low, _, high in pairs]
