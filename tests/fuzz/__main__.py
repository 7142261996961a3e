"""Rounds of 500 inputs, and a table of what became of them. Costs about a minute a thousand inputs on one core."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.harness import KINDS, run_round

ROUND = 100  # inputs of each kind


def main() -> int:
    """Run the long form; exits 1 if a document is unaccounted for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began, inputs, documents, kept, slowest = time.monotonic(), 0, 0, 0, 0.0
    rules: Counter[str] = Counter()
    lost: list[str] = []
    for start in range(0, options.inputs // len(KINDS), ROUND):
        with tempfile.TemporaryDirectory() as folder:
            found = run_round(Path(folder), range(start, start + ROUND), options.seed)
        inputs, documents, kept = inputs + found.inputs, documents + found.documents, kept + found.kept
        slowest, rules, lost = max(slowest, found.slowest), rules + found.rules, lost + found.lost
        print(f"{inputs} inputs, {documents} documents, {kept} kept, {len(lost)} files with a document unaccounted for,"
              f" slowest {slowest:.2f} s, {time.monotonic() - began:.0f} s in all", flush=True)  # fmt: skip
    print(dict(rules.most_common()), lost[:10])
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
