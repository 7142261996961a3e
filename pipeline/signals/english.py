"""English contractions and abbreviations, which the word rule cuts in two or keeps whole.

spaCy's English tokenizer, the reference's, treats the same forms so; the forms follow from a few lists.
"""

from __future__ import annotations

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
