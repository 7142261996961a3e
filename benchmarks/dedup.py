"""The dedup stage: documents/s and peak memory as the corpus grows a hundredfold, against datatrove's four stages.

    make bench && python benchmarks/dedup.py [--quick] [--documents 10000 100000 1000000] [--corpora FOLDER]
    python benchmarks/dedup.py --documents 100000 10000000 --words 60 --peer

Synthetic documents of about 1.2 kB (--words 180; the words of benchmarks/minhash.py), every tenth a near copy and every
tenth an exact copy of one of the 100,000 before, in parquet files of 5,000. Each size runs in a process of its own, one
worker: every pass of ours from parquet to parquet (exact, 14 x 8 MinHash, verification by sets, index), and datatrove's
signatures, buckets, cluster and filter from parquet to parquet on a part of the documents (`--peer`; none without a
number). `--corpora` keeps the documents for the next run. Memory is the process's peak resident set. Union-find is
timed over random edges.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bars import at_least, at_most, blank_columns, finish, options, show_machine

FILE_ROWS, COPIED = 5_000, 20


def write_corpus(folder: Path, count: int, length: int) -> None:
    """Parquet files of `count` documents of `length` words; copies are of documents at most COPIED files before."""
    from minhash import pick_words, word_forms

    from pipeline.documents import BASE_SCHEMA, document_id
    from pipeline.kernels.clusters import gather

    folder.mkdir()
    random = np.random.Generator(np.random.PCG64(3))
    words = [f"{word} ".encode() for word in word_forms(random).ravel()]
    data, sizes = np.frombuffer(b"".join(words), np.uint8), np.array([len(word) for word in words])
    places = np.column_stack([np.cumsum(sizes) - sizes, sizes])
    common, form = pick_words(1 << 12, 1 << 10, random)[0].ravel(), pick_words(1, length, random)[1]
    for start in range(0, count, FILE_ROWS):
        rows = min(FILE_ROWS, count - start)
        picked = 5 * common[random.integers(0, len(common), (rows, length))] + form
        if start % (COPIED * FILE_ROWS) == 0:
            old = picked.copy()
        changed = np.arange(4, rows, 10)
        for copies in (np.arange(9, rows, 10), changed):
            picked[copies] = old[random.integers(0, len(old), len(copies))]
        picked[changed, random.integers(0, length, len(changed))] = 5 * random.integers(
            0, len(words) // 5, len(changed)
        )
        pieces = places[picked.ravel()]
        ends = np.concatenate([[0], np.cumsum(pieces[:, 1])])
        text = np.empty(ends[-1], np.uint8)
        gather(data, pieces, ends, text)
        bounds = ends[::length].astype(np.int32)
        columns = blank_columns(BASE_SCHEMA, rows) | {
            "text": pa.StringArray.from_buffers(rows, pa.py_buffer(bounds), pa.py_buffer(text)),
            "id": pa.array([document_id("web/made", start + i) for i in range(rows)]),
            "source": pa.array(["web"] * rows),
            "path": pa.array(["web/made"] * rows),
            "offset": pa.array(range(start, start + rows), pa.int64()),
        }
        pq.write_table(pa.table(columns).cast(BASE_SCHEMA), folder / f"{start // FILE_ROWS:05d}.parquet")


def make_corpus(folder: Path, count: int, length: int) -> Path:
    """The folder of a corpus, written if it is not there yet."""
    corpus, unfinished = folder / f"in-{count}-{length}", folder / f".{count}-{length}"
    if not corpus.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed run
        write_corpus(unfinished, count, length)
        unfinished.rename(corpus)
    return corpus


def run_ours(inputs: Path, work: Path) -> int:
    """Every pass, task after task; returns the documents kept."""
    from pipeline.config import DedupConfig, Source
    from pipeline.dedup.stage import passes
    from pipeline.stage import Build

    files = tuple(sorted(inputs.glob("*.parquet")))
    sources = (Source(name="web", type="jsonl", paths=["made"]),)
    build = Build(DedupConfig(), sources, 1, work, files, work, "mark")
    for step in passes(build):
        for rank in range(step.tasks):
            step.run(rank=rank)
    return sum(pq.read_metadata(path).num_rows for path in work.glob("data/*.parquet"))


def run_datatrove(inputs: Path, work: Path) -> int:
    """signatures, buckets, cluster, filter, as datatrove's example has them; returns the documents kept."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from loguru import logger

    logger.disable("datatrove")
    config = MinhashConfig(num_buckets=14, hashes_per_bucket=8)
    names = {name: str(work / name) for name in ("signatures", "buckets", "remove", "kept")}
    reader = ParquetReader(str(inputs))
    stages = [
        ([reader, MinhashDedupSignature(names["signatures"], config)], 1),
        ([MinhashDedupBuckets(names["signatures"], names["buckets"], config=config)], 14),
        ([MinhashDedupCluster(names["buckets"], names["remove"], config=config)], 1),
        ([reader, MinhashDedupFilter(names["remove"]), ParquetWriter(names["kept"])], 1),
    ]
    for number, (steps, tasks) in enumerate(stages):
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(work / f"log{number}")).run()
    return sum(pq.read_metadata(path).num_rows for path in (work / "kept").glob("*.parquet"))


