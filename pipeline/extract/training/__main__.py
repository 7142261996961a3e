"""Train the trees of `extractor: fast` and write weights.npz beside the extractor.

usage: python -m pipeline.extract.training [--data ../shared/data] [--teachers CACHE.json]   (about 6 minutes)

Data. Pages of trafilatura's evaluation whose name hashes to an even number (`trained_on`; the other half is never
read here), a tenth of the pages of data/web by hash of their URL, the HTML in data/eval/warc, and made-up pages of
other kinds (made_pages.py).
Labels. The evaluation's snippets where a block holds one; every other block by a vote of five extractors
(trafilatura twice, resiliparse, readability, justext), each weighted by how well it does on the page's own snippets.
Split. Four folds of pages give the scores that the second stage and the threshold are fitted on, so neither sees a
score of a model that was trained on the same page or, for made pages, on the same layout. Training needs lightgbm,
readability-lxml and justext.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.extract.text import decode, tidy
from pipeline.extract.training import Gold, evaluation_pages, fold_space, snippet_f1, trained_on
from pipeline.extract.training.made_pages import Part, made_pages, word_f1
from pipeline.kernels.compiled import Array
from pipeline.kernels.html.fast import WEIGHTS, choose, context
from pipeline.kernels.html.features import describe
from pipeline.kernels.html.rendering import render
from pipeline.kernels.html.tree import cut_blocks, parse
from pipeline.kernels.html.trees import Nodes, by_feature, run_trees
from pipeline.read.archives import read_records

if TYPE_CHECKING:
    import lightgbm

FOLDS = 4
SNIPPET_WEIGHT = 12.0
OTHER_PAGES_WEIGHT = 0.4
MADE_PAGES, MADE_WEIGHT = 400, 0.3
TEACHERS = {"trafilatura": 2.0, "trafilatura_recall": 1.0, "resiliparse": 0.7, "readability": 1.0, "justext": 0.7}
FIRST = {"num_leaves": 24, "learning_rate": 0.06, "min_data_in_leaf": 40, "feature_fraction": 0.4}
SECOND = {"num_leaves": 16, "learning_rate": 0.05, "min_data_in_leaf": 60, "feature_fraction": 0.4}
FIRST_TREES, SECOND_TREES = 250, 150
COMMON = {
    "objective": "cross_entropy", "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0, "verbose": -1,
    "num_threads": 1, "seed": 1, "deterministic": True, "force_row_wise": True, "max_bin": 127,
}  # fmt: skip


def other_pages(data: Path) -> dict[str, bytes]:
    """Pages without snippets."""
    pages = {}
    for path in sorted((data / "web").glob("[hk]*.warc.gz")):
        for record in read_records(str(path)):
            if record.media_type == "text/html" and hashlib.blake2b(record.url.encode()).digest()[0] < 26:
                pages[record.url] = record.body
    for path in sorted((data / "eval/warc/files").iterdir()):
        for record in read_records(str(path)):
            if record.media_type == "text/html" and len(record.body) > 3000:
                pages[record.url] = record.body
    return {url: body for url, body in pages.items() if len(body) < 300_000}


def teach(page: str) -> dict[str, str]:
    """{teacher: the text that it extracts from a page}."""
    import justext
    import trafilatura
    from lxml import html
    from readability import Document
    from resiliparse.extract.html2text import extract_plain_text

    logging.getLogger("readability").setLevel(logging.CRITICAL)  # it prints a traceback for each page it cannot read

    def readability() -> str:
        try:
            return str(html.fromstring(Document(page).summary()).text_content())
        except Exception:  # noqa: BLE001  # a teacher that fails on a page has no vote there
            return ""

    def by_stop_words() -> str:
        words = frozenset().union(*(justext.get_stoplist(name) for name in ("English", "German", "French")))
        try:
            return "\n".join(p.text for p in justext.justext(page.encode(), words) if not p.is_boilerplate)
        except Exception:  # noqa: BLE001
            return ""

    options = {"deduplicate": False, "include_comments": False}
    return {
        "trafilatura": trafilatura.extract(page, **options) or "",
        "trafilatura_recall": trafilatura.extract(page, favor_recall=True, **options) or "",
        "resiliparse": extract_plain_text(page, main_content=True, alt_texts=False),
        "readability": readability(),
        "justext": by_stop_words(),
    }


def squeeze(text: str) -> str:
    """Letters and digits only, lower case."""
    return re.sub(r"[\W_]+", "", text).lower()


class Sample:
    """A page ready for training: arrays, labels and weights by block."""

    gold: Gold | None = None

    def __init__(self, name: str, page: str) -> None:
        self.name = self.group = name  # pages of one group are in one fold
        self.data = np.frombuffer(page.encode("utf-8", "replace"), np.uint8)
        self.tree = parse(self.data)
        self.blocks = cut_blocks(self.data, self.tree)
        self.features = describe(self.data, self.tree, self.blocks)
        self.weights = 0.4 + np.minimum(self.blocks.bytes, 600) / 200.0
        self.labels = np.zeros(len(self.features))

    def render(self, chosen: Array) -> str:
        return tidy(render(self.data, self.tree, self.blocks, chosen))


class MadeSample(Sample):
    """A made page: a block has the label of the part in which its text begins."""

    def __init__(self, name: str, parts: list[Part]) -> None:
        super().__init__(name, "".join(html for html, _ in parts))
        self.group = name.rpartition("-")[0]
        self.parts = parts
        ends = np.cumsum([len(html.encode()) for html, _ in parts])
        labels = [parts[i][1] for i in np.searchsorted(ends, self.tree.run_start[self.blocks.first], side="right")]
        self.labels = np.array([label or 0.0 for label in labels])
        self.weights *= np.array([0.0 if label is None else MADE_WEIGHT for label in labels])


class RealSample(Sample):
    """A real page, labelled by snippets and teachers."""

    def __init__(self, name: str, page: str, teachers: dict[str, str], gold: Gold | None) -> None:
        super().__init__(name, page)
        self.gold = gold
        count = len(self.features)
        texts = [fold_space(self.render(np.arange(count) == i)) for i in range(count)]
        self.labels = self._vote(texts, teachers)
        if gold is None:
            self.weights *= OTHER_PAGES_WEIGHT
            return
        for number, text in enumerate(texts):
            wanted = any(fold_space(snippet) in text for snippet in gold["with"])
            unwanted = any(fold_space(snippet) in text for snippet in gold["without"])
            if wanted != unwanted:
                self.labels[number] = float(wanted)
                self.weights[number] = max(self.weights[number], 1.0) + SNIPPET_WEIGHT

    def _vote(self, texts: list[str], teachers: dict[str, str]) -> Array:
        votes, total = np.zeros(len(texts)), 1e-9
        for teacher, trust in TEACHERS.items():
            text = teachers[teacher]
            if self.gold is not None:
                trust *= agreement(fold_space(text), self.gold) ** 3
            squeezed = squeeze(text)
            lines = {squeeze(part) for line in text.split("\n") for part in (line, *line.split("|"))}
            votes += trust * np.array([said(squeeze(block), squeezed, lines) for block in texts], float)
            total += trust
        return votes / total


def said(block: str, text: str, lines: set[str]) -> bool:
    """Whether an extractor's output holds a block: short ones as a line, long ones anywhere."""
    if len(block) < 25:
        return block in lines
    return block in text or (len(block) > 200 and block[:60] in text and block[-60:] in text)


