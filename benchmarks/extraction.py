"""Extraction: quality on the held-out half of trafilatura's evaluation, and pages a second, side by side.

usage: python benchmarks/extraction.py [--quick] [--data ../shared/data]
Each extractor gets the same bytes and decodes them itself, as `extract_text` does; times are CPU seconds of one
process, after one page to warm up. The second table is word F1 on made pages of other kinds, in layouts that were held
out of training. --quick takes a fifth of the pages.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import mean

from bars import DATA, at_least, finish, options, show_machine, table

from pipeline.extract import extract_text
from pipeline.extract.training import evaluation_pages, snippet_f1, trained_on
from pipeline.extract.training.made_pages import KINDS, held_out_pages, word_f1

EXTRACTORS = ("fast", "resiliparse", "trafilatura")
F1, RATE, FACTOR = 0.920, 250.0, 5.0
MADE_PAGES = 100


def made_table(count: int) -> dict[str, dict[str, float]]:
    """{kind: {extractor: mean word F1}} over `count` made pages."""
    figures: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in EXTRACTORS} for kind in KINDS}
    for _, kind, parts in held_out_pages(count):
        page = "".join(html for html, _ in parts).encode()
        for extractor in EXTRACTORS:
            figures[kind][extractor].append(word_f1(extract_text(page, extractor=extractor), parts))
    return {kind: {name: mean(values) for name, values in row.items()} for kind, row in figures.items()}


def main() -> int:
    parser = options(__doc__, "a fifth of the pages")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    pages = {name: pair for name, pair in sorted(evaluation_pages(arguments.data).items()) if not trained_on(name)}
    if arguments.quick:
        pages = dict(list(pages.items())[::5])
    golds = {name: gold for name, (_, gold) in pages.items()}
    size = sum(len(body) for body, _ in pages.values())
    show_machine("trafilatura", "resiliparse")
    print(f"{len(pages)} pages, {size / 1e6:.1f} MB")
    row = table("extractor", {"pages/s": ".0f", "MB/s": ".1f", "precision": ".4f", "recall": ".4f", "F1": ".4f"})
    rates, scores = {}, {}
    for extractor in EXTRACTORS:
        extract_text(next(iter(pages.values()))[0], extractor=extractor)
        began = time.process_time()
        texts = {name: extract_text(body, extractor=extractor) for name, (body, _) in pages.items()}
        seconds = time.process_time() - began
        score = snippet_f1(texts, golds)
        rates[extractor], scores[extractor] = len(pages) / seconds, score["f1"]
        row(extractor, rates[extractor], size / seconds / 1e6, score["precision"], score["recall"], score["f1"])
    print()
    row = table("made pages", dict.fromkeys(EXTRACTORS, ".3f"))
    for kind, figures in made_table(MADE_PAGES // 5 if arguments.quick else MADE_PAGES).items():
        row(kind, *(figures[name] for name in EXTRACTORS))
    bars = {
        "f1": at_least(scores["fast"], F1),
        "pages_per_second": at_least(rates["fast"], RATE),
        "times_trafilatura": at_least(rates["fast"] / rates["trafilatura"], FACTOR),
    }
    return finish("extraction", bars)


if __name__ == "__main__":
    sys.exit(main())