def child(which: str, inputs: str, work: str) -> None:
    """Run one side and print its time, peak memory and result."""
    if which == "ours":  # compile or load the kernels outside the clock
        from pipeline.dedup import find_duplicates

        find_duplicates(["a b c d e f"] * 2)
    start, used = time.perf_counter(), time.process_time()
    kept = (run_ours if which == "ours" else run_datatrove)(Path(inputs), Path(work))
    seconds, used = time.perf_counter() - start, time.process_time() - used
    status = Path("/proc/self/status").read_text(encoding="ascii")  # `ru_maxrss` begins with what the parent had
    peak = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024  # type: ignore[index]
    print(json.dumps({"seconds": seconds, "cpu": used, "peak_mb": peak, "kept": kept}))


def measure(which: str, count: int, folder: Path, length: int) -> dict[str, float]:
    inputs = make_corpus(folder, count, length)
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, __file__, "--child", which, str(inputs), work]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    run: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    rate, cpu_rate = count / run["seconds"], count / run["cpu"]
    print(
        f"{which:<10}{count:>10,} documents{rate:>12,.0f}/s by the clock{cpu_rate:>12,.0f}/s of CPU"
        f"{run['peak_mb']:>8.0f} MB{run['kept']:>10,.0f} kept"
    )
    return run | {"rate": rate, "cpu_rate": cpu_rate}


def edges_per_second(nodes: int = 2_000_000, edges: int = 10_000_000) -> float:
    from pipeline.kernels.clusters import join, labels

    random = np.random.Generator(np.random.PCG64(1))
    ends = random.integers(0, nodes, (edges, 2))
    parent = np.arange(nodes)
    join(parent[:2].copy(), ends[:0])
    labels(parent[:2].copy())
    start = time.perf_counter()
    join(parent, ends)
    labels(parent)
    return edges / (time.perf_counter() - start)


def main() -> int:
    parser = options(__doc__, "3,000 and 30,000 documents")
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--peer", type=int, nargs="*", default=[2_000], help="documents for datatrove")
    parser.add_argument("--words", type=int, default=180, help="words of a document")
    parser.add_argument("--corpora", type=Path, help="keep the documents in this folder")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    show_machine("datatrove", "numba")
    sizes = [3_000, 30_000] if arguments.quick else arguments.documents
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.corpora or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        ours = [measure("ours", count, folder, arguments.words) for count in sizes]
        sizes = [500] if arguments.quick else arguments.peer
        peers = [measure("datatrove", count, folder, arguments.words) for count in sizes]
    joined = edges_per_second()
    print(f"union-find {joined / 1e6:.1f} million edges/s")
    bars = {
        "edges_per_s": at_least(joined, 5e6),
        "memory_growth": at_most(ours[-1]["peak_mb"] / ours[0]["peak_mb"], 1.25),
        "documents_per_cpu_second": at_least(ours[-1]["cpu_rate"], 25_000),
    }
    if peers:
        bars["times_datatrove"] = at_least(ours[-1]["rate"] / max(peer["rate"] for peer in peers), 10.0)
    return finish("dedup", bars)


if __name__ == "__main__":
    sys.exit(main())
