"""`make faults`: rounds of seeded kills in every stage, and their table (docs/determinism.md).

Exits 1 where a rerun's bytes are not those of the undisturbed run. Costs about half a minute a round of ten kills.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.harness import RECIPE, STAGES, Commands, Kill, hashes, judged, kill_round, undisturbed

ROUND = (*STAGES, *["train"] * 5)


def main() -> int:
    """Run the long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--kills", type=int, default=30, help="kills, in rounds of ten; default 30")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="train compiled")
    options = parser.parse_args()
    train: dict[str, Any] = dict(RECIPE["train"]) | {"precision": options.precision, "compile": options.compile}
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as place, Commands() as commands:
        expected, seconds = undisturbed(commands, Path(place) / "undisturbed", train=train)
        number = 0
        print("| kill | aimed at | after | hit | hashes equal |\n|---|---|---|---|---|", flush=True)
        while sum(kill.hit != "had ended" for kill in kills) < options.kills:
            folder = Path(place) / str(number)
            chance = random.Random(f"{options.seed}/{number}")
            done = kill_round(commands, folder, ROUND, seconds, chance, train=train)
            for kill in judged(done, hashes(folder) == expected):
                kills.append(kill)
                equal = "yes" if kill.equal else "NO"
                print(f"| {len(kills)} | {kill.stage} | {kill.delay:.2f} s | {kill.hit} | {equal} |", flush=True)
            number += 1
    hits = [kill for kill in kills if kill.hit != "had ended"]
    different = sum(not kill.equal for kill in kills)
    print(f"\n{len(hits)} kills in {number} rounds, seed {options.seed}; {different} with other bytes than undisturbed")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
