"""Memory of the process that controls a corpus in object storage, by the number of its tasks.

    python benchmarks/controller.py [--tasks 10 1000] [--quick]

Each task has a file of one JSON line; the storage is moto's S3 server on loopback, so seconds are mostly moto's. The
peak is that of the process that builds the corpus, without its workers. Bar: 1.1 times that of the fewest tasks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import ROOT, at_most, finish, options, show_machine, table

sys.path.insert(0, str(ROOT))
from tests.scale import storage

_CONTROLLER = """
from pathlib import Path
from pipeline.build import build_corpus
from pipeline.depot import Depot
from recipes.load import load_recipe
loaded = load_recipe(Path("recipe.yaml"))
depot = Depot(loaded.address, Path("run"))
build_corpus(loaded.recipe, depot.run, Path.cwd(), depot=depot)
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024)
"""


def main() -> int:
    parser = options(__doc__, "10 and 30 tasks")
    parser.add_argument("--tasks", type=int, nargs=2, default=[10, 1000])
    given = parser.parse_args()
    show_machine("s3fs", "moto")
    row = table("tasks of a pass", {"peak MB": ".0f", "seconds": ".0f"})
    peaks = []
    for tasks in [10, 30] if given.quick else given.tasks:
        memory, seconds = measure(tasks)
        peaks.append(memory)
        row(f"{tasks:,}", memory, seconds)
    return finish("controller", {"memory, most tasks against fewest": at_most(peaks[-1] / peaks[0], 1.1)})


def measure(tasks: int) -> tuple[float, float]:
    """(peak memory in MB, seconds) of the controller of a corpus of so many tasks."""
    with tempfile.TemporaryDirectory() as name, storage.bucket():
        folder = Path(name)
        for number in range(tasks):
            line = {"id": str(number), "text": f"This is document number {number}, of which there is no other. " * 5}
            (folder / f"{number:05d}.jsonl").write_text(json.dumps(line) + "\n")
        recipe = {
            "name": "controlled",
            "runs": "s3://bucket/runs",
            "stages": ["extract", "tokenize"],
            "sources": [{"name": "rows", "type": "jsonl", "paths": [f"{folder}/*.jsonl"]}],
            "extract": {"task_bytes": 1},
            "tokenize": {"tokenizer": {"vocab_size": 300}, "sequence_length": 64, "validation": 0.2},
        }
        (folder / "recipe.yaml").write_text(json.dumps(recipe))
        started = time.monotonic()
        command = [sys.executable, "-c", _CONTROLLER]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": name}
        done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return int(done.stdout.split()[-1]) / 1e6, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
