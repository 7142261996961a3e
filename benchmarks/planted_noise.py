"""A corpus with planted noise for recipes/ablation.yaml, and clean prose held out of it: made from harvested pages.

    python benchmarks/planted_noise.py data/harvest data/noisy

Clean prose: paragraphs of running text in the documentation installed on this machine, each used once, so that nothing
held out stands in the corpus too. Every tenth page is held out (by a hash of its address). The rest is one half of the
corpus's pages by text, junk the other: letters without words, keyword lists, menus, code, tables, in turn. To these come
edited copies of the pages, good and bad alike, as much text again, how often of which by Zipf's law. Both halves are as
in a crawl: RefinedWeb (Penedo et al. 2023, figure 2) sees filters and then deduplication each halve what is left.
Deterministic for given pages. Writes corpus.jsonl and held_out.jsonl; costs a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

from pipeline.extract import extract_text
from pipeline.warc import read_records

MIN_WORDS = 25  # of a paragraph of prose
PROSE = 0.96  # share of letters, blanks and plain punctuation in one
MIN_DOCUMENT = 80  # words
MAX_DOCUMENT = 600  # words, so that no long page dominates
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
PRODUCTS = ["watches", "shoes", "loans", "casino", "tickets", "insurance", "hotels", "phones", "games", "diets"]
MENU = ["Home Products", "About us", "Contact", "Next page", "Read more", "Share", "Log out", "Cart", "Help", "Terms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("harvest", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    clean, held_out = [], []
    for url, text in documents(given.harvest):
        tenth = hashlib.blake2b(url.encode(), digest_size=8).digest()[0] % 10 == 0
        (held_out if tenth else clean).append((url, text))
    size = sum(len(text) for _, text in clean)
    random = Random(20261123)
    pages = [*clean, *junk(size, random)]
    random.shuffle(pages)
    corpus = [*pages, *copies(pages, 2 * size, random)]
    random.shuffle(corpus)
    given.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("held_out", held_out)):
        with (given.output / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for url, text in rows:
                file.write(json.dumps({"url": url, "text": text}, ensure_ascii=False) + "\n")
        print(f"{name}: {len(rows):,} documents, {sum(len(text) for _, text in rows) / 1e6:.2f} MB")


def documents(harvest: Path) -> Iterator[tuple[str, str]]:
    """(address, prose) of pages that have some, a paragraph only where it is met first."""
    seen: set[str] = set()
    for path in sorted(harvest.glob("*.warc.gz")):
        for record in read_records(str(path)):
            kept, words = [], 0
            for paragraph in re.split(r"\n\s*\n", extract_text(record.body, charset=record.charset)):
                line = " ".join(paragraph.split())
                if line not in seen and is_prose(line) and words < MAX_DOCUMENT:
                    kept.append(line)
                    words += len(line.split())
                seen.add(line)
            if words >= MIN_DOCUMENT:
                yield record.url, "\n\n".join(kept)


def is_prose(line: str) -> bool:
    plain = sum(character.isalpha() or character in " ,.;:'()-" for character in line)
    return len(line.split()) >= MIN_WORDS and plain >= PROSE * len(line) and line.endswith((".", "?", "!"))


def copies(pages: list[tuple[str, str]], size: int, random: Random) -> Iterator[tuple[str, str]]:
    """Copies of the pages, each with a word changed and a line added, until they are `size` long.

    The page of rank r is copied in proportion to 1/r: a few very often, most once or never.
    """
    ranks = list(accumulate(1 / rank for rank in range(1, len(pages) + 1)))
    number = 0
    while size > 0:
        url, text = random.choices(pages, cum_weights=ranks)[0]
        words = text.split(" ")
        words[random.randrange(len(words))] = random.choice(PRODUCTS)
        copy = " ".join(words) + f"\n\nMirrored from another site, copy number {number}."
        yield f"{url}?copy={number}", copy
        size -= len(copy)
        number += 1


def junk(size: int, random: Random) -> Iterator[tuple[str, str]]:
    """Documents of five kinds of noise in turn, until they are `size` long."""
    kinds = [letters, keywords, menu, code, numbers]
    number = 0
    while size > 0:
        kind = kinds[number % len(kinds)]
        text = kind(random)
        yield f"https://junk.example/{kind.__name__}/{number}", text
        size -= len(text)
        number += 1


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


def code(random: Random) -> str:
    """Statements between braces."""
    names = ["".join(random.choices(LETTERS, k=5)) for _ in range(12)]
    lines = [f"  {random.choice(names)}({random.choice(names)}, {random.randint(0, 999)});" for _ in range(120)]
    return "function () {\n" + "\n".join(lines[: random.randint(40, 120)]) + "\n}"


def numbers(random: Random) -> str:
    """Rows of a table."""
    return "\n".join(
        " | ".join(f"{random.random() * 1000:.2f}" for _ in range(6)) for _ in range(random.randint(30, 120))
    )


if __name__ == "__main__":
    main()
