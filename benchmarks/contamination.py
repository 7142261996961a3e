"""Decontamination in scripts without spaces: false alarms among unrelated texts, and questions that are found.

usage: python benchmarks/contamination.py [--quick] [--data ../shared/data]
Every second sentence of UD PUD (paragraph of the Universal Declaration of Human Rights) is an evaluation, the others
are documents of 5; none of these holds an evaluation, so each hit is a false alarm. `found`: evaluations that are found
where they stand verbatim in a text; the others are shorter than an n-gram. 13-grams, counted in two ways: `letters`,
each letter a word, and `words`, letters weighing as pipeline/kernels/overlap.py says. The
declaration is there in two dialects of Japanese and of Chinese: a paragraph whose other version is an evaluation (a
ratio of 0.6 in Python's difflib) is left out, since it is no false alarm.
"""

from __future__ import annotations

import gzip
import sys
from difflib import SequenceMatcher
from pathlib import Path
from unittest.mock import patch

from bars import DATA, at_most, finish, options, show_machine, table

from pipeline.kernels import overlap
from pipeline.quality.contamination import Contamination

SETS = {"ud-pud": "eng zho tha", "udhr-paragraphs": "eng cmn jpn tha lao khm mya"}
FALSE_ALARMS = 0.0  # sentences that have nothing to do with each other
SAME = 0.6  # ratio of difflib from which two paragraphs are one in two dialects


def measure(sentences: list[str]) -> tuple[float, float]:
    """(share of documents with a hit, share of evaluations found)."""
    known, others = Contamination(sentences[::2]), sentences[1::2]
    texts = ["\n".join(others[i : i + 5]) for i in range(0, len(others), 5)]
    hits = sum(count > 0 for count, _ in known.find(texts))
    found = sum(count > 0 for count, _ in known.find(sentences[::2]))
    return hits / len(texts), found / len(sentences[::2])


def apart(sentences: list[str]) -> list[str]:
    """Evaluations and other sentences by turns, without those others that are an evaluation in another dialect."""
    kept = []
    for evaluation, other in zip(sentences[::2], sentences[1::2], strict=False):
        if all(SequenceMatcher(None, other, each).ratio() < SAME for each in sentences[::2]):
            kept += [evaluation, other]
    return kept


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    show_machine("numba")
    row = table(
        "texts", {"false, letters": ".3f", "found, letters": ".3f", "false, words": ".3f", "found, words": ".3f"}, 24
    )
    most = 0.0
    for name, codes in SETS.items():
        with gzip.open(arguments.data / f"eval/lid/{name}.tsv.gz", "rt", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t", 1) for line in file]
        for code in codes.split():
            sentences = [text for label, text in rows if label == code][: 60 if name != "ud-pud" else 1000]
            sentences = sentences[:: 3 if arguments.quick else 1]
            if name != "ud-pud":
                sentences = apart(sentences)
            with patch.object(overlap, "LETTERS_A_WORD", dict.fromkeys(range(256), 1)):
                letters = measure(sentences)
            words = measure(sentences)
            row(f"{name} {code}", *letters, *words)
            most = max(most, words[0])
    return finish("contamination", {"false_alarms": at_most(most, FALSE_ALARMS)})


if __name__ == "__main__":
    sys.exit(main())
