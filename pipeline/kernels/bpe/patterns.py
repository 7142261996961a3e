r"""Pre-tokenization patterns that the kernel knows, and the Unicode classes that they are made of.

A pattern is a family (`gpt2`, or `cl100k`, which Llama 3 and Qwen 2 share) and the most digits of a number that
stay together. The classes \p{L}, \p{N} and \s are learned by asking `tokenizers` about every code point, so they
are those of the Unicode version that it was built with; the table is kept on disk.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import Regex
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import ByteLevel

from pipeline.kernels.compiled import kept_table

OTHER, LETTER, NUMBER, SPACE, NEWLINE = range(5)
FAMILIES = ("gpt2", "cl100k")
# No letters, numbers and white space from this code point on, in Unicode 17 (tests/pipeline/kernels/test_bpe.py).
_LAST = 0x33480
_SURROGATES = range(0xD800, 0xE000)
_MARK = "\U000f0000"  # none of the characters that are asked about


class Pattern(NamedTuple):
    """What the pre-tokenizer splits by. digits: most digits in one piece; 0 for any number."""

    family: str
    digits: int

    @property
    def regex(self) -> str:
        """The regular expression (OpenAI's published ones, r50k_base and cl100k_base, but for the digits)."""
        return _spell(self, _CONTRACTIONS[self.family][0])


DEFAULT_DIGITS = {"gpt2": 0, "cl100k": 3}
# Spellings of the same thing in tokenizer.json files; the first is ours.
_CONTRACTIONS = {
    "gpt2": (r"'(?:[sdmt]|ll|ve|re)", r"'s|'t|'re|'ve|'m|'ll|'d"),
    "cl100k": (r"(?i:'(?:[sdmt]|ll|ve|re))", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"'(?i:[sdmt]|ll|ve|re)"),
}
_REST = {
    "gpt2": r"{}| ?\p{{L}}+|{}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
    "cl100k": r"{}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def _spell(pattern: Pattern, contractions: str) -> str:
    digits = {0: r" ?\p{N}+" if pattern.family == "gpt2" else r"\p{N}+", 1: r"\p{N}"}
    number = digits.get(pattern.digits, rf"\p{{N}}{{1,{pattern.digits}}}")
    return _REST[pattern.family].format(contractions, number)


@cache
def known_patterns() -> dict[str, Pattern]:
    """Every regular expression that the kernel can stand in for."""
    patterns = [Pattern(family, digits) for family in FAMILIES for digits in range(10)]
    return {_spell(pattern, words): pattern for pattern in patterns for words in _CONTRACTIONS[pattern.family]}


@kept_table(f"tokenizers-{tokenizers.__version__}")
def character_classes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 (0x110000,): class of each code point, as the regular expressions of `tokenizers` see it."""
    classes = np.full(0x110000, OTHER, np.uint8)
    points = np.array([point for point in range(_LAST) if point not in _SURROGATES])
    text = "".join(map(chr, points.tolist()))
    for expression, number in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE), (r"[\r\n]", NEWLINE)):
        marked = Replace(Regex(expression), _MARK).normalize_str(text)
        classes[points[np.frombuffer(marked.encode("utf-32-le"), np.uint32) == ord(_MARK)]] = number
    return classes


@cache
def byte_letters() -> dict[str, int]:
    """The printable character that byte-level tokenizers write for each byte (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    assert set(letters) == set(ByteLevel.alphabet())
    return letters
