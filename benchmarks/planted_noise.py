"""A corpus with planted noise for recipes/ablation.yaml, and clean prose held out of it: made from harvested pages.

    python benchmarks/planted_noise.py data/harvest data/noisy

Clean prose: paragraphs of running text in the documentation installed on this machine, each used once, so that nothing
held out is in the corpus too. Every tenth page is held out (by a hash of its address). Of the rest:

    pages        half prose by text, half junk, one half of which is what else those documentation pages hold (code,
                 signatures, lists, tables), the other invented: keyword lists, menus, rows of numbers, gibberish;
                 RefinedWeb (Penedo et al. 2023, figure 2) sees filters halve what is left of a crawl
    duplicates   three times as much text: half of it mirrors of the pages, good and bad alike, how often of which by
                 Zipf's law, half what a crawl repeats most: error pages, parked domains, notices, with other names
                 and numbers in them; deduplication halves RefinedWeb, and leaves FineWeb (Penedo et al. 2024, section
                 3.4) a ninth where it is done over all crawls at once

Deterministic for given pages. Writes corpus.jsonl and held_out.jsonl; costs a minute.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import accumulate, count, cycle
from pathlib import Path
from random import Random

from bars import options

from pipeline.extract import extract_text
from pipeline.read.archives import read_records

Page = tuple[str, str]  # address, text
MIN_WORDS = 25  # of a paragraph of prose
PROSE = 0.96  # share of unaccented letters, blanks and plain punctuation in one: the prose is English
MIN_DOCUMENT = 80  # words
MAX_DOCUMENT = 600  # words, so that no long page dominates
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
PRODUCTS = ["watches", "shoes", "loans", "casino", "tickets", "insurance", "hotels", "phones", "games", "diets"]
SITES = ["harbour", "meadow", "lantern", "copper", "willow", "summit", "orchard", "pebble", "falcon", "maple"]
# Pages that thousands of sites serve with hardly a change.
TEMPLATES = [
    "The page that you asked for could not be found on {site}.example. It may have been moved, renamed or "
    "removed, or the address may have been typed wrongly. Please check the address and try again, go back to the "
    "page that you came from, or start from the front page of {site}.example. If you believe that this page "
    "should be here, write to the people who look after the site and give them the error number {number}. We are "
    "sorry for the trouble that this has caused.",
    "The domain {site}.example has been registered and is waiting for its owner to publish a site here. If you "
    "are the owner, sign in to your account to choose a plan, connect your mailbox and upload your pages. If you "
    "would like to buy this domain, fill in the form below and a broker will answer within {number} hours with a "
    "price. Names like this one are short, easy to remember and easy to spell, and each of them can be had only "
    "once.",
    "We and our {number} partners store information on your device, such as cookies, and process personal data "
    "such as unique identifiers for advertising, measurement and the development of products on {site}.example. "
    "With your consent we may use precise location data. You may click to agree to this processing as described "
    "above, or refuse. Some processing of your data may not require your consent, but you have the right to "
    "object to it at any time.",
    "Sign in to {site}.example to read this article. Members can read every story without limits, save pages for "
    "later, follow writers and take part in the discussion below each article. If you have no account yet, you "
    "can create one for free with your address and a password; it takes less than a minute. If you have forgotten"
    " your password, we send you a link with which you can choose another one. The link stays valid for {number} "
    "hours.",
    "{site}.example is closed for maintenance. Our engineers are working on the servers at the moment, and the "
    "site will be back as soon as the work is done, which should take no longer than {number} minutes. Nothing "
    "that you have saved is lost. You can follow the progress on our status page, where we also announce future "
    "work. Thank you for your patience, and please come back a little later.",
]
MENU = ["Home Products", "About us", "Contact", "Next page", "Read more", "Share", "Log out", "Cart", "Help", "Terms"]


def main() -> None:
    parser = options(__doc__, quick=None)
    parser.add_argument("harvest", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    clean, held_out, rest = [], [], []
    for url, text, other in documents(arguments.harvest):
        if hashlib.blake2b(url.encode(), digest_size=8).digest()[0] % 10 == 0:
            held_out.append((url, text))
        else:
            clean.append((url, text))
            rest.append((f"{url}#rest", other))
    clean, held_out, rest = (long_enough(texts) for texts in (clean, held_out, rest))
    size = sum(len(text) for _, text in clean)
    random = Random(20261123)
    random.shuffle(rest)
    pages = [*clean, *until(iter(rest), size // 2), *until(invented(random), size // 2)]
    random.shuffle(pages)
    corpus = [*pages, *until(mirrors(pages, random), 3 * size), *until(templates(random), 3 * size)]
    random.shuffle(corpus)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("held_out", held_out)):
        with (arguments.output / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for url, text in rows:
                file.write(json.dumps({"url": url, "text": text}, ensure_ascii=False) + "\n")
        print(f"{name}: {len(rows):,} documents, {sum(len(text) for _, text in rows) / 1e6:.2f} MB")


def documents(harvest: Path) -> Iterator[tuple[str, str, str]]:
    """(address, prose, what else it says) of each page, a paragraph only where it is met first."""
    seen: set[str] = set()
    for path in sorted(harvest.glob("*.warc.gz")):
        for record in read_records(str(path)):
            prose: list[str] = []
            other: list[str] = []
            for paragraph in re.split(r"\n\s*\n", extract_text(record.body, charset=record.charset)):
                line = " ".join(paragraph.split())
                kept = prose if is_prose(line) else other
                if line not in seen and sum(len(each.split()) for each in kept) < MAX_DOCUMENT:
                    kept.append(line if kept is prose else paragraph)
                seen.add(line)
            yield record.url, "\n\n".join(prose), "\n\n".join(other)


def long_enough(texts: list[Page]) -> list[Page]:
    return [(url, text) for url, text in texts if len(text.split()) >= MIN_DOCUMENT]


def until(pages: Iterator[Page], size: int) -> Iterator[Page]:
    """The first pages, until they are `size` characters long together."""
    while size > 0 and (page := next(pages, None)):
        yield page
        size -= len(page[1])


def is_prose(line: str) -> bool:
    plain = sum((character.isascii() and character.isalpha()) or character in " ,.;:'()-" for character in line)
    return len(line.split()) >= MIN_WORDS and plain >= PROSE * len(line) and line.endswith((".", "?", "!"))


def mirrors(pages: list[Page], random: Random) -> Iterator[Page]:
    """Copies of the pages, each with a word changed and a line added.

    The page of rank r is copied in proportion to 1/r: a few very often, most once or never.
    """
    ranks = list(accumulate(1 / rank for rank in range(1, len(pages) + 1)))
    for number in count():
        url, text = random.choices(pages, cum_weights=ranks)[0]
        words = text.split(" ")
        words[random.randrange(len(words))] = random.choice(PRODUCTS)
        yield f"{url}?copy={number}", " ".join(words) + f"\n\nMirrored from another site, copy number {number}."


def templates(random: Random) -> Iterator[Page]:
    """Pages from TEMPLATES, filled in anew each time."""
    for number in count():
        site = f"{random.choice(SITES)}-{random.choice(SITES)}"
        text = random.choice(TEMPLATES).format(site=site, number=random.randint(2, 99))
        yield f"https://{site}.example/{number}", text


def invented(random: Random) -> Iterator[Page]:
    """Documents of four kinds of noise in turn."""
    for number, kind in enumerate(cycle([keywords, menu, numbers, letters])):
        yield f"https://junk.example/{kind.__name__}/{number}", kind(random)


def letters(random: Random) -> str:
    """Sentences of random letters, as frequent as in English."""
    weights = range(len(LETTERS), 0, -1)
    sentences = []
    for _ in range(random.randint(10, 40)):
        sizes = [random.randint(2, 9) for _ in range(random.randint(5, 15))]
        words = ["".join(random.choices(LETTERS, weights, k=size)) for size in sizes]
        sentences.append(" ".join(words).capitalize() + ".")
    return "\n\n".join(" ".join(sentences[i : i + 4]) for i in range(0, len(sentences), 4))


def keywords(random: Random) -> str:
    """Offers, over and over."""
    offers = [f"Buy cheap {random.choice(PRODUCTS)} online now." for _ in range(3)]
    return " ".join(random.choice(offers) for _ in range(random.randint(60, 300)))


def menu(random: Random) -> str:
    """Lines of navigation."""
    return "\n".join(f"{random.choice(MENU)} {random.randint(1, 99)}" for _ in range(random.randint(60, 300)))


def numbers(random: Random) -> str:
    """Rows of a table."""
    return "\n".join(
        " | ".join(f"{random.random() * 1000:.2f}" for _ in range(6)) for _ in range(random.randint(30, 120))
    )


if __name__ == "__main__":
    main()
