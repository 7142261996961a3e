"""Published quality rules as thresholds on signals (`pipeline.kernels.signals.measure`), by preset.

A rule keeps documents for which `signal <op> threshold` holds. Sources: Gopher, Rae et al. 2021, section A1.1 and table
A1; C4, Raffel et al. 2020, section 2.2; FineWeb, Penedo et al. 2024, section 3.6 (0.1 for duplicated lines, as in the
paper; datatrove's code has 0.01). Each preset decides as datatrove's filter of that name (benchmarks/quality.py);
`c4` as FineWeb uses it, without the terminal-punctuation line rule, which its `c4_terminal_*` rules bring back.
"""

from __future__ import annotations

from typing import NamedTuple


class QualityRule(NamedTuple):
    """Keep documents whose `signal` is at least (">=") or at most ("<=") `threshold`."""

    signal: str
    op: str
    threshold: float


NEEDS_STOP_WORDS = frozenset({"gopher_stop_words"})  # off for languages without a list of stop words
# Variants of other rules, off until a recipe sets them to true or gives a threshold.
OPTIONAL = frozenset(
    {"gopher_alpha_only_words", "c4_terminal_sentences", "c4_terminal_curly_brackets", "c4_terminal_lorem_ipsum"}
)

PRESETS: dict[str, dict[str, QualityRule]] = {
    "gopher": {
        "gopher_min_words": QualityRule("words", ">=", 50),
        "gopher_max_words": QualityRule("words", "<=", 100_000),
        "gopher_min_word_length": QualityRule("mean_word_length", ">=", 3),
        "gopher_max_word_length": QualityRule("mean_word_length", "<=", 10),
        "gopher_hashes": QualityRule("hash_ratio", "<=", 0.1),
        "gopher_ellipses": QualityRule("ellipsis_ratio", "<=", 0.1),
        "gopher_bullet_lines": QualityRule("bullet_lines", "<=", 0.9),
        "gopher_ellipsis_lines": QualityRule("ellipsis_lines", "<=", 0.3),
        "gopher_alpha_words": QualityRule("alpha_words", ">=", 0.8),
        # The paper's sentence read strictly: of the words, punctuation left out. Code and tables pass more often.
        "gopher_alpha_only_words": QualityRule("alpha_only_words", ">=", 0.8),
        "gopher_stop_words": QualityRule("stop_words", ">=", 2),
        "gopher_duplicate_lines": QualityRule("duplicate_lines", "<=", 0.30),
        "gopher_duplicate_paragraphs": QualityRule("duplicate_paragraphs", "<=", 0.30),
        "gopher_duplicate_line_characters": QualityRule("duplicate_line_characters", "<=", 0.20),
        "gopher_duplicate_paragraph_characters": QualityRule("duplicate_paragraph_characters", "<=", 0.20),
        "gopher_top_2gram": QualityRule("top_2gram", "<=", 0.20),
        "gopher_top_3gram": QualityRule("top_3gram", "<=", 0.18),
        "gopher_top_4gram": QualityRule("top_4gram", "<=", 0.16),
        "gopher_duplicate_5gram": QualityRule("duplicate_5gram", "<=", 0.15),
        "gopher_duplicate_6gram": QualityRule("duplicate_6gram", "<=", 0.14),
        "gopher_duplicate_7gram": QualityRule("duplicate_7gram", "<=", 0.13),
        "gopher_duplicate_8gram": QualityRule("duplicate_8gram", "<=", 0.12),
        "gopher_duplicate_9gram": QualityRule("duplicate_9gram", "<=", 0.11),
        "gopher_duplicate_10gram": QualityRule("duplicate_10gram", "<=", 0.10),
    },
    "c4": {
        "c4_sentences": QualityRule("c4_sentences", ">=", 5),
        "c4_curly_brackets": QualityRule("curly_brackets", "<=", 0),
        "c4_lorem_ipsum": QualityRule("lorem_ipsum", "<=", 0),
        # The same, counted only on lines that end in . ? ! " or ' (the paper).
        "c4_terminal_sentences": QualityRule("c4_terminal_sentences", ">=", 5),
        "c4_terminal_curly_brackets": QualityRule("c4_terminal_curly_brackets", "<=", 0),
        "c4_terminal_lorem_ipsum": QualityRule("c4_terminal_lorem_ipsum", "<=", 0),
    },
    "fineweb": {
        "fineweb_line_punctuation": QualityRule("punctuated_lines", ">=", 0.12),
        "fineweb_short_lines": QualityRule("short_lines", "<=", 0.67),
        "fineweb_duplicate_characters": QualityRule("repeated_line_characters", "<=", 0.1),
        "fineweb_newlines": QualityRule("newlines_per_word", "<=", 0.3),
    },
}
RULE_NAMES: frozenset[str] = frozenset(name for rules in PRESETS.values() for name in rules)


def _adapt(languages: str, **thresholds: float | None) -> None:
    for language in languages.split():
        LANGUAGES.setdefault(language, {}).update(thresholds)


# Thresholds for other languages where the published ones, made for English, drop good prose, as FineWeb-2 (Penedo et
# al. 2025) has them by language; None: the rule is off. `python benchmarks/presets.py` shows what the presets keep.
LANGUAGES: dict[str, dict[str, float | None]] = {}
# Words of few characters: a letter is a word in scripts without spaces, a syllable in Tibetan script and Vietnamese;
# Korean writes syllables as one character (mean word length of good Korean prose: 2.7 characters).
_adapt("zh ja th lo km my shn yue wuu ko bo dz", gopher_min_word_length=None)
_adapt("vi", gopher_min_word_length=2)
# Words of many characters (mean in the Universal Declaration of Human Rights: Malayalam 12.1, Greenlandic 15.1).
_adapt("ta te kn ml", gopher_max_word_length=15)
_adapt("kl iu", gopher_max_word_length=20)
# Endings stand for words that English writes apart, so that signs are a larger part of a text's tokens.
_adapt("fi et hu ru uk be bg pl cs sk sl hr sr mk lt lv tr az kk ky uz ka hy", gopher_alpha_words=0.7)
_adapt("ko", gopher_stop_words=None)  # most function words are endings: good prose may have one stop word or none
# Prose ends sentences with a space, as it does clauses.
_adapt("th lo tts nod sou", fineweb_line_punctuation=None, c4_sentences=None, c4_terminal_sentences=None)
# A few letters make a word, so runs of 5 to 10 letters return in any prose (up to 0.34, 0.28, 0.23, 0.18, 0.17, 0.14).
_adapt(
    "ja th lo km my shn",
    gopher_duplicate_5gram=0.5,
    gopher_duplicate_6gram=0.45,
    gopher_duplicate_7gram=0.4,
    gopher_duplicate_8gram=0.35,
    gopher_duplicate_9gram=0.3,
    gopher_duplicate_10gram=0.3,
)
