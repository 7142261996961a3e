"""The cases of the corpus: every page with what a pipeline must make of it.

`cases()` is a pure function of the prose, the planted texts and SEED: clean pages (some of them in other encodings
or with a foreign paragraph), edited and unedited copies, and pages that no corpus wants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from data.phrases import LOREM, NOTES, QUOTES, SPAM_LINES, SPAM_SENTENCES, TOWNS
from data.prose import Page, languages, read_language, read_planted

SEED = 20240229
T = TypeVar("T")

# (language, page number, codec, charset in the HTTP header, charset in a meta element); "" = not declared.
ENCODINGS = [
    ("ru", 1, "windows-1251", "windows-1251", ""),
    ("ru", 2, "windows-1251", "", "windows-1251"),
    ("ru", 3, "windows-1251", "", ""),
    ("ja", 0, "shift_jis", "Shift_JIS", ""),
    ("ja", 1, "shift_jis", "", "Shift_JIS"),
    ("ja", 2, "shift_jis", "", ""),
    ("ko", 0, "euc-kr", "EUC-KR", ""),
    ("ko", 1, "euc-kr", "", "euc-kr"),
    ("ko", 2, "euc-kr", "utf-8", ""),  # wrong: not UTF-8
    ("tr", 0, "iso-8859-9", "ISO-8859-9", ""),
    ("tr", 1, "iso-8859-9", "", "iso-8859-9"),
    ("zh", 0, "utf-16", "", ""),
    ("de", 2, "utf-16", "utf-8", ""),  # wrong: the byte order mark says UTF-16
    ("uk", 1, "windows-1251", "x-unknown-8bit", "windows-1251"),  # no such charset
]
# English pages that quote a paragraph in another language.
MIXED = {
    "tide-mill": "de",
    "map-fold": "fr",
    "storm-names": "es",
    "tea-water": "ru",
    "echo-valley": "it",
    "slow-river": "pl",
}
EXACT = 20
NEAR = {"en": 12, "de": 2, "fr": 2, "es": 2, "it": 2, "pt": 2}
VARIANTS = 12
LONG_PAGE = 1100  # characters from which two edits leave a Jaccard similarity of 0.85


@dataclass(frozen=True)
class Case:
    """A page, where it lies, how it is sent, and what must become of it."""

    page: Page
    host: str
    case: str = "clean"
    stage: str | None = None
    of: str | None = None
    language: str | None = None
    codec: str = "utf-8"
    header: str = "utf-8"
    meta: str = ""
    status: str = "200 OK"
    media_type: str = "text/html"

    @property
    def url(self) -> str:
        """Address under the reserved domain .example."""
        return f"https://{self.host}/{self.page.language}/{self.page.slug}"


def cases() -> list[Case]:
    """All cases: originals before their copies."""
    clean = _clean()
    rng = Random(SEED)
    return [
        *clean,
        *_variants(clean),
        *_unwanted(rng),
        *_personal(),
        *_other_responses(),
        *_exact(clean),
        *_near(clean, rng),
    ]


def _pick(rng: Random, items: list[T]) -> T:
    # Of Random's methods only random() is promised to give the same sequence in every Python.
    return items[int(rng.random() * len(items))]


def _host(language: str) -> str:
    return f"www.notebook-{language}.example"


def _clean() -> list[Case]:
    pages = {language: read_language(language)[1] for language in languages()}
    encodings = {(language, number): rest for language, number, *rest in ENCODINGS}
    planted = []
    for language, own in pages.items():
        for number, page in enumerate(own):
            case = Case(page, _host(language), language=language)
            if (language, number) in encodings:
                codec, header, meta = encodings[language, number]
                case = replace(case, case="encoding", codec=codec, header=header, meta=meta)
            elif page.slug in MIXED and language == "en":
                foreign = re.split(r"(?<=[.?!]) ", pages[MIXED[page.slug]][3].paragraphs()[0])[:2]
                blocks = (*page.blocks[:1], " ".join(foreign), *page.blocks[1:])
                case = replace(case, case="mixed", page=page.with_blocks(*blocks))
            planted.append(case)
    return planted


def _plain(clean: list[Case], language: str) -> list[Case]:
    """Clean prose pages of a language, without verse, lists and tables."""
    own = [case for case in clean if case.case == "clean" and case.language == language]
    return [case for case in own if len(case.page.paragraphs()) == len(case.page.blocks)]


def _exact(clean: list[Case]) -> list[Case]:
    originals = [case for case in clean if case.case == "clean"]
    step = len(originals) // EXACT
    copies = originals[1 : EXACT * step : step]
    return [
        replace(case, host=f"mirror-{number % 4}.example", case="exact_duplicate", stage="dedup", of=case.url)
        for number, case in enumerate(copies)
    ]


def _near(clean: list[Case], rng: Random) -> list[Case]:
    copies = []
    for language, count in NEAR.items():
        for number, case in enumerate(_plain(clean, language)[:count]):
            paragraphs = list(case.page.blocks)
            for where in (0, 1)[: 1 + (len(case.page.text()) >= LONG_PAGE)]:
                paragraphs[where] = _edit(paragraphs[where], rng)
            if language == "en" and number % 3 == 0:
                paragraphs.append(NOTES[number // 3])
            page = case.page.with_blocks(*paragraphs, slug=f"{case.page.slug}-{number + 2}")
            host = f"reprint-{number % 3}.example"
            copies.append(replace(case, page=page, host=host, case="near_duplicate", stage="dedup", of=case.url))
    return copies


def _edit(paragraph: str, rng: Random) -> str:
    """Leave out one word, or replace it by another of the paragraph."""
    words = paragraph.split(" ")
    where = 3 + int(rng.random() * (len(words) - 6))
    words[where : where + 1] = [_pick(rng, words[1:-1]).strip(",.;:!?")] if rng.random() < 0.5 else []
    return " ".join(words)


def _variants(clean: list[Case]) -> list[Case]:
    """Half of one page and half of another: far too different from both to be a duplicate."""
    plain = _plain(clean, "en")[::-1]
    planted = []
    for number in range(VARIANTS):
        first, second = plain[2 * number].page, plain[2 * number + 1].page
        blocks = (QUOTES[number % 3], *first.blocks[:2], *second.blocks[2:])
        page = first.with_blocks(*blocks, slug=f"{first.slug}-excerpt", title=f"Excerpts, number {number + 1}")
        planted.append(Case(page, "www.excerpts.example", "variant", language="en"))
    return planted


def _unwanted(rng: Random) -> list[Case]:
    texts: list[tuple[str, Page]] = []
    for number, (language, line) in enumerate(SPAM_LINES):
        repeated = (line,) * 40 if number % 2 else (" ".join([line] * 12),) * 3
        texts.append(("spam", Page(f"offer-{number}", language, "offer", line.split(",")[0], repeated)))
    for number, (language, sentence) in enumerate(SPAM_SENTENCES):
        sentences = [sentence.format(town, town) for town in TOWNS]
        texts.append(("spam", Page(f"towns-{number}", language, "offer", sentences[0], tuple(sentences))))
    for number in range(9):
        texts.append(("gibberish", _gibberish(number, rng)))
    texts += [("short", page) for page in read_planted("short")]
    for number in range(8):
        texts.append(("links", _link_list(number, rng)))
    filler = LOREM.split()
    for number in range(5):
        lines = [" ".join(_pick(rng, filler) for _ in range(12)).capitalize() + "." for _ in range(18)]
        blocks = ("Lorem ipsum " + " ".join(lines[:6]), " ".join(lines[6:12]), " ".join(lines[12:]))
        texts.append(("lorem", Page(f"blank-{number}", "en", "page", "Your title here", blocks)))
    texts += [("code", page) for page in read_planted("code")]
    known = {"spam", "short", "code"}
    return [
        Case(page, f"www.{kind}.example", kind, "quality", language=page.language if kind in known else None)
        for kind, page in texts
    ]


def _gibberish(number: int, rng: Random) -> Page:
    """Random letters: words of common length, very long words, or letters among digits and signs."""
    letters, lengths = [
        ("abcdefghijklmnopqrstuvwxyz", (2, 9)),
        ("bcdfghjklmnpqrstvwxz", (11, 19)),
        ("0123456789#%&*+=?x", (3, 9)),
    ][number % 3]
    low, high = lengths

    def word() -> str:
        return "".join(_pick(rng, list(letters)) for _ in range(low + int(rng.random() * (high - low + 1))))

    sentences = [" ".join(word() for _ in range(11)).capitalize() + "." for _ in range(15)]
    blocks = (" ".join(sentences[:5]), " ".join(sentences[5:10]), " ".join(sentences[10:]))
    return Page(f"page-{number}", "en", "page", word(), blocks)


def _link_list(number: int, rng: Random) -> Page:
    nouns = ["Boats", "Clocks", "Bread", "Maps", "Bees", "Lamps", "Seeds", "Songs", "Tents", "Knives", "Coats", "Moths"]
    title = f"{nouns[number]} and {nouns[number + 4].lower()}, everything we know of"
    lines = [f"- {_pick(rng, nouns)} in {_pick(rng, TOWNS)} ({1990 + int(rng.random() * 30)})" for _ in range(45)]
    return Page(f"links-{number}", "en", "links", title, ("\n".join(lines),))


def _personal() -> list[Case]:
    """Pages with mail addresses and IP addresses: of public resolvers, and one of a private network."""
    return [Case(page, _host(page.language), "pii", language=page.language) for page in read_planted("pii")]


def _other_responses() -> list[Case]:
    """Pages that are not there, and responses that are no pages."""
    planted = []
    for number, language in enumerate(("en", "en", "de", "fr", "es", "ru", "ja", "en")):
        page = Page(f"missing-{number}", language, "error", "404", ("The page that you asked for is not here.",))
        status = "410 Gone" if number == 7 else "404 Not Found"
        planted.append(Case(page, _host(language), "not_found", "extract", status=status))
    types = ["image/png"] * 4 + ["application/json"] * 4 + ["text/css"] * 2
    for number, media_type in enumerate(types):
        page = Page(f"file-{number}.{media_type.split('/')[1]}", "en", "file", f"File {number}", ())
        planted.append(Case(page, "static.example", "media_type", "extract", media_type=media_type, header=""))
    return planted
