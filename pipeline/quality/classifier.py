"""Quality classifiers: fastText over hashed word n-grams, trained on good against ordinary documents (as DCLM's).

Training is deterministic: one thread, a seed, held-out documents chosen by a hash of their text, so neither the order
of files nor the number of cores matters. Training needs the library fasttext; scoring runs in our own kernel
(pipeline.kernels.fasttext).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import PipelineError
from common.files import write_atomically
from pipeline.documents import open_text, read_batches
from pipeline.kernels.fasttext import empty_cache, predict, read_network

Array = np.ndarray[Any, Any]
CHARACTERS = 20_000  # read of a document: a chapter tells the quality of a book
BINS = 10
_LABELS = ("__label__negative", "__label__positive")


@dataclass(frozen=True)
class Training:
    """Result of `train`, measured on held-out documents.

    trained, tested: documents; auc: probability that a positive document scores above a negative one; calibration:
    rows (lowest score, highest score, documents, mean score, share of positives) of ten bins.
    """

    trained: int
    tested: int
    auc: float
    calibration: list[tuple[float, float, int, float, float]]


class Classifier:
    """A fastText model and the label whose probability is the score. Raises PipelineError if the model lacks it."""

    def __init__(self, path: Path, label: str = "positive") -> None:
        try:
            with path.open("rb") as file:
                self._network, labels = read_network(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise PipelineError(f"{path}: no fastText classifier that can be read ({error})") from error
        self._cache = empty_cache(self._network)
        if f"__label__{label}" not in labels:
            names = ", ".join(name.removeprefix("__label__") for name in labels[:10])
            raise PipelineError(f"{path}: the model has no label `{label}`; it has: {names}")
        self._label = labels.index(f"__label__{label}")

    def score(self, texts: Sequence[str]) -> Array:
        """float64 (len(texts),): probability of the label, 0 to 1; 0 for a text of which the model knows nothing."""
        return predict(self._network, self._cache, [line(text) for text in texts], self._label)[1]


def line(text: str) -> str:
    """A document as fastText reads it: one line, in lower case."""
    return " ".join(text[:CHARACTERS].lower().split()).encode("utf-8", "replace").decode()


def train(
    positive: Sequence[Path],
    negative: Sequence[Path],
    output: Path,
    *,
    seed: int = 1,
    ngram: int = 2,
    epochs: int = 5,
    dimension: int = 64,
    buckets: int = 1 << 18,
    held_out: float = 0.1,
) -> Training:
    """Train a model that tells documents like `positive` from those like `negative`, and write it to `output`.

    Files are jsonl (field `text`), parquet (column `text`) or txt (a document each), also .gz. The model takes about
    4 x dimension x (buckets + words) bytes. Raises PipelineError for unreadable files, for too few documents, and where
    fasttext is not installed.
    """
    try:
        import fasttext
    except ModuleNotFoundError as error:
        raise PipelineError(
            "training a classifier needs the library fasttext, which is not installed (scoring does not need it): pip"
            " install fasttext-wheel, or fasttext-community where that has no wheel"
        ) from error
    documents = [(text, label) for label, paths in enumerate((negative, positive)) for text in _documents(paths)]
    tested = [(text, label) for text, label in documents if _held_out(text, held_out)]
    trained = sorted({(text, label) for text, label in documents if not _held_out(text, held_out)}, key=_order)
    for part, name in ((trained, "to train on"), (tested, "held out")):
        if len({label for _, label in part}) < 2:
            raise PipelineError(
                f"too few documents: {len(documents)} read, and the {len(part)} {name} are not of both kinds;"
                " give at least some hundred positive and some hundred negative ones"
            )
    with tempfile.TemporaryDirectory() as folder:
        file, model_file = Path(folder) / "train.txt", Path(folder) / "model.bin"
        file.write_text("".join(f"{_LABELS[label]} {text}\n" for text, label in trained), "utf-8")
        fasttext.train_supervised(
            str(file), wordNgrams=ngram, epoch=epochs, dim=dimension, bucket=buckets, seed=seed, thread=1, verbose=0,
            lr=0.5, minCount=2,
        ).save_model(str(model_file))  # fmt: skip
        write_atomically(output, model_file.read_bytes())
    scores = Classifier(output).score([text for text, _ in tested])
    labels = np.array([label for _, label in tested])
    return Training(len(trained), len(tested), auc(scores, labels), calibration(scores, labels))


def auc(scores: Array, labels: Array) -> float:
    """Probability that a positive (1) scores above a negative (0); equal scores count half (Mann-Whitney)."""
    positive, negative = scores[labels == 1], np.sort(scores[labels == 0])
    below, upto = np.searchsorted(negative, positive, "left"), np.searchsorted(negative, positive, "right")
    return float((below + upto).sum() / 2 / (len(positive) * len(negative)))


def calibration(scores: Array, labels: Array) -> list[tuple[float, float, int, float, float]]:
    """Rows (low, high, documents, mean score, share of positives) of the BINS score ranges that hold documents."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    rows = []
    for k in sorted(set(bins.tolist())):
        members = bins == k
        mean, share = float(scores[members].mean()), float(labels[members].mean())
        rows.append((k / BINS, (k + 1) / BINS, int(members.sum()), mean, share))
    return rows


def _documents(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        for text in _texts(path):
            if cleaned := line(text):
                yield cleaned


def _texts(path: Path) -> Iterator[str]:
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            for table in read_batches(path, ["text"]):
                yield from table["text"].to_pylist()
            return
        with open_text(path) as file:
            if name.endswith((".jsonl", ".json")):
                yield from (json.loads(row)["text"] for row in file if row.strip())
            else:
                yield file.read()
    except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile) as error:
        raise PipelineError(f"{path}: cannot read documents (rows with `text`, or plain text): {error}") from error


def _held_out(text: str, share: float) -> bool:
    return int.from_bytes(_hash(text)[:4], "big") < share * 2**32


def _order(document: tuple[str, int]) -> bytes:
    """Sort key that is independent of the files' order, and of `_held_out`."""
    return _hash(f"{document[1]} {document[0]}")


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
