"""Extraction: quality on the held-out half of trafilatura's evaluation, and pages a second, side by side.

usage: python benchmarks/extraction.py [--quick] [--data ../shared/data]
Each extractor gets the same bytes and decodes them itself, as `extract_text` does; times are CPU seconds of one
process, after one page to warm up. The second table is word F1 on made pages of other kinds, in layouts that were held
out of training. --quick takes a fifth of the pages.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import mean

from pipeline.extract import extract_text
from pipeline.kernels.html.training import evaluation_pages, snippet_f1, trained_on
from pipeline.kernels.html.training.made_pages import KINDS, held_out_pages, word_f1

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
    parser = argparse.ArgumentParser(description="Quality and speed of the extractors.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    pages = {name: pair for name, pair in sorted(evaluation_pages(arguments.data).items()) if not trained_on(name)}
    if arguments.quick:
        pages = dict(list(pages.items())[::5])
    golds = {name: gold for name, (_, gold) in pages.items()}
    size = sum(len(body) for body, _ in pages.values())
    print(f"{len(pages)} pages, {size / 1e6:.1f} MB; trafilatura {version('trafilatura')},"
          f" resiliparse {version('resiliparse')}")  # fmt: skip
    print(f"{'extractor':<12} {'pages/s':>8} {'MB/s':>6} {'precision':>9} {'recall':>7} {'F1':>6}")
    rates, scores = {}, {}
    for extractor in EXTRACTORS:
        extract_text(next(iter(pages.values()))[0], extractor=extractor)
        began = time.process_time()
        texts = {name: extract_text(body, extractor=extractor) for name, (body, _) in pages.items()}
        seconds = time.process_time() - began
        found = snippet_f1(texts, golds)
        rates[extractor], scores[extractor] = len(pages) / seconds, found["f1"]
        print(f"{extractor:<12} {rates[extractor]:>8.0f} {size / seconds / 1e6:>6.1f} {found['precision']:>9.4f}"
              f" {found['recall']:>7.4f} {found['f1']:>6.4f}")  # fmt: skip
    made = made_table(MADE_PAGES // 5 if arguments.quick else MADE_PAGES)
    print(f"\n{'made pages':<16}" + "".join(f"{name:>12}" for name in EXTRACTORS))
    for kind, row in made.items():
        print(f"{kind:<16}" + "".join(f"{row[name]:>12.3f}" for name in EXTRACTORS))
    values = {
        "f1": (scores["fast"], F1),
        "pages_per_second": (rates["fast"], RATE),
        "times_trafilatura": (rates["fast"] / rates["trafilatura"], FACTOR),
    }
    bars = {name: {"value": round(v, 4), "bar": b, "holds": v >= b} for name, (v, b) in values.items()}
    print(json.dumps({"name": "extraction", "bars": bars}))
    return 0 if all(bar["holds"] for bar in bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