def agreement(text: str, gold: Gold) -> float:
    hits = sum(fold_space(s) in text for s in gold["with"])
    wrong = sum(fold_space(s) in text for s in gold["without"])
    return (hits + 0.3) / (len(gold["with"]) + wrong + 0.6)


def train(samples: list[Sample], rows: list[Array], settings: dict[str, Any], trees: int) -> lightgbm.Booster:
    import lightgbm

    labels, weights = (np.concatenate([getattr(s, name) for s in samples]) for name in ("labels", "weights"))
    return lightgbm.train(COMMON | settings, lightgbm.Dataset(np.concatenate(rows), labels, weight=weights), trees)


def flatten(model: lightgbm.Booster) -> dict[str, Array]:
    """Columns of `Nodes`, by name."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    roots: list[int] = []

    def add(node: dict[str, Any]) -> int:
        at = len(feature)
        leaf = "leaf_value" in node
        feature.append(-1 if leaf else node["split_feature"])
        threshold.append(node["leaf_value"] if leaf else node["threshold"])
        left.append(0)
        right.append(0)
        if not leaf:
            left[at], right[at] = add(node["left_child"]), add(node["right_child"])
        return at

    for tree in model.dump_model()["tree_info"]:
        roots.append(add(tree["tree_structure"]))
    return {
        "feature": np.array(feature, np.int16), "threshold": np.array(threshold, np.float32),
        "left": np.array(left, np.int32), "right": np.array(right, np.int32), "roots": np.array(roots, np.int32),
    }  # fmt: skip


def out_of_fold(samples: list[Sample], rows: list[Array], settings: dict[str, Any], trees: int) -> list[Array]:
    """Scores of each page by a model that was trained on the other folds."""
    folds = np.array([hashlib.blake2b(s.group.encode()).digest()[1] % FOLDS for s in samples])
    scores: list[Array] = [np.empty(0)] * len(samples)
    for fold in range(FOLDS):
        chosen = np.flatnonzero(folds != fold)
        model = train([samples[i] for i in chosen], [rows[i] for i in chosen], settings, trees)
        compiled = by_feature(Nodes(**flatten(model)))
        for i in np.flatnonzero(folds == fold):
            scores[i] = run_trees(compiled, rows[i])
    return scores


def pick_threshold(samples: list[Sample], scores: list[Array]) -> tuple[float, dict[str, float]]:
    """Threshold with the best F1 on the snippets of the training half."""
    golds = {s.name: s.gold for s in samples if s.gold}
    tried = {}
    for threshold in np.arange(0.36, 0.58, 0.04):
        texts = {
            s.name: s.render(choose(s.blocks, p, threshold)[0]) for s, p in zip(samples, scores, strict=True) if s.gold
        }
        tried[float(threshold)] = snippet_f1(texts, golds)
        print(f"threshold {threshold:.2f}", tried[float(threshold)])
    best = max(tried, key=lambda threshold: tried[threshold]["f1"])
    return best, tried[best]


def report_made(samples: list[Sample], scores: list[Array], threshold: float) -> None:
    """Word F1 of the made pages by layout, none of which the scores' models saw."""
    figures: dict[str, list[float]] = {}
    for sample, chances in zip(samples, scores, strict=True):
        if isinstance(sample, MadeSample):
            text = sample.render(choose(sample.blocks, chances, threshold)[0])
            figures.setdefault(sample.group, []).append(word_f1(text, sample.parts))
    for group, values in sorted(figures.items()):
        print(f"{group:<22} F1 {np.mean(values):.3f} over {len(values)} made pages, cross-validated")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the fast extractor's trees.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--teachers", type=Path, help="JSON of the teachers' texts, written if absent")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    gold = {n: pair for n, pair in evaluation_pages(arguments.data).items() if trained_on(n)}
    pages = {name: decode(body)[0] for name, (body, _) in gold.items()}
    pages |= {url: decode(body)[0] for url, body in other_pages(arguments.data).items()}
    cached = arguments.teachers is not None and arguments.teachers.is_file()
    taught = json.loads(arguments.teachers.read_text("utf-8")) if cached else {}
    taught |= {name: teach(page) for name, page in pages.items() if name not in taught}
    if arguments.teachers:
        arguments.teachers.write_text(json.dumps(taught), "utf-8")
    samples: list[Sample] = [
        RealSample(name, page, taught[name], gold[name][1] if name in gold else None) for name, page in pages.items()
    ]
    samples += [MadeSample(name, parts) for name, _, parts in made_pages(MADE_PAGES)]
    samples = [sample for sample in samples if len(sample.features)]
    rows = [sample.features for sample in samples]
    print(len(samples), "pages", sum(map(len, rows)), "blocks")
    alone = out_of_fold(samples, rows, FIRST, FIRST_TREES)
    wider = [np.hstack([s.features, context(s.tree, s.blocks, p)]) for s, p in zip(samples, alone, strict=True)]
    together = out_of_fold(samples, wider, SECOND, SECOND_TREES)
    threshold, figures = pick_threshold(samples, together)
    report_made(samples, together, threshold)
    first, second = train(samples, rows, FIRST, FIRST_TREES), train(samples, wider, SECOND, SECOND_TREES)
    arrays: dict[str, Any] = {"threshold": np.float32(threshold)}
    arrays |= {f"{stage}_{n}": a for stage, m in (("first", first), ("second", second)) for n, a in flatten(m).items()}
    np.savez_compressed(arguments.out, **arrays)
    print(json.dumps({"threshold": threshold, "cross_validated": figures, "bytes": arguments.out.stat().st_size}))


if __name__ == "__main__":
    main()
