"""What the word rule peels off a part at both ends and where it cuts within: signs, units, URLs kept whole.

Kernels on code points; `table` is that of `characters`. The rules are spaCy's for English, brought to classes
of characters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compiled import inner
from pipeline.kernels.signals import characters

Array = np.ndarray[Any, Any]

_ALPHA, _LOWER, _UPPER, _DIGIT = characters.ALPHA, characters.LOWER, characters.UPPER, characters.DIGIT
_AFFIX, _PREFIX, _PUNCTUATION, _QUOTE = characters.AFFIX, characters.PREFIX, characters.PUNCTUATION, characters.QUOTE
_DOT, _PLUS, _MINUS, _CARET, _STAR, _COMMA, _AT, _COLON, _SLASH = (ord(sign) for sign in ".+-^*,@:/")
_UNDERSCORE, _PERCENT, _PIPE, _SQUARED, _APOSTROPHE, _QUOTE_MARK = ord("_"), ord("%"), ord("|"), 0xB2, 0x27, 0x2019
_ELLIPSIS, _EN_DASH, _EM_DASH, _TILDE, _CLOSE = 0x2026, 0x2013, 0x2014, ord("~"), ord(")")


@inner
def bits_of(point: np.uint32, table: Array) -> int:
    """Properties of a code point."""
    return int(table[point])


@inner
def cut_prefix(points: Array, low: int, high: int, table: Array) -> int:
    """Length of the sign to cut off at the beginning."""
    first = points[low]
    if first == _DOT:
        end = low + 1
        while end < high and points[end] == _DOT:
            end += 1
        return end - low if end - low > 1 else 0
    bits = bits_of(first, table)
    if first == _PLUS and low + 1 < high and bits_of(points[low + 1], table) & _DIGIT:
        return 0
    return 1 if bits & (_AFFIX | _PREFIX) else 0


@inner
def cut_suffix(points: Array, low: int, high: int, table: Array, digits: bool) -> int:
    """Length of the sign, possessive or unit to cut off at the end."""
    if high <= low:
        return 0
    last = points[high - 1]
    bits = bits_of(last, table)
    before = points[high - 2] if high - low > 1 else np.uint32(0)
    before_bits = bits_of(before, table)
    if last == _DOT:
        start = high - 1
        while start > low and points[start - 1] == _DOT:
            start -= 1
        if high - start > 1:
            return int(high - start)
        if high - low < 2:
            return 0
        if before_bits & (_DIGIT | _LOWER | _AFFIX) or before in (_PERCENT, _SQUARED, _MINUS, _PLUS, _PIPE):
            return 1
        both = before_bits & _UPPER and high - low > 2 and bits_of(points[high - 3], table) & _UPPER
        return 1 if both else 0
    if (last == _COLON and before == _CLOSE) or (last == _CLOSE and before == _COLON):  # a smiley
        return 2
    if bits & _AFFIX:
        return 1
    if last in (115, 83) and before in (_APOSTROPHE, _QUOTE_MARK):  # 's
        return 2
    if digits:
        return int(_unit(points, low, high, table))
    return 0


@inner
def _unit(points: Array, low: int, high: int, table: Array) -> int:
    """Length of a unit, currency sign or plus sign after a digit (10km, 5%, 20€)."""
    start = high
    while start > low and high - start < 4 and not bits_of(points[start - 1], table) & _DIGIT:
        start -= 1
    size = high - start
    if size == 0 or start == low or not bits_of(points[start - 1], table) & _DIGIT:
        return 0
    first, second = points[start], points[high - 1]
    if size == 1:
        if bits_of(first, table) & _PREFIX and first != 61:  # all but `=`
            return 1
        for unit in (109, 103, 116, 84, 71, 77, 75):  # m g t T G M K
            if first == unit:
                return 1
    if size == 2:
        if second == 109:  # km dm cm mm nm
            return 2 if first in (107, 100, 99, 109, 110) else 0
        if second in (66, 98):  # mb MB kb KB gb GB tb TB
            return 2 if first in (109, 77, 107, 75, 103, 71, 116, 84) else 0
        for left, right in ((107, 103), (109, 103), (102, 116), (105, 110), (121, 100), (108, 98), (111, 122)):
            if first == left and second == right:  # kg mg ft in yd lb oz
                return 2
    return 0


@inner
def _host_character(point: np.uint32) -> bool:
    letter = 97 <= point <= 122 or 65 <= point <= 90
    return bool(letter or 48 <= point <= 57 or 0xA1 <= point <= 0xFFFF or point in (_MINUS, _UNDERSCORE))


@inner
def is_url(points: Array, low: int, high: int, table: Array) -> bool:
    """Whether [scheme://][user@]host.domain[:port][/path] makes up the whole."""
    at = low
    for i in range(low, high - 2):
        if points[i] == _COLON:
            if i > low + 1 and points[i + 1] == _SLASH and points[i + 2] == _SLASH:
                at = i + 3
            break
        scheme = bits_of(points[i], table) & (_ALPHA | _DIGIT) or points[i] in (_UNDERSCORE, _PLUS, _MINUS, _DOT)
        if not scheme:
            break
    for i in range(at, high):  # a user name may hold anything
        if points[i] == _AT:
            at = i + 1
        elif points[i] == _SLASH:
            break
    label, dots, i = at, 0, at
    while i < high and (_host_character(points[i]) or points[i] == _DOT):
        if points[i] == _DOT:
            if i == label or points[i - 1] == _MINUS or points[i - 1] == _UNDERSCORE:
                return False
            dots += 1
            label = i + 1
        i += 1
    if dots == 0 or i - label < 2:
        return False
    for k in range(label, i):
        if not bits_of(points[k], table) & (_LOWER if dots < 3 else _LOWER | _DIGIT):
            return False
    if i < high and points[i] == _COLON:
        i += 1
        while i < high and 48 <= points[i] <= 57:
            i += 1
    return i == high or points[i] in (_SLASH, 63, 35)


@inner
def cut_infix(points: Array, i: int, low: int, high: int, table: Array) -> int:
    """Length of the sign at `i` at which a part is cut within, or 0."""
    point = points[i]
    bits = bits_of(point, table)
    if bits & _ALPHA:
        return 0
    if point == _ELLIPSIS or (bits & _AFFIX and not bits & _PUNCTUATION and point > 127):
        return 1
    if i + 1 >= high or i == low:
        return 0
    before, after = bits_of(points[i - 1], table), bits_of(points[i + 1], table)
    if point == _DOT:
        if points[i + 1] == _DOT:
            end = i + 2
            while end < high and points[end] == _DOT:
                end += 1
            return end - i
        return 1 if before & (_LOWER | _QUOTE) and after & (_UPPER | _QUOTE) else 0
    if point in (_PLUS, _MINUS, _STAR, _CARET) and before & _DIGIT and (after & _DIGIT or points[i + 1] == _MINUS):
        return 1
    if point == _COMMA:
        return 1 if before & after & _ALPHA else 0
    if point in (_MINUS, _EN_DASH, _EM_DASH, _TILDE) and before & (_ALPHA | _DIGIT):
        if after & _ALPHA:
            return 1
        end = i + 1
        while end < high and points[end] == point and end - i < 3:
            end += 1
        dashes = (point == _MINUS and end - i > 1) or (point == _EM_DASH and end - i == 2)
        return end - i if dashes and end < high and bits_of(points[end], table) & _ALPHA else 0
    if point in (_COLON, 60, 62, 61, _SLASH) and before & (_ALPHA | _DIGIT) and after & _ALPHA:
        return 1
    return 0


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
_OTHERS = {"cannot": 3, "gonna": 3, "gotta": 3, "let's": 3, "y'all": 2, "c'mon": 3}


def splits() -> dict[str, int]:
    """{form: length of its first token}; an abbreviation's is its whole length."""
    found = dict(_OTHERS)
    questions = dict.fromkeys(_QUESTIONS.split(), "s 's ll 'll re 're ve 've d 'd")
    for words, endings in [*_PRONOUNS.items(), *questions.items()]:
        found |= {words + ending: len(words) for ending in endings.split()}
    found |= {verb + ending: len(verb) for verb in _VERBS.split() for ending in ("n't", "nt")}
    found |= {verb + ending: len(verb) for verb in _MODALS.split() for ending in ("'ve", "ve")}
    for word in ("this", "these", "those"):
        found |= {word + ending: len(word) for ending in ("'ll", "'d")}
    for hour in range(1, 13):
        found |= {f"{hour}{half}": len(str(hour)) for half in ("am", "pm", "a.m.", "p.m.")}
    found |= {form.capitalize(): cut for form, cut in found.items()}
    found |= {letter + ".": 2 for letter in "abcdefghijklmnopqrstuvwxyzäöü"}
    found |= {form: len(form) for form in _ABBREVIATIONS.split()}
    found |= {form.replace("'", "’"): cut for form, cut in found.items() if "'" in form}
    return {form: cut for form, cut in found.items() if form.lower() not in _NOT_SPLIT}
