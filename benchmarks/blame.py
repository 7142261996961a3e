"""Culprits of a spike are named, and recording every document's loss costs next to nothing.

    python benchmarks/blame.py            poison: 100 documents of noise among 10,000 of prose, ten seeds
    python benchmarks/blame.py --cost     record_losses on and off, in turns

Poison: a small model trains until the first step whose loss or gradient norm is `anomalies.sigma` deviations above the
mean; its account must name every poisoned document of that batch among the first ten. A spike without poison counts as
a miss. Prose: books of Project Gutenberg (../shared/data), cut into documents of 40 to 250 words. Noise: one sign over
and over, another in each document, mixed in everywhere by the corpus's shuffle.

Cost: the CPU time of all that record_losses adds to a step, as a share of a step's, the medians of the rounds. Whole
trainings with and without it are timed in turns too, but differ by more than a hundredth from one to the next.
"""

from __future__ import annotations

import gzip
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from bars import DATA, at_least, at_most, finish, options, show_machine, table

from common.errors import TrainerError
from common.files import read_json
from common.observe import Observer
from pipeline.build import build_corpus
from recipes.schema import Recipe
from trainer.config import TrainConfig
from trainer.feed import Feed
from trainer.loop import train
from trainer.parallel import ALONE
from trainer.recorder import Recorder
from trainer.shards import open_shards

DOCUMENTS, POISON, SEEDS = 10_000, 100, 10
ROUNDS, STEPS = 5, 50  # of the cost
SETTINGS: dict[str, Any] = {
    "model": {"layers": 2, "width": 128, "heads": 2, "kv_heads": 2, "head_dim": 64, "ffn": 384},
    "steps": 600,
    "global_batch_tokens": 1024,
    "micro_batch": 8,
    "precision": "fp32",
    "compile": False,
    "log_every": 50,
    "checkpoint": {"every": 600},
}


def main() -> int:
    parser = options(__doc__, quick="three seeds, or two rounds")
    parser.add_argument("--cost", action="store_true", help="measure record_losses instead")
    arguments = parser.parse_args()
    show_machine("torch", "pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        shards = build(Path(folder))
        if arguments.cost:
            return cost(Path(folder), shards, 2 if arguments.quick else ROUNDS)
        return poison(Path(folder), shards, range(1, 4 if arguments.quick else SEEDS + 1))


def build(folder: Path) -> Path:
    """The shards of the poisoned corpus; poisoned documents have addresses of noise.example."""
    random = Random(23)
    texts = list(prose(random))
    rows = [{"url": f"https://prose.example/{number}", "text": text} for number, text in enumerate(texts)]
    for number in range(POISON):
        rows.append({"url": f"https://noise.example/{number}", "text": noise(random)})
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = Recipe.model_validate(
        {
            "name": "poisoned",
            "sources": [{"name": "books", "type": "jsonl", "paths": ["corpus.jsonl"]}],
            "stages": ["extract", "tokenize"],
            "tokenize": {"tokenizer": {"vocab_size": 1024}, "sequence_length": 128, "validation": 0.01},
            "executor": {"workers": 1},
        }
    )
    build_corpus(recipe, folder / "run", folder, observer=Observer())
    return folder / "run/shards"


def prose(random: Random) -> Iterator[str]:
    """DOCUMENTS consecutive pieces of books."""
    left = DOCUMENTS
    with gzip.open(DATA / "text/gutenberg.jsonl.gz", "rt") as lines:
        for line in lines:
            words = json.loads(line)["text"].split(" ")
            while len(words) > 250 and left:
                size = random.randint(40, 250)
                yield " ".join(words[:size])
                words = words[size:]
                left -= 1


def noise(random: Random) -> str:
    """One sign over and over: what a model has never seen has a high loss, and all of it pulls the same way."""
    return chr(random.randint(33, 126)) * random.randint(60, 120)


def poison(folder: Path, shards: Path, seeds: Sequence[int]) -> int:
    """Train with each seed up to the first spike, and look for the poison in its account."""
    show = table("seed", {"step": ",", "documents": ",", "poisoned": ",", "in first 10": ",", "first is": ""})
    hits = 0
    for seed in seeds:
        config = TrainConfig(**SETTINGS, seed=seed, anomalies={"sigma": 6.0, "window": 64})
        output = folder / f"seed-{seed}"
        try:
            train(config, shards, output)
            show(seed, "-", "-", "-", "-", "no spike")
            continue
        except TrainerError as error:
            message = str(error)
        told = read_json(next(output.glob("blame/step-*.json")))
        found = ["noise.example" in row["url"] for row in told["documents"]]
        hit = any(found) and sum(found[:10]) == min(sum(found), 10)
        hits += hit
        first = told["documents"][0]["url"].split("/")[2].split(".")[0]
        show(seed, told["step"], len(found), sum(found), sum(found[:10]), first)
        print("  " + message.partition(". ")[0])
    return finish(
        "blame", {"poison named at the spike, share of seeds": at_least(hits / len(seeds), 0.9)}, seeds=len(seeds)
    )


def cost(folder: Path, shards: Path, rounds: int) -> int:
    """What recording takes by itself, beside the time of a step; and whole trainings with and without, in turns."""
    config = TrainConfig(**SETTINGS | {"steps": STEPS})
    show = table("round", {"without, CPU s": ".2f", "with, CPU s": ".2f", "recording, ms a step": ".3f"})
    trained, recorded = [], []
    for number in range(rounds):
        seconds = {}
        for wanted in (False, True) if number % 2 else (True, False):
            output = folder / "timed"
            shutil.rmtree(output, ignore_errors=True)
            begun = time.process_time()
            train(config.model_copy(update={"record_losses": wanted}), shards, output)
            seconds[wanted] = time.process_time() - begun
        trained.append(seconds[False] / STEPS)
        recorded.append(record(folder / "alone", shards, config))
        show(number + 1, seconds[False], seconds[True], 1e3 * recorded[-1])
    share = 100 * statistics.median(recorded) / statistics.median(trained)
    return finish("record_losses", {"recording, % of a step": at_most(share, 1.0)})


def record(folder: Path, shards: Path, config: TrainConfig) -> float:
    """CPU seconds a step of everything that `record_losses` adds, in the main thread and in its own."""
    opened = open_shards(shards, folder / "cache")
    feed = Feed(config, opened, ALONE, torch.device("cpu"))
    recorder = Recorder(folder, opened, feed.sampler, ALONE, every_step=True)
    losses = torch.rand(config.global_batch_tokens // opened.sequence_length, opened.sequence_length)
    for stream in opened.train:  # unpack and check the shards, as a training has by then
        stream.data.open(0)
    begun = time.process_time()
    for step in range(1, STEPS + 1):
        recorder.add(step, [losses])
        if step % config.log_every == 0:
            recorder.collect()
    recorder.write()
    seconds = (time.process_time() - begun) / STEPS
    recorder.close()
    feed.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
