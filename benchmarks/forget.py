"""`pretrain forget`: a look-up in a made index, and --apply against a build from the start.

usage: python benchmarks/forget.py [--quick] [--documents 10000000] [--run RUN --recipe RECIPE] [--trials 10]
Look-up: a made corpus of --documents (ids, addresses, clusters of 2 for one in 8, a piece each) is indexed; then 200
random documents are found by id and by address, each with its duplicates and pieces in an index opened anew, all files
in the page cache. `worst` is the slowest of them.
Apply: for each trial, 20 random documents (the same ones each time) are taken out of a copy of RUN, a finished run of
RECIPE; then RECIPE is built from the start in an empty run folder with the same list. Both are the whole command, as
`pretrain` runs it, report included. The shares are medians of trials: of processor time, with that of all processes
started, of the clock, and of the stages alone by the clock. `equal` is the share of trials in which every file and
manifest of every stage is the same.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bars import Bar, at_least, at_most, finish, options, show_machine, table

from common.files import list_files, write_json
from common.runfolder import RunFolder
from pipeline.lookup import Lookup, bring_up_to_date

TABLE = 100_000  # documents of a made table
LOOKUPS = 200
TAKEN_OUT = 20
_PR_SET_CHILD_SUBREAPER = 36


def made_columns(start: int, count: int) -> dict[str, pa.Array]:
    """Columns of made documents: distinct ids, addresses that lead to them; one in 8 a duplicate of the one before."""
    numbers = np.arange(start, start + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    digits = pa.py_buffer(np.stack([numbers, ~numbers], axis=1).tobytes().hex().encode())
    ids = pa.StringArray.from_buffers(count, pa.py_buffer(np.arange(0, 32 * count + 1, 32, dtype=np.int32)), digits)
    twin = np.arange(count) % 8 == 1
    heads = np.where(twin, np.arange(count) - 1, np.arange(count))
    sizes = np.where(twin | (np.arange(count) % 8 == 0), 2, 1)
    return {
        "id": ids,
        "url": pc.binary_join_element_wise("https://example.org/pages/", ids, ".html", ""),
        "cluster": ids.take(pa.array(heads)),
        "cluster_size": pa.array(sizes, pa.int64()),
    }


def make_run(folder: Path, documents: int) -> RunFolder:
    """A run folder of one stage with made documents, and a table of their pieces."""
    stage = folder / "corpus/01-dedup"
    (stage / "data").mkdir(parents=True)
    (folder / "shards").mkdir()
    for name in (stage, folder / "shards"):
        write_json(name / "stats.json", {"documents_kept": documents})
        write_json(name / "manifest.json", {"fingerprint": "made"})
    writer = None
    for number, start in enumerate(range(0, documents, TABLE)):
        columns = made_columns(start, min(TABLE, documents - start))
        rows = pa.table(columns)
        pq.write_table(rows, stage / f"data/{number:05d}.parquet", row_group_size=1000, compression="zstd")
        count = np.arange(start, start + rows.num_rows)
        same = {"split": pa.array(["train"] * rows.num_rows), "stream": pa.array(["web"] * rows.num_rows)}
        places = {name: pa.array(count % most, pa.int64()) for name, most in (("sample", 10**9), ("offset", 1000))}
        pieces = pa.table({"id": columns["id"], **same, **places, "tokens": places["offset"]})
        writer = writer or pq.ParquetWriter(folder / "shards/documents.parquet", pieces.schema, compression="zstd")
        writer.write_table(pieces)
    assert writer is not None
    writer.close()
    return RunFolder(folder)


def look_up(documents: int) -> float:
    """Seconds of the slowest look-up."""
    with TemporaryDirectory() as folder:
        run = make_run(Path(folder), documents)
        begun = time.perf_counter()
        bring_up_to_date(run)
        built = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in run.lookup.iterdir())
        seconds = []
        for number in random.Random(1).sample(range(documents), LOOKUPS):
            sought = {name: column[0].as_py() for name, column in made_columns(number, 1).items()}
            begun = time.perf_counter()
            lookup = Lookup(run)
            found = lookup.find("id", sought["id"]) + lookup.find("url", sought["url"])
            cluster = lookup.find("cluster", found[0]["cluster"])
            pieces = [lookup.pieces(row["id"]) for row in cluster or found[:1]]
            seconds.append(time.perf_counter() - begun)
            assert len(found) == 2 and all(len(of) == 1 for of in pieces)  # noqa: PT018
            assert len(cluster) == (found[0]["cluster_size"] if found[0]["cluster_size"] > 1 else 0)
    row = table("documents", {"build, s": ".1f", "index, MB": ",.0f", "median, ms": ".1f", "worst, ms": ".1f"})
    row(f"{documents:,}", built, size / 1e6, statistics.median(seconds) * 1e3, max(seconds) * 1e3)
    return max(seconds)


def state(run: Path) -> dict[str, str]:
    """Every published file's hash, and every manifest."""
    folders = [*(run / "corpus").glob("[0-9]*"), run / "shards"]
    hashes = {
        str((of / name).relative_to(run)): entry["xxh3"] for of in folders for name, entry in list_files(of).items()
    }
    return hashes | {str(of.relative_to(run)): (of / "manifest.json").read_text() for of in folders}


