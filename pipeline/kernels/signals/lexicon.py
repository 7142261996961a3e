"""What the kernels look up: properties of characters, stop words, English contractions and abbreviations.

- Properties are bits of one table, indexed by code point; built once a process from `unicodedata` (0.1 s), for the
  planes that hold letters. Code points above have no property. Sets that no Unicode property gives are listed here.
- Contractions, which the word rule cuts in two, and abbreviations, which it keeps, as spaCy's English tokenizer (the
  reference's) treats them; the forms follow from a few lists.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

from pipeline.kernels.compiled import Array, kept_table
from pipeline.kernels.hashing import PRIME, SEED, claim_slot, fnv
from pipeline.kernels.signals.stop_words import GOPHER, OWN_SCRIPTS, STOP_WORDS

LETTERS_END = 0x32400

ALPHA = 1  # a letter (categories L*)
LOWER = 2  # a lower-case letter, or one of a script without case
UPPER = 4  # an upper-case letter, or one of a script without case
DIGIT = 8  # category Nd
SPACE = 16  # as str.isspace, and SEPARATORS
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
    " f0d-f11 1361"  # beyond the property: Tibetan shads; the Ethiopic word space, doubled at the end of a sentence
)
SEPARATORS = "\u0f0b\u0f0c\u1361"  # between syllables in Tibetan script, between words in Ethiopic: as white space
UNSPACED_RANGES = "e00-eff 1000-109f 1780-17ff 3040-30ff 3400-4dbf 4e00-9fff f900-faff 20000-323af"


@kept_table(unicodedata.unidata_version)
def character_table() -> Array:
    """uint16 (0x110000,): the bits above of each code point."""
    characters = [chr(point) for point in range(LETTERS_END)]
    categories = [unicodedata.category(character) for character in characters]
    bits = np.array([_BY_CATEGORY.get(category, 0) for category in categories], np.uint16)
    bits[:128] &= ~np.uint16(AFFIX)
    for flag, members in ((AFFIX, _AFFIXES), (PREFIX, _PREFIXES), (QUOTE, _QUOTES), (BREAK, _BREAKS)):
        bits[[ord(member) for member in members]] |= flag
    bits[[point for point, sign in enumerate(characters) if sign.isspace() or sign in SEPARATORS]] |= SPACE
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


_GOPHER_BIT, _OWN_SCRIPTS_BIT = 31, 30
_LANGUAGE_BITS = {language: bit for bit, language in enumerate(sorted(STOP_WORDS))}
_LANGUAGE_BITS |= dict.fromkeys(OWN_SCRIPTS, _OWN_SCRIPTS_BIT)
_STOP_SLOTS = 8192  # more than twice as many as forms
# English contractions and abbreviations, as spaCy's English tokenizer treats them.
_PRONOUNS = {
    "i": "m 'm ll 'll d 'd ve 've",
    "you": "ll 'll d 'd ve 've re 're",
    "he": "ll 'll d 'd s 's",
    "she": "ll 'll d 'd s 's",
    "it": "ll 'll d 'd s 's",
    "we": "ll 'll d 'd ve 've re 're",
    "they": "ll 'll d 'd ve 've re 're",
}
_QUESTIONS = "who what when where why how there that"
_VERBS = "ca could do does did had may might must need ought sha should wo would ai are is was were have has dare"
_MODALS = "could might must should would"
_ABBREVIATIONS = (
    "a.m. p.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo."
    " Mont. Mr. Mrs. Ms. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. Mt. Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct."
    " Nov. Dec. Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Id. Ill. Ind. Kan. Kans. Ky. La. Mass. Mich. Minn."
    " Miss. Neb. Nebr. Nev. Okla. Ore. Pa. Tenn. Va. Wash. Wis. and/or w/o C++ ma'am o'clock 'em 'cause doin' goin'"
    " nothin' somethin' lovin' havin' ol' '' \\n \\t"
)
_NOT_SPLIT = frozenset({"ill", "its", "hell", "shell", "shed", "were", "well", "whore"})  # words of their own
_OTHER_FORMS = {"cannot": 3, "gonna": 3, "gotta": 3, "let's": 3, "y'all": 2, "c'mon": 3}
LONGEST_FORM = 9  # characters
_FORM_SLOTS = 4096  # more than twice as many as forms


@cache
def stop_table() -> tuple[Array, Array]:
    """Hash table of stop words, uint64: keys, and masks of the languages that list the form (low 32 bits) or, from bit
    32 on, list it in small letters."""
    masks: dict[str, int] = {}
    for language, words in (STOP_WORDS | OWN_SCRIPTS).items():
        for word in words.split():
            masks[word] = masks.get(word, 0) | 1 << _LANGUAGE_BITS[language] | 1 << 32 + _LANGUAGE_BITS[language]
            if word.capitalize() != word:
                form = word.capitalize()
                masks[form] = masks.get(form, 0) | 1 << 32 + _LANGUAGE_BITS[language]
    for word in GOPHER.split():
        masks[word] = masks.get(word, 0) | 1 << _GOPHER_BIT
    keys, values = np.zeros(_STOP_SLOTS, np.uint64), np.zeros(_STOP_SLOTS, np.uint64)
    for word, mask in masks.items():
        values[claim_slot(keys, hash_word(word))] = mask
    return keys, values


def stop_bits(languages: list[str]) -> Array:
    """int64 (n, 2): bits for distinct stop words (Gopher's eight for English) and for all; -1 for other languages."""
    bits = {name: (_GOPHER_BIT if name == "en" else bit, bit) for name, bit in _LANGUAGE_BITS.items()}
    return np.array([bits.get(language, (-1, -1)) for language in languages], np.int64).reshape(-1, 2)


@cache
def form_table() -> tuple[Array, Array, Array]:
    """Hash table of contractions and abbreviations: uint64 keys, uint8 length of the first token.

    The third array, uint16 (2, 256), is a sieve: bit `size` is set where a form of that size begins or ends with the
    character (its low eight bits).
    """
    keys, cuts, edges = np.zeros(_FORM_SLOTS, np.uint64), np.zeros(_FORM_SLOTS, np.uint8), np.zeros((2, 256), np.uint16)
    for form, cut in _forms().items():
        cuts[claim_slot(keys, hash_word(form))] = cut
        edges[0, ord(form[0]) & 255] |= 1 << len(form)
        edges[1, ord(form[-1]) & 255] |= 1 << len(form)
    return keys, cuts, edges


def hash_word(word: str) -> int:
    """The hash of a token."""
    return fnv(map(ord, word), SEED, PRIME)


def _forms() -> dict[str, int]:
    """{form: length of its first token}; an abbreviation is one token."""
    forms = dict(_OTHER_FORMS)
    questions = dict.fromkeys(_QUESTIONS.split(), "s 's ll 'll re 're ve 've d 'd")
    for words, endings in [*_PRONOUNS.items(), *questions.items()]:
        forms |= {words + ending: len(words) for ending in endings.split()}
    forms |= {verb + ending: len(verb) for verb in _VERBS.split() for ending in ("n't", "nt")}
    forms |= {verb + ending: len(verb) for verb in _MODALS.split() for ending in ("'ve", "ve")}
    for word in ("this", "these", "those"):
        forms |= {word + ending: len(word) for ending in ("'ll", "'d")}
    for hour in range(1, 13):
        forms |= {f"{hour}{half}": len(str(hour)) for half in ("am", "pm", "a.m.", "p.m.")}
    forms |= {form.capitalize(): cut for form, cut in forms.items()}
    forms |= {letter + ".": 2 for letter in "abcdefghijklmnopqrstuvwxyzäöü"}
    forms |= {form: len(form) for form in _ABBREVIATIONS.split()}
    forms |= {form.replace("'", "’"): cut for form, cut in forms.items() if "'" in form}
    return {form: cut for form, cut in forms.items() if form.lower() not in _NOT_SPLIT}
