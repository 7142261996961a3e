"""Cost of 10^10 documents in deduplication and in the sampler: the real code at sizes that fit, scaled up.

    python benchmarks/ten_billion.py [--quick]

Measured: a segment of the document table as the signatures pass writes it; the cost of taking one partition from it;
the table of 10^10 documents itself (names and offsets, no content); the clusters pass's union-find over 10^6 and 10^7
documents (--quick: 10^5 and 10^6) of which one in ten has a duplicate; and the order of 10^10 samples. Everything else
is those figures times counts. Bars: the clusters pass holds at most 40 bytes a document, as docs/scaling.md says, and
the order of 10^10 samples 100 MB.
"""

from __future__ import annotations

import pickle
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bars import at_most, finish, options, show_machine

from pipeline.config import DedupConfig, Source
from pipeline.dedup.joins import partitions
from pipeline.dedup.signatures import SignaturePass
from pipeline.dedup.table import SEGMENT, Table
from pipeline.documents import BASE_SCHEMA, document_id
from pipeline.kernels.clusters import join, labels
from pipeline.stage import Build
from pipeline.task import Task
from trainer.sampler import Phase, Sampler

DOCUMENTS = 10**10
FILES = 10_000  # input files of a million documents
SETTINGS = DedupConfig()


def main() -> int:
    quick = options(__doc__, "a tenth of the documents in union-find").parse_args().quick
    show_machine("numba", "pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        stored, slice_seconds = segment(Path(folder))
    (table_seconds, table_bytes), pickled = measured(whole_table), len(pickle.dumps(whole_table()))
    small, large = (10**5, 10**6) if quick else (10**6, 10**7)
    union_find(1000)  # compiled
    sizes = {n: [value / n for value in measured(lambda n=n: union_find(n))] for n in (small, large)}
    order_seconds, order_bytes = measured(order)
    seconds, memory = sizes[large]
    segments = -(-DOCUMENTS // SEGMENT)
    print(f"10^10 documents in {FILES:,} files: {segments:,} segments of {SEGMENT:,}")
    print(f"  table on disk          {stored:,.0f} bytes a document, {stored * DOCUMENTS / 1e12:.1f} TB")
    print(
        f"  table in each task     {table_bytes / 1e6:,.0f} MB, {table_seconds:.1f} s; {pickled / 1e6:,.0f} MB pickled"
    )
    for size in (SETTINGS.partition_bytes, 4_000_000_000):
        tasks = partitions(DOCUMENTS, SETTINGS.bands, size)
        hours = tasks * segments * slice_seconds / 3600
        print(
            f"  band-join, {size / 1e6:,.0f} MB   {tasks:,} tasks, {tasks * segments:,.1e} slices of segments:"
            f" {hours:,.0f} core-hours to open them; and a mask of {DOCUMENTS / 1e9:.0f} GB in each task"
        )
    for n, (each, held) in sizes.items():
        print(f"  clusters, {n:,}      {each * 1e9:.0f} ns and {held:.0f} bytes a document")
    print(
        f"    scaled up            {seconds * DOCUMENTS / 3600:.1f} h and {memory * DOCUMENTS / 1e9:,.0f} GB in one"
        " process"
    )
    print(
        f"sampler, 10^10 samples: {order_seconds:.2f} s and {order_bytes / 1e6:.0f} MB to open and draw a batch of 512"
    )
    bars = {"clusters_bytes_a_document": at_most(memory, 40), "sampler_megabytes": at_most(order_bytes / 1e6, 100)}
    return finish("ten_billion", bars)


def measured(action: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of an action, and how far it raised this process's peak of resident bytes."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, started = _status("VmRSS"), time.perf_counter()
    kept = action()
    seconds, peak = time.perf_counter() - started, _status("VmHWM")
    del kept
    return seconds, max(peak - before, 0.0)


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def segment(folder: Path) -> tuple[float, float]:
    """Bytes on disk of a document in a full segment, and seconds to take one of many partitions from it."""
    draw = random.Random(1)
    words = [f"word{number}" for number in range(5000)]
    rows = [
        {
            "text": " ".join(draw.choices(words, k=50)),
            "id": document_id("web/a.warc.gz", number),
            "url": f"https://site{number % 97}.example/page/{number}",
            "source": "web",
            "path": "web/a.warc.gz",
            "offset": number,
            "date": "2026-01-01T00:00:00Z",
        }
        for number in range(SEGMENT)
    ]
    path = folder / "before/data/00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=BASE_SCHEMA), path)
    source = Source(name="web", type="warc", paths=["a"])
    build = Build(SETTINGS, (source,), 1, folder, (path,), folder / "work", "mark")
    table = Table(build.workdir, [SEGMENT])
    files = SignaturePass(build, table, []).process(0, Task(folder / "beat")).files
    tasks, tried = partitions(DOCUMENTS, SETTINGS.bands, SETTINGS.partition_bytes), 200
    started = time.perf_counter()
    for number in range(tried):
        table.partition("band", number * (tasks // tried), tasks)
    return sum(file.stat().st_size for file in files) / SEGMENT, (time.perf_counter() - started) / tried


def whole_table() -> Table:
    """The table of 10^10 documents, of which only names and offsets are in memory."""
    return Table(Path("work"), [DOCUMENTS // FILES] * FILES)


def union_find(documents: int) -> Any:
    """What the clusters pass does with its arrays (pipeline.dedup.joins), one in ten documents with an edge."""
    draw = np.random.default_rng(1)
    edges = draw.integers(0, documents, (documents // 20, 2))
    parent = np.arange(documents, dtype=np.int64)
    join(parent, edges[: len(edges) // 2])
    texts = labels(parent)
    join(parent, edges[len(edges) // 2 :])
    parent = labels(parent)
    moved = np.flatnonzero(parent != np.arange(documents))
    return texts, np.union1d(moved, parent[moved])


def order() -> Any:
    """A batch from the middle of 10^10 samples in 16 streams."""
    shards = [np.full(DOCUMENTS // 16 // 30_000, 30_000)] * 16
    sampler = Sampler(shards, [Phase(0, [1.0] * 16)], 512, 1)
    return sampler, sampler.batch(DOCUMENTS // 2 // 512)


if __name__ == "__main__":
    sys.exit(main())