def timed(*arguments: str) -> tuple[float, float]:
    """(seconds of processor time, seconds) of a command and of all processes that it starts."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "cli.main", *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    with suppress(ChildProcessError):
        while True:  # workers outlive the command for a moment
            os.wait()
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, seconds


def stage_seconds(run: Path) -> float:
    rows = map(json.loads, (run / "log.jsonl").read_text("utf-8").splitlines())
    return sum(row["seconds"] for row in rows if row.get("event") == "stage")


def apply(run: Path, recipe: Path, trials: int) -> dict[str, Bar]:
    """Bars of trials on copies of a run."""
    tables = sorted(run.glob("corpus/01-*/*/*.parquet"))
    ids = sorted(name for path in tables for name in pq.read_table(path, columns=["id"])["id"].to_pylist())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # so that `timed` sees processes that lost their parent
    seconds = dict.fromkeys(("apply, cpu s", "scratch, cpu s", "apply, s", "scratch, s"), ".2f")
    row = table("trial", {"documents": ",.0f", **seconds, "stages": ".3f", "equal": ".0f"})
    shares, equal = [], []
    for trial in range(trials):
        with TemporaryDirectory() as name:
            folder = Path(name)
            copy, scratch = folder / run.name, folder / "scratch"
            shutil.copytree(run, copy)
            (copy / "log.jsonl").unlink()
            scratch.mkdir()
            (folder / "list").write_text("\n".join(random.Random(trial).sample(ids, TAKEN_OUT)))
            applied = timed("forget", str(copy), "--list", str(folder / "list"), "--apply")
            shutil.copy(RunFolder(copy).forgotten, scratch)
            built = timed("corpus", str(recipe), "--set", f"runs={folder}", "--set", "name=scratch")
            equal.append(state(copy) == state(scratch))
            stages = stage_seconds(copy) / stage_seconds(scratch)
            shares.append((applied[0] / built[0], applied[1] / built[1], stages))
            taken = len(json.loads(RunFolder(copy).forgotten.read_text())["documents"])
            row(trial, taken, applied[0], built[0], applied[1], built[1], stages, equal[-1])
    processor, clock, stages = np.median(shares, axis=0)
    print(f"shares: processor {processor:.3f}, clock {clock:.3f}, stages alone {stages:.3f}")
    return {
        "apply, share of scratch": at_most(processor, 1 / 3),
        "equal": at_least(np.mean(equal), 1.0),
    }


def main() -> int:
    parser = options(__doc__, "10^5 documents, 1 trial")
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--run", type=Path, help="finished run of --recipe, whose paths must lead to the same inputs")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--trials", type=int, default=10)
    arguments = parser.parse_args()
    show_machine("pyarrow", "numpy")
    bars: dict[str, Bar] = {}
    if arguments.documents:
        seconds = look_up(min(arguments.documents, 100_000) if arguments.quick else arguments.documents)
        bars["look-up, s"] = at_most(seconds, 0.1)
    if arguments.run:
        bars |= apply(arguments.run, arguments.recipe, 1 if arguments.quick else arguments.trials)
    return finish("forget", bars)


if __name__ == "__main__":
    sys.exit(main())
