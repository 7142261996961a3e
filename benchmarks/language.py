"""Language identification: accuracy on UD PUD, speed and sameness of decisions on documents of web length.

usage: python benchmarks/language.py [--quick] [--data ../shared/data]
The peer is the same model on the full text through fastText's own binding. A decision is the language together with
whether its score reaches the threshold (0.65). Documents are the main texts of trafilatura's evaluation pages, and
documentation cut to random lengths around 5 kB. Times are CPU seconds of one process.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
from pathlib import Path

import fasttext
from bars import DATA, at_least, finish, options, show_machine, table

from pipeline.config import LanguageConfig
from pipeline.extract import extract_text
from pipeline.extract.training import evaluation_pages
from pipeline.language import LanguageIdentifier, find_model
from pipeline.language.identify import normalize_label

ACCURACY, SPEED, SAME = 0.975, 30.0, 0.995
FILES = ("python-peps", "git-manual-l10n", "react-docs", "german-laws")
LOG_LENGTH, SPREAD = 8.5, 0.7  # of documents' lengths in characters, log-normal: median 4,900


def accuracy(identifier: LanguageIdentifier, data: Path, quick: bool) -> float:
    """Share of UD PUD's sentences whose language is named."""
    with gzip.open(data / "eval/lid/ud-pud.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t", 1) for line in file][:: 10 if quick else 1]
    names = [name for name, _ in identifier.identify([text for _, text in rows])]
    return sum(normalize_label(truth)[0] == name for (truth, _), name in zip(rows, names, strict=True)) / len(rows)


def documents(data: Path, quick: bool) -> list[str]:
    """Texts of web length."""
    pages = sorted(evaluation_pages(data).items())[:: 10 if quick else 1]
    texts = [extract_text(body) for _, (body, _) in pages]
    draw = random.Random(1)
    for name in FILES:
        with gzip.open(data / f"text/{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            long = [text for line in file if len(text := json.loads(line)["text"]) > 1000]
        draw.shuffle(long)
        texts += [text[: int(draw.lognormvariate(LOG_LENGTH, SPREAD))] for text in long[: 20 if quick else 200]]
    return [text for text in texts if text]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    show_machine("fasttext-wheel", "numba")
    identifier = LanguageIdentifier()
    right = accuracy(identifier, arguments.data, arguments.quick)
    texts = documents(arguments.data, arguments.quick)
    size = sum(len(text.encode()) for text in texts)
    # fasttext-wheel's own predict breaks on numpy 2; the binding below it does not.
    peer = fasttext.FastText._FastText(str(find_model())).f
    began = time.process_time()
    ours = identifier.identify(texts)
    seconds = time.process_time() - began
    began = time.process_time()
    full = [peer.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")[0] for text in texts]
    full_seconds = time.process_time() - began
    threshold = LanguageConfig().threshold
    same = [
        name == normalize_label(label)[0] and (score >= threshold) == (other >= threshold)
        for (name, score), (other, label) in zip(ours, full, strict=True)
    ]
    print(f"UD PUD: {right:.4f} right; {len(texts)} documents of {size / len(texts):.0f} bytes on average")
    row = table("", {"MB/s": ".1f"})
    row("ours", size / seconds / 1e6)
    row("fastText, all", size / full_seconds / 1e6)
    print(f"same decisions: {sum(same) / len(same):.4f}")
    bars = {
        "accuracy": at_least(right, ACCURACY),
        "megabytes_per_second": at_least(size / seconds / 1e6, SPEED),
        "same_decisions": at_least(sum(same) / len(same), SAME),
    }
    return finish("language", bars)


if __name__ == "__main__":
    sys.exit(main())
