"""The mixture that `pretrain mix` proposes is better than the natural one by more than twice the spread over seeds.

    python benchmarks/mixture.py

Three sources: `good`, prose of Project Gutenberg, which is also the target and too little to fill more than 60 % of
the final run in four epochs; `part`, of which half is such prose and half random letters, in every document; `noise`,
random letters only. By size they are 1, 4 and 6 parts. The proposal has to find that noise is worth nothing and that
the part is worth more than that. The bar: natural minus proposal, in bits per byte of held-out prose, over the pooled
deviation of a run.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from bars import DATA, at_least, finish, options, show_machine, table
from planted_noise import LETTERS

from cli.mix import NATURAL, PROPOSAL, Study
from cli.sequential import pooled_deviation
from common.files import read_json
from common.observe import Observer
from common.runfolder import RunFolder
from pipeline.build import build_corpus
from recipes.schema import Recipe

TOKENS = 300_000  # of the final run
WORDS = 150  # of a document
DOCUMENTS = {"good": 150, "part": 600, "noise": 900}
GOOD = {"good": 1.0, "part": 0.5, "noise": 0.0}  # share of words from books
TRAIN: dict[str, Any] = {
    "model": {"layers": 2, "width": 128, "heads": 2, "kv_heads": 2, "head_dim": 64, "ffn": 384},
    "steps": 150,
    "global_batch_tokens": 1024,
    "micro_batch": 8,
    "precision": "fp32",
    "compile": False,
    "log_every": 50,
    "evaluation": {"every": 150},
}


def main() -> int:
    arguments = options(
        __doc__, quick="8 proxies of 60 steps and two seeds, instead of 16 of 150 and three"
    ).parse_args()
    proxies, seeds = (8, 2) if arguments.quick else (16, 3)
    show_machine("torch", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        recipe = build(Path(folder), {"steps": 60, "global_batch_tokens": 512} if arguments.quick else {})
        run = RunFolder(Path(folder) / "run")
        assert recipe.train is not None
        study = Study(run, read_json(run.shards / "manifest.json"), recipe.train, TOKENS, ["good"])
        results = study.run_all(proxies, seeds)
    print(f"fit: explains {results['fit']['explains']:.2f} of the variance of runs left out")
    if results["proposal"] is None:
        print("no proposal")
        return 1
    columns = {f"share of {name}": ".3f" for name in study.streams}
    show = table("mixture", columns | {"bits per byte": ".4f"})
    confirmation = results["confirmation"]
    for name, row in confirmation.items():
        show(name, *row["shares"], float(np.mean(row["objective"])))
    expected, deviation = results["proposal"]["objective"]
    print(f"predicted of the proposal: {expected:.4f} ± {deviation:.4f}")
    print(*(row["says"] for row in results["verdicts"]), sep="\n")
    spread = pooled_deviation({name: row["objective"] for name, row in confirmation.items()})
    gain = np.mean(confirmation[NATURAL]["objective"]) - np.mean(confirmation[PROPOSAL]["objective"])
    return finish("mixture", {"gain over natural, in spreads of a run": at_least(float(gain) / (spread or 1e-9), 2.0)})


def build(folder: Path, smaller: dict[str, int]) -> Recipe:
    """The recipe, after its corpus was built in `folder`/run."""
    random = Random(23)
    with gzip.open(DATA / "text/gutenberg.jsonl.gz", "rt") as lines:
        books = iter(" ".join(json.loads(line)["text"][2000:] for line in lines).split())
        for name, count in DOCUMENTS.items():
            rows = [{"text": document(books, GOOD[name], random)} for _ in range(count)]
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = Recipe.model_validate(
        {
            "name": "mixture",
            "sources": [{"name": name, "type": "jsonl", "paths": [f"{name}.jsonl"]} for name in DOCUMENTS],
            "stages": ["extract", "tokenize"],
            "tokenize": {"tokenizer": {"vocab_size": 1024}, "sequence_length": 128, "validation": 0.2},
            "executor": {"workers": 1},
            "train": TRAIN | smaller,
        }
    )
    build_corpus(recipe, folder / "run", folder, observer=Observer())
    return recipe


def document(books: Any, good: float, random: Random) -> str:
    """WORDS words, in runs of ten from books or of random letters."""
    words: list[str] = []
    while len(words) < WORDS:
        if random.random() < good:
            words += [next(books) for _ in range(10)]
        else:
            words += ["".join(random.choices(LETTERS, k=random.randint(2, 9))) for _ in range(10)]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
