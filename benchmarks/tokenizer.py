"""Encoding speed on one core: ours, `tokenizers` (encode_batch_fast) and tiktoken, same vocabulary, same texts.

Caches warm up on every other document of a set and the rest is timed (best of three for ours, once for the peers,
which keep caches of their own). All ids of the timed part are compared.
Texts: ../shared/data/text in parts of 20,000 characters; without it the documentation that comes with Python.

    python benchmarks/tokenizer.py [--quick]
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections import defaultdict

import tiktoken
from bars import DATA, at_least, finish, options, show_machine, table
from tokenizers import Tokenizer
from vocabularies import FOLDER, cl100k, gpt2

from pipeline.kernels.bpe.patterns import byte_letters
from pipeline.tokenize.tokenizer import Encoder, train

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "NUMBA_NUM_THREADS": "1"}


SPEED, RATIO = 34.0, 10.0
SETS = ("mixed", "english", "european", "unspaced")


def read_sets(limit):
    """(texts to warm up on, texts to time) by set, up to about `limit` bytes together."""
    sets = defaultdict(list)
    for path in sorted((DATA / "text").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        for row in rows:
            text = row["text"]
            name = path.name.partition(".")[0]
            wide = sum(0x3000 <= ord(c) < 0xA000 or 0xE00 <= ord(c) < 0xE80 for c in text[:2000])
            if wide > 0.2 * min(len(text), 2000):
                sets["unspaced"].append(text)
            elif name in ("python-peps", "gutenberg"):
                sets["english"].append(text)
            elif name in ("german-laws", "git-manual-l10n"):
                sets["european"].append(text)
            sets["mixed"].append(text)
    if not sets:
        import pydoc
        import pydoc_data.topics

        texts = [pydoc.plain(pydoc.render_doc(name)) for name in sorted(sys.stdlib_module_names)[:40]]
        sets["mixed"] = sets["english"] = [*pydoc_data.topics.topics.values(), *texts]
    return {name: thin(texts, limit) for name, texts in sets.items()}


def thin(texts, limit):
    """Two lists of parts of 20,000 characters, from every other document each; about `limit` bytes in all."""
    parts = [
        (number % 2, text[i : i + 20_000]) for number, text in enumerate(texts) for i in range(0, len(text), 20_000)
    ]
    every = max(1, round(sum(len(part.encode()) for _, part in parts) / limit))
    return [part for side, part in parts[::every] if not side], [part for side, part in parts[::every] if side]


def vocabularies(texts):
    """Tokenizers by name: GPT-2's and GPT-4's where they are at hand, and one trained on the texts."""
    found = {"trained 32k": train(texts, 32_000, "cl100k")}
    if FOLDER.is_dir():
        found |= {"gpt2": gpt2(), "cl100k": cl100k()}
    return found


def as_tiktoken(tokenizer: Tokenizer, pattern):
    """The same vocabulary in tiktoken, whose merges go by token id, or None where ids do not follow the merges."""
    letters = byte_letters()
    model = json.loads(tokenizer.to_str())["model"]
    special = {"<|endoftext|>": tokenizer.token_to_id("<|endoftext|>")}
    ranks = {bytes(letters[c] for c in t): i for t, i in model["vocab"].items() if t not in special}
    return tiktoken.Encoding("ours", pat_str=pattern.regex, mergeable_ranks=ranks, special_tokens=special)


def clock(run, times):
    """(result, seconds of the fastest run)."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return result, best


def main():
    quick = options(__doc__, "2 MB of text, one vocabulary").parse_args().quick
    show_machine("tokenizers", "tiktoken", "numba")
    sets = read_sets(2_000_000 if quick else 12_000_000)
    tokenizers = vocabularies(sets["mixed"][0])
    if quick:
        tokenizers = dict(list(tokenizers.items())[:1])
    speeds = dict.fromkeys(("MB", "cold MB/s", "ours MB/s", "tokenizers", "tiktoken", "ratio"), ".1f")
    row = table("vocabulary", {"texts": ""} | speeds | {"bytes/token": ".2f", "ids": ""})
    slowest, worst, same = float("inf"), float("inf"), True
    for vocabulary, tokenizer in tokenizers.items():
        reference = tokenizer
        reference.encode_special_tokens = True
        for name in SETS:
            if name not in sets:
                continue
            warm, timed = sets[name]
            size = sum(len(text.encode()) for text in timed) / 1e6
            encoder = Encoder(tokenizer)
            encoder.encode_batch(["compiles"])
            _, cold = clock(lambda: encoder.encode_batch(warm), 1)  # noqa: B023 - called at once
            seconds = []
            for _ in range(3):
                encoder = Encoder(tokenizer)  # a fresh cache each time: the timed texts are never in it
                encoder.encode_batch(warm)
                ids, taken = clock(lambda: encoder.encode_batch(timed), 1)  # noqa: B023
                seconds.append(taken)
            ours = min(seconds)
            expected, theirs = clock(lambda: reference.encode_batch_fast(timed, add_special_tokens=False), 1)  # noqa: B023
            identical = all(a.tolist() == b.ids for a, b in zip(ids, expected, strict=True))
            third = as_tiktoken(tokenizer, encoder.pattern)
            _, tik = clock(lambda: [third.encode_ordinary(text) for text in timed], 1)  # noqa: B023
            cold_speed = sum(len(text.encode()) for text in warm) / 1e6 / cold
            rates = (size, cold_speed, size / ours, size / theirs, size / tik, theirs / ours)
            row(vocabulary, name, *rates, size * 1e6 / sum(map(len, ids)), "equal" if identical else "DIFFER")
            same = same and identical
            if name == "mixed":
                slowest, worst = min(slowest, size / ours), min(worst, theirs / ours)
    bars = {
        "MB/s on mixed text, slowest vocabulary": at_least(slowest, SPEED),
        "times encode_batch_fast on mixed text": at_least(worst, RATIO),
        "ids identical": at_least(same, 1),
    }
    return finish("tokenizer", bars)


if __name__ == "__main__":
    sys.exit(main())
