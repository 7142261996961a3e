"""Training of the extractor `fast` (`python -m pipeline.extract.training`), and what its benchmarks share.

Here: trafilatura's evaluation pages, their split into a training and a held-out half, and the score on their snippets;
WCXB's development pages, their folds by domain, and word F1. Nothing of this package is imported at run time.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pipeline.extract.urls import domain_of

Gold = dict[str, list[str]]
FOLDS = 5
_WORD = re.compile(r"\w+")


class Reviewed(NamedTuple):
    """A page of WCXB: HTML, kind of page, domain, reviewed main text."""

    body: bytes
    kind: str
    domain: str
    text: str


def trained_on(name: str) -> bool:
    """Whether a page of the evaluation belongs to the training half."""
    return hashlib.blake2b(name.encode()).digest()[0] % 2 == 0


def evaluation_pages(data: Path) -> dict[str, tuple[bytes, Gold]]:
    """{file name: (HTML, gold entry)} of trafilatura's evaluation."""
    with tarfile.open(data / "eval/extraction/trafilatura-eval.tar.gz") as archive:
        files = {Path(m.name).name: file.read() for m in archive if (file := archive.extractfile(m))}
    return {gold["file"]: (files[gold["file"]], gold) for gold in json.loads(files["evaldata.json"]).values()}


def reviewed_pages(data: Path) -> dict[str, Reviewed]:
    """{number: page} of WCXB's development split (Web Content Extraction Benchmark, 2026; CC BY 4.0)."""
    with tarfile.open(data / "eval/extraction/wcxb-dev.tar.xz") as archive:
        files = {Path(m.name).name: file.read() for m in archive if (file := archive.extractfile(m))}
    out = {}
    for name in sorted(files):
        if name.endswith(".json"):
            entry, number = json.loads(files[name]), name.removesuffix(".json")
            kind = entry["_internal"]["page_type"]["primary"]
            text = entry["ground_truth"].get("main_content") or ""
            domain = ".".join(domain_of(entry["url"]).split(".")[-2:])
            out[number] = Reviewed(files[f"{number}.html"], kind, domain, text)
    return out


def fold_of(group: str) -> int:
    """Fold of a group of pages that belong together: those of a domain, or of a made layout."""
    return hashlib.blake2b(group.encode()).digest()[1] % FOLDS


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def word_f1(text: str, truth: str) -> float:
    """F1 of a text's words as a bag, WCXB's measure."""
    found, wanted = Counter(words(text)), Counter(words(truth))
    return 2 * (found & wanted).total() / max(found.total() + wanted.total(), 1)


def fold_space(text: str) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def snippet_f1(texts: dict[str, str], golds: dict[str, Gold]) -> dict[str, float]:
    """Precision, recall and F1 over all snippets, as the evaluation's score.py counts them."""
    hits = misses = wrong = 0
    for name, gold in golds.items():
        text = fold_space(texts[name])
        present = sum(fold_space(s) in text for s in gold["with"])
        hits, misses = hits + present, misses + len(gold["with"]) - present
        wrong += sum(fold_space(s) in text for s in gold["without"])
    precision, recall = hits / max(hits + wrong, 1), hits / max(hits + misses, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-9)}
