"""What each signal is: unit, formula, source.

All are finite; shares lie between 0 and 1, counts and means are at least 0.

A *token* and a *word* are those of `words.py`; a *line* is that of each source's reference (`line_counts.py`).
G: Gopher (Rae et al. 2021, appendix A1.1 and table A1), C4: Raffel et al. 2020 section 2.2,
FW: FineWeb (Penedo et al. 2024, section 3.6), each as datatrove 0.9 computes it; P: this project.
"""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    """unit: of the value; formula: how it is computed; source: G, C4, FW or P."""

    unit: str
    formula: str
    source: str


_SHARE_OF_TEXT = "share of characters"
DEFINITIONS: dict[str, Definition] = {
    "characters": Definition("characters", "code points of the text", "P"),
    "words": Definition("words", "tokens that hold more than signs", "G"),
    "mean_word_length": Definition("characters", "characters of words / words", "G"),
    "hash_ratio": Definition("per token", "`#` / tokens (may exceed 1)", "G"),
    "ellipsis_ratio": Definition("per token", "(`...` + `…`) / tokens (may exceed 1)", "G"),
    "bullet_lines": Definition("share of lines", "lines that begin with `•` or `-`, after white space", "G"),
    "ellipsis_lines": Definition("share of lines", "lines that end in `...` or `…`, before white space", "G"),
    "alpha_words": Definition("share of tokens", "tokens with a letter / tokens (punctuation counts as tokens)", "G"),
    "alpha_only_words": Definition("share of words", "tokens with a letter / words, 1 at most", "P"),
    "stop_words": Definition("words", "different stop words of the language in it (English: Gopher's eight)", "G"),
    "duplicate_lines": Definition("share of lines", "lines seen before / lines", "G"),
    "duplicate_line_characters": Definition(_SHARE_OF_TEXT, "characters of lines seen before / characters", "G"),
    "repeated_line_characters": Definition(
        _SHARE_OF_TEXT, "characters of lines seen before, blank ones left out / characters but newlines", "FW"
    ),
    "punctuated_lines": Definition("share of lines", "lines not blank that end in a sentence's last sign", "FW"),
    "short_lines": Definition("share of lines", "lines not blank of at most 30 characters", "FW"),
    "longest_line": Definition("characters", "longest line", "P"),
    "duplicate_paragraphs": Definition("share of paragraphs", "paragraphs seen before / paragraphs", "G"),
    "duplicate_paragraph_characters": Definition(_SHARE_OF_TEXT, "of paragraphs seen before / characters", "G"),
    **{
        f"top_{n}gram": Definition(
            _SHARE_OF_TEXT, f"of all occurrences of the most frequent {n} tokens in a row, with spaces between", "G"
        )
        for n in (2, 3, 4)
    },
    **{
        f"duplicate_{n}gram": Definition(
            _SHARE_OF_TEXT, f"of {n} tokens in a row seen before; reading goes on after them", "G"
        )
        for n in range(5, 11)
    },
    "c4_sentences": Definition("sentences", "sentences of the lines that C4 keeps, ends of lines aside", "C4"),
    "curly_brackets": Definition("lines", "lines with `{` among those of 3 words and more", "C4"),
    "lorem_ipsum": Definition("lines", "lines with `lorem ipsum` among those of 3 words and more", "C4"),
    "c4_terminal_sentences": Definition("sentences", "c4_sentences of lines that end in . ? ! \" or '", "C4"),
    "c4_terminal_curly_brackets": Definition("lines", "curly_brackets of such lines", "C4"),
    "c4_terminal_lorem_ipsum": Definition("lines", "lorem_ipsum of such lines", "C4"),
    "c4_lines": Definition("share of lines", "lines that C4 keeps, ends of lines aside", "C4"),
    "newlines_per_word": Definition("per token", "newlines / tokens (may exceed 1)", "FW"),
    "stop_word_ratio": Definition("share of words", "stop words of the language / words", "P"),
    "unique_words": Definition("share of tokens", "different tokens / tokens", "P"),
    "word_entropy": Definition("bits", "entropy of the tokens' frequencies", "P"),
    "digit_ratio": Definition("share of visible characters", "decimal digits", "P"),
    "punctuation_ratio": Definition("share of visible characters", "punctuation (Unicode's P)", "P"),
    "upper_ratio": Definition("share of visible characters", "capital letters", "P"),
    "copied_characters": Definition(
        _SHARE_OF_TEXT, "of tokens that a greedy Lempel-Ziv parse copies from before, 4 and more in a row", "P"
    ),
}
SIGNALS = tuple(DEFINITIONS)
