"""Cost of 10^11 documents in deduplication, of 10^10 samples in the sampler: real code at sizes that fit, scaled up.

    python benchmarks/ten_billion.py [--quick]

Measured: a segment of the document table as the signatures pass writes it; taking one partition of keys from it, and
the rows that such a task compares; the table of 10^11 documents itself (numbers of its segments, no content); two star
passes over 10^7 links (--quick: 10^6); and the order of 10^10 samples, all in CPU seconds. Everything else is those
figures times counts.
Bars: the table takes 200 MB in a task, a slice 100 us, and the order of 10^10 samples 100 MB.
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
from pipeline.dedup.components import distinct, large_star, small_star
from pipeline.dedup.joins import link_tasks, partitions
from pipeline.dedup.signatures import SignaturePass
from pipeline.dedup.table import SEGMENT, Table
from pipeline.documents import BASE_SCHEMA, document_id
from pipeline.stage import Build
from pipeline.task import Task
from trainer.sampler import Phase, Sampler

DOCUMENTS = 10**11
FILE = 10**6  # documents of an input file
REPEATED = 0.4  # of the documents share a given band with another
SETTINGS = DedupConfig()
HASHES = SETTINGS.bands * SETTINGS.rows


def main() -> int:
    quick = options(__doc__, "a tenth of the links").parse_args().quick
    show_machine("numba", "pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        stored, slice_seconds, gather_seconds = segment(Path(folder))
    (table_seconds, table_bytes), pickled = measured(whole_table), len(pickle.dumps(whole_table()))
    links = 10**6 if quick else 10**7
    stars(1000)  # compiled
    link_seconds, link_bytes = (value / links for value in measured(lambda: stars(links)))
    order_seconds, order_bytes = measured(order)
    segments = -(-DOCUMENTS // SEGMENT)
    print(f"{DOCUMENTS:.0e} documents in {DOCUMENTS // FILE:,} files: {segments:,} segments of {SEGMENT:,}")
    print(f"  table on disk          {stored:,.0f} bytes a document, {stored * DOCUMENTS / 1e12:.1f} TB")
    print(
        f"  table in each task     {table_bytes / 1e6:,.0f} MB, {table_seconds:.1f} s; {pickled / 1e6:,.0f} MB pickled"
    )
    for size in (SETTINGS.partition_bytes, 4_000_000_000, 64_000_000_000):
        tasks = partitions(DOCUMENTS, SETTINGS.bands, size)
        hours = [tasks * segments * seconds / 3600 for seconds in (slice_seconds, gather_seconds)]
        stars_tasks = link_tasks(whole_table(), SETTINGS.model_copy(update={"partition_bytes": size}))
        print(
            f"  band-join, {size / 1e6:,.0f} MB   {tasks:,} tasks; {hours[0]:,.0f} core-hours for slices of segments,"
            f" {hours[1]:,.0f} for rows from them; stars and clusters {stars_tasks:,} tasks"
        )
    print(
        f"  a star pass            {link_seconds * 1e9:.0f} ns and {link_bytes:.0f} bytes a link;"
        f" {link_seconds * DOCUMENTS / 3600:,.0f} core-hours with a link for each document"
    )
    print(
        f"sampler, 10^10 samples: {order_seconds:.2f} s and {order_bytes / 1e6:.0f} MB to open and draw a batch of 512"
    )
    bars = {
        "table_megabytes_in_a_task": at_most(table_bytes / 1e6, 200),
        "slice_microseconds": at_most(slice_seconds * 1e6, 100),
        "sampler_megabytes": at_most(order_bytes / 1e6, 100),
    }
    return finish("ten_billion", bars)


def measured(action: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds of an action, and how far it raised this process's peak of resident bytes."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, started = _status("VmRSS"), time.process_time()
    kept = action()
    seconds, peak = time.process_time() - started, _status("VmHWM")
    del kept
    return seconds, max(peak - before, 0.0)


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def segment(folder: Path) -> tuple[float, float, float]:
    """Bytes on disk of a document in a full segment; seconds to take one of many partitions, and some rows, from it."""
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
    table = Table(build.workdir, [SEGMENT], HASHES)
    files = SignaturePass(build, table, []).process(0, Task(folder / "beat")).files
    tasks, tried = partitions(DOCUMENTS, SETTINGS.bands, 64_000_000_000), 200
    started = time.process_time()
    for number in range(tried):
        table.partition("band", number * (tasks // tried), tasks)
    middle = time.process_time()
    nodes = np.sort(np.random.default_rng(1).integers(0, SEGMENT, int(SEGMENT * SETTINGS.bands * REPEATED / tasks)))
    for _ in range(tried):
        *_, places = table.rows(nodes, "id", "exact", "shingles")
        table.shingles(nodes, places)
    ended = time.process_time()
    return sum(file.stat().st_size for file in files) / SEGMENT, (middle - started) / tried, (ended - middle) / tried


def whole_table() -> Table:
    """The table of all documents, of which each task holds two numbers a segment."""
    return Table(Path("work"), [FILE] * (DOCUMENTS // FILE), HASHES)


def stars(links: int) -> Any:
    """A large and a small star over as many links, four to a component."""
    nodes = np.random.default_rng(1).permutation(links)
    pairs = np.column_stack([nodes, nodes // 4 * 4])
    return small_star(distinct(large_star(distinct(pairs))[0]))


def order() -> Any:
    """A batch from the middle of 10^10 samples in 16 streams."""
    shards = [np.full(10**10 // 16 // 30_000, 30_000)] * 16
    sampler = Sampler(shards, [Phase(0, [1.0] * 16)], 512, 1)
    return sampler, sampler.batch(10**10 // 2 // 512)


if __name__ == "__main__":
    sys.exit(main())
