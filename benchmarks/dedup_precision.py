"""Precision and recall of `find_duplicates` on versions and editions of the same pages, against exact Jaccard.

    python benchmarks/dedup_precision.py [--quick]

Texts: the Kafka documentation (11 versions of the same pages, extracted) and gutenberg (books in several editions) of
the real data next to the checkout. Truth: Jaccard similarity of the sets of word 5-grams for all pairs. A word is a
run of letters, digits and underscores in lower case (`words`), or what white space separates (`spaced`), so that a
quotation mark or a comma makes another word. Columns:

    dropped   share of the texts with an earlier text's label whose similarity to that text reaches the threshold
    pairs     the same share over all pairs with one label; two texts may each be like a third and not like each other
    recall    share of pairs at threshold + 0.1 or more of which at most one stays
    together  the same share, for one label
    seconds   of find_duplicates, once warm

Bars are those of exact verification, the default of `find_duplicates` and of the stage, against `words`.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import time
from collections.abc import Callable
from itertools import chain
from typing import Any, Literal

import numpy as np
from bars import DATA, Bar, at_least, finish, options, table
from scipy.sparse import csr_matrix

from pipeline.dedup import find_duplicates
from pipeline.extract.text import extract_text
from pipeline.read.archives import read_records

NGRAM = 5
SPLITS: dict[str, Callable[[str], list[str]]] = {"words": re.compile(r"\w+").findall, "spaced": str.split}


def kafka(files: int) -> list[str]:
    paths = sorted((DATA / "web").glob("kafka-*.warc.gz"))[:files]
    records = chain.from_iterable(map(read_records, map(str, paths)))
    pages = (record for record in records if record.status == 200 and "html" in record.media_type)
    texts = (extract_text(page.body, charset=page.charset, url=page.url) for page in pages)
    return [text for text in texts if text]


def gutenberg() -> list[str]:
    with gzip.open(DATA / "text/gutenberg.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def word_sets(texts: list[str], split: Callable[[str], list[str]]) -> csr_matrix:
    numbers: dict[tuple[str, ...], int] = {}
    sets = []
    for text in texts:
        words = split(text.lower())
        shingles = {tuple(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))}
        sets.append([numbers.setdefault(shingle, len(numbers)) for shingle in shingles])
    columns, offsets = np.concatenate(sets), np.cumsum([0, *map(len, sets)])
    return csr_matrix((np.ones(len(columns), np.float32), columns, offsets))


def jaccard(sets: csr_matrix) -> Any:
    """Similarity of all pairs, float64 (texts, texts)."""
    shared = np.asarray((sets @ sets.T).todense(), np.float64)
    sizes = np.diag(shared)
    return shared / np.maximum(sizes[:, None] + sizes[None, :] - shared, 1)


def scores(similarity: Any, labels: Any, threshold: float) -> dict[str, float]:
    """The columns of the table."""
    below = np.tril(np.ones(similarity.shape, bool), -1)
    dropped = np.flatnonzero(labels != np.arange(len(labels)))
    one = below & (labels[:, None] == labels[None, :])
    stays = labels == np.arange(len(labels))
    high = below & (similarity >= threshold + 0.1)
    reached = similarity >= threshold - 1e-9
    return {
        "dropped": reached[dropped, labels[dropped]].mean() if len(dropped) else 1.0,
        "pairs": reached[one].mean() if one.any() else 1.0,
        "recall": 1 - (high & stays[:, None] & stays[None, :]).sum() / max(high.sum(), 1),
        "together": one[high].mean() if high.any() else 1.0,
    }


def main() -> int:
    quick = options(__doc__, "one of Kafka's three archives").parse_args().quick
    bars: dict[str, Bar] = {}
    find_duplicates(["a b c d e f"] * 2)
    for name, texts in (("kafka", kafka(1 if quick else 3)), ("gutenberg", gutenberg())):
        truths = {name: jaccard(word_sets(texts, split)) for name, split in SPLITS.items()}
        print(f"\n{name}, {len(texts)} texts")
        columns = {"verify_by": "", "truth": ""} | dict.fromkeys(("dropped", "pairs", "recall", "together"), ".4f")
        row = table("threshold", columns | {"kept": "d", "seconds": ".2f"})
        ways: tuple[Literal["estimate", "exact"], ...] = ("estimate", "exact")
        for threshold, way in ((t, w) for t in (0.75, 0.8) for w in ways):
            start = time.perf_counter()
            labels = find_duplicates(texts, threshold=threshold, verify_by=way)
            seconds, kept = time.perf_counter() - start, len(set(labels.tolist()))
            for truth, similarity in truths.items():
                shares = scores(similarity, labels, threshold)
                row(threshold, way, truth, *shares.values(), kept, seconds)
                if (way, truth) == ("exact", "words"):
                    for kind, bar in (("dropped", 0.99), ("pairs", 0.99), ("recall", 0.97), ("together", 0.97)):
                        bars[f"{name}_{threshold}_{kind}"] = at_least(shares[kind], bar)
    return finish("dedup_precision", bars)


if __name__ == "__main__":
    sys.exit(main())
