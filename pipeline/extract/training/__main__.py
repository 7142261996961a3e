"""Train the trees of `extractor: fast` and write weights.npz beside the extractor.

usage: python -m pipeline.extract.training [--data ../shared/data] [--folds FOLDER]

Data. WCXB's development pages, pages of trafilatura's evaluation whose name hashes to an even number (`trained_on`; the
other half is never read here), and made-up pages of other kinds (made_pages.py). Labels and weights: samples.py.
Split. Five folds of pages, those of one domain or made layout together, give the kinds that the trees of blocks see and
the scores that the confidence is fitted on, so neither comes from a model that was trained on the same domain. The
printed figures are those folds'. --folds also writes the folds' own weights, which benchmarks/extraction.py measures
with the extractor itself. Training needs lightgbm; the same version and data give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.extract.training import FOLDS, evaluation_pages, reviewed_pages, snippet_f1, trained_on, word_f1
from pipeline.extract.training.made_pages import made_pages
from pipeline.extract.training.samples import MadeSample, ReviewedSample, Sample, SnippetSample
from pipeline.kernels.compiled import Array
from pipeline.kernels.html.fast import KINDS, WEIGHTS, score, with_kinds
from pipeline.kernels.html.trees import Nodes, by_feature, walk_trees

if TYPE_CHECKING:
    import lightgbm

MADE = 400
BINS = 12  # of the confidence
COMMON = {
    "bagging_fraction": 0.8, "bagging_freq": 1, "verbose": -1, "num_threads": 1, "seed": 1, "deterministic": True,
    "force_row_wise": True, "max_bin": 63,
}  # fmt: skip
BLOCK = COMMON | {
    "objective": "cross_entropy", "num_leaves": 32, "learning_rate": 0.11, "min_data_in_leaf": 40,
    "feature_fraction": 0.3, "lambda_l2": 5.0,
}  # fmt: skip
KIND = COMMON | {
    "objective": "multiclass", "num_class": len(KINDS), "num_leaves": 8, "learning_rate": 0.08, "min_data_in_leaf": 8,
    "feature_fraction": 0.15, "lambda_l2": 3.0,
}  # fmt: skip
KIND_TREES, BLOCK_TREES = 80, 150
SEEDS = (1, 2)  # as many models of blocks, whose mean decides


def load_samples(data: Path) -> list[Sample]:
    """All pages to train on."""
    samples: list[Sample] = [ReviewedSample(name, page) for name, page in reviewed_pages(data).items() if page.text]
    samples += [SnippetSample(n, body, gold) for n, (body, gold) in evaluation_pages(data).items() if trained_on(n)]
    samples += [MadeSample(name, parts) for name, _, parts in made_pages(MADE)]
    return [sample for sample in samples if sample.count]


def train_kind(samples: list[Sample]) -> Nodes:
    """Trees that tell the kind of a page from its row."""
    import lightgbm

    samples = [sample for sample in samples if sample.kind]
    labels = [KINDS.index(sample.kind) for sample in samples]
    rows = np.concatenate([sample.page.row for sample in samples])
    return flatten([lightgbm.train(KIND, lightgbm.Dataset(rows, labels), KIND_TREES)])


def train_block(samples: list[Sample], rows: list[Array]) -> Nodes:
    """Trees that score blocks. rows: of each sample's picked blocks."""
    import lightgbm

    labels = np.concatenate([s.labels[s.picked] for s in samples])
    weights = np.concatenate([s.weights[s.picked] for s in samples])
    weights *= len(weights) / weights.sum()
    data = lightgbm.Dataset(np.concatenate(rows), labels, weight=weights, free_raw_data=False)
    return flatten([lightgbm.train(BLOCK | {"seed": seed}, data, BLOCK_TREES) for seed in SEEDS])


