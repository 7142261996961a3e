"""Language identification: accuracy on UD PUD, speed and sameness of decisions on documents of web length.

usage: python benchmarks/language.py [--quick] [--data ../shared/data]
The peer is the same model on the full text through fastText's own binding. A decision is the language together with
whether its score reaches the threshold (0.65). The second table has the accuracy on the same sentences, and on the
paragraphs of the Universal Declaration of Human Rights in the model's languages, in capitals, decomposed (NFD), and in
full-width letters. Documents are the main texts of trafilatura's evaluation pages, and
documentation cut to random lengths around 5 kB. Times are CPU seconds of one process.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
import unicodedata
from pathlib import Path

import fasttext
from bars import DATA, at_least, at_most, finish, options, show_machine, table

from pipeline.config import LanguageConfig
from pipeline.extract import extract_text
from pipeline.extract.training import evaluation_pages
from pipeline.language import LanguageIdentifier, find_model
from pipeline.language.identify import normalize_label

ACCURACY, SPEED, SAME = 0.975, 30.0, 0.995
FORM_LOSS = 0.005  # of accuracy, at most, in any form
WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)} | {" ": "\u3000"})
FORMS = {
    "plain": str,
    "capitals": str.upper,
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "capitals, NFD": lambda text: unicodedata.normalize("NFD", text.upper()),
    "full width": lambda text: text.translate(WIDE),
    "every second word wide": lambda text: " ".join(
        word.translate(WIDE) if i % 2 else word for i, word in enumerate(text.split(" "))
    ),
}
FILES = ("python-peps", "git-manual-l10n", "react-docs", "german-laws")
LOG_LENGTH, SPREAD = 8.5, 0.7  # of documents' lengths in characters, log-normal: median 4,900


def accuracies(identifier: LanguageIdentifier, path: Path, quick: bool) -> dict[str, float]:
    """{form: share of the texts whose language is named}, of those whose language the model knows."""
    known = {normalize_label(label)[0] for label in identifier._labels}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t", 1) for line in file][:: 10 if quick else 1]
    texts = [(truth, text) for label, text in rows if (truth := normalize_label(label)[0]) in known]
    return {
        form: sum(
            truth == name
            for (truth, _), (name, _) in zip(
                texts, identifier.identify([write(text) for _, text in texts]), strict=True
            )
        )
        / len(texts)
        for form, write in FORMS.items()
    }


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
    paths = [arguments.data / f"eval/lid/{name}.tsv.gz" for name in ("ud-pud", "udhr-paragraphs")]
    pud, udhr = (accuracies(identifier, path, arguments.quick) for path in paths)
    right = pud["plain"]
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
    print(f"same decisions: {sum(same) / len(same):.4f}\n")
    row = table("form", {"UD PUD": ".4f", "UDHR": ".4f"})
    for form in FORMS:
        row(form, pud[form], udhr[form])
    bars = {
        "accuracy": at_least(right, ACCURACY),
        "megabytes_per_second": at_least(size / seconds / 1e6, SPEED),
        "same_decisions": at_least(sum(same) / len(same), SAME),
        "form_loss": at_most(max(of["plain"] - of[form] for of in (pud, udhr) for form in FORMS), FORM_LOSS),
    }
    return finish("language", bars)


if __name__ == "__main__":
    sys.exit(main())
