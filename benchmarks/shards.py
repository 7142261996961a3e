"""Text to MDS shards and back: the stage's speed end to end, writing, verified, and read by StreamingDataset.

JSON lines -> extract (none) -> tokenize with a given tokenizer -> shards, then every sample through the trainer's
reader and through StreamingDataset. There is no peer's bar here: the figures say what the stage costs.

    python benchmarks/shards.py [--quick]
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

from bars import DATA, at_least, finish, options, show_machine, table

from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from pipeline.tokenize.tokenizer import train
from pipeline.tokenize.verify import verify

warnings.simplefilter("ignore")


def texts(limit):
    """Real texts up to about `limit` bytes: parts of 20,000 characters, every n-th."""
    parts = []
    for path in sorted((DATA / "text").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                parts += [text[i : i + 20_000] for i in range(0, len(text), 20_000)]
    if not parts:
        import pydoc_data.topics

        parts = list(pydoc_data.topics.topics.values())
    return parts[:: max(1, round(sum(len(part.encode()) for part in parts) / limit))]


def main():
    limit = 8_000_000 if options(__doc__, "8 MB of text instead of 60").parse_args().quick else 60_000_000
    show_machine("mosaicml-streaming", "tokenizers")
    rows = texts(limit)
    size = sum(len(row.encode()) for row in rows) / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "corpus.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows), "utf-8")
        train(rows[:: max(1, len(rows) // 200)], 32_000, "cl100k").save(str(folder / "tokenizer.json"))
        config = CorpusConfig.model_validate(
            {
                "name": "shards",
                "sources": [{"name": "text", "type": "jsonl", "paths": [str(folder / "corpus.jsonl")]}],
                "stages": ["extract", "tokenize"],
                "extract": {"extractor": "none"},
                "tokenize": {"tokenizer": {"path": str(folder / "tokenizer.json")}, "sequence_length": 2048},
            }
        )
        build_corpus(config, folder / "run", Path(), last="extract")
        start = time.perf_counter()
        build_corpus(config, folder / "run", Path())
        seconds = {"tokenize stage": time.perf_counter() - start}
        shards = folder / "run/shards"
        start = time.perf_counter()
        report = verify(shards)
        seconds["verify"] = time.perf_counter() - start
        seconds["StreamingDataset"] = read_streaming(shards / "train/text")
        print(f"{size:.1f} MB of text, {report.samples:,} samples of 2,049 tokens, {report.tokens:,} tokens")
        row = table("", {"seconds": ".2f", "MB/s": ".1f", "samples/s": ",.0f"})
        for name, taken in seconds.items():
            row(name, taken, size / taken, report.samples / taken)
    return finish("shards", {"shards verify": at_least(not report.problems, 1)})


def read_streaming(folder):
    """Seconds that StreamingDataset takes for every sample of a stream, in storage order, after its start."""
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
    start = time.perf_counter()
    for i in range(len(dataset)):
        dataset[i]
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
