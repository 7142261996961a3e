"""Training of the extractor `fast` (`python -m pipeline.extract.training`), and what its benchmarks share.

Here: trafilatura's evaluation pages, their split into a training and a held-out half, and the score on their snippets.
Nothing of this package is imported at run time.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path

Gold = dict[str, list[str]]


def trained_on(name: str) -> bool:
    """Whether a page of the evaluation belongs to the training half."""
    return hashlib.blake2b(name.encode()).digest()[0] % 2 == 0


def evaluation_pages(data: Path) -> dict[str, tuple[bytes, Gold]]:
    """{file name: (HTML, gold entry)} of trafilatura's evaluation."""
    with tarfile.open(data / "eval/extraction/trafilatura-eval.tar.gz") as archive:
        files = {Path(m.name).name: file.read() for m in archive if (file := archive.extractfile(m))}
    return {gold["file"]: (files[gold["file"]], gold) for gold in json.loads(files["evaldata.json"]).values()}


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