def flatten(models: list[lightgbm.Booster]) -> Nodes:
    """The models' trees as arrays, the sum of their leaves being the models' mean."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    roots: list[int] = []

    def add(node: dict[str, Any]) -> int:
        at = len(feature)
        leaf = "leaf_value" in node
        feature.append(-1 if leaf else node["split_feature"])
        threshold.append(node["leaf_value"] / len(models) if leaf else node["threshold"])
        left.append(0)
        right.append(0)
        if not leaf:
            left[at], right[at] = add(node["left_child"]), add(node["right_child"])
        return at

    for model in models:
        for tree in model.dump_model()["tree_info"]:
            roots.append(add(tree["tree_structure"]))
    return Nodes(
        np.array(feature, np.int16), np.array(threshold, np.float32), np.array(left, np.int32),
        np.array(right, np.int32), np.array(roots, np.int32),
    )  # fmt: skip


Stages = dict[str, Nodes]  # trees by what they tell: `kind` and `block`


def fit(samples: list[Sample]) -> tuple[list[Stages], list[Array], list[Array]]:
    """(Trees without each fold and of all, scores of each page out of its fold, kinds likewise)."""
    inside = [[i for i, s in enumerate(samples) if s.fold != fold] for fold in (*range(FOLDS), None)]
    stages: list[Stages] = [{"kind": train_kind([samples[i] for i in chosen])} for chosen in inside]
    kinds = [walk_trees(stages[s.fold]["kind"], s.page.row[0], len(KINDS)) for s in samples]
    picked = [with_kinds(s.page, kind)[s.picked] for s, kind in zip(samples, kinds, strict=True)]
    for chosen, stage in zip(inside, stages, strict=True):
        stage["block"] = train_block([samples[i] for i in chosen], [picked[i] for i in chosen])
    compiled = [by_feature(stage["block"]) for stage in stages]
    return stages, [score(compiled[s.fold], s.page, kind) for s, kind in zip(samples, kinds, strict=True)], kinds


def measure(samples: list[Sample], scores: list[Array], kinds: list[Array]) -> dict[str, Any]:
    """Figures out of fold: word F1 by kind, snippets, kinds told, and (expected, actual) F1 of each reviewed page."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    texts, golds, pairs, told = {}, {}, [], []
    for sample, chances, kind in zip(samples, scores, kinds, strict=True):
        if not isinstance(sample, ReviewedSample) and sample.gold is None:
            continue
        text, expected = sample.extracted(chances)
        if isinstance(sample, ReviewedSample):
            by_kind[sample.kind].append(word_f1(text, sample.truth))
            pairs.append((expected, by_kind[sample.kind][-1]))
            told.append(KINDS[int(np.argmax(kind))] == sample.kind)
        else:
            texts[sample.name], golds[sample.name] = text, sample.gold or {}
    figures = {kind: round(float(np.mean(values)), 4) for kind, values in sorted(by_kind.items())}
    overall = float(np.mean([value for values in by_kind.values() for value in values]))
    return {
        "word_f1": figures | {"all": round(overall, 4)},
        "snippets": {name: round(value, 4) for name, value in snippet_f1(texts, golds).items()},
        "kinds_told": round(float(np.mean(told)), 4),
        "pairs": pairs,
    }


def calibrate(pairs: list[tuple[float, float]]) -> dict[str, Array]:
    """Actual F1 by expected F1, rising."""
    ordered = np.array(sorted(pairs))
    parts = np.array_split(ordered, BINS)
    expected, actual = (np.array([part[:, column].mean() for part in parts]) for column in (0, 1))
    return {"expected": expected.astype(np.float32), "actual": np.maximum.accumulate(actual).astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the fast extractor's trees.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folds", type=Path, help="folder for the folds' weights")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    samples = load_samples(arguments.data)
    print(len(samples), "pages", sum(len(s.picked) for s in samples), "blocks to train on", flush=True)
    stages, scores, kinds = fit(samples)
    figures = measure(samples, scores, kinds)
    confidence = calibrate(figures.pop("pairs"))
    paths = [arguments.out]
    if arguments.folds:
        arguments.folds.mkdir(parents=True, exist_ok=True)
        paths += [arguments.folds / f"{fold}.npz" for fold in range(FOLDS)]
    for path, stage in zip(paths, [stages[-1], *stages[:-1]], strict=False):
        trees = {f"{of}_{name}": getattr(nodes, name) for of, nodes in stage.items() for name in Nodes._fields}
        arrays: dict[str, Any] = trees | confidence
        np.savez_compressed(path, **arrays)
    print(json.dumps(figures | {"bytes": arguments.out.stat().st_size}, indent=1))


if __name__ == "__main__":
    main()
