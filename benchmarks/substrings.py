"""Repeated passages (`dedup.substrings`): MB/s on one core, memory at two sizes, and a suffix array next to it.

    python benchmarks/substrings.py [--quick] [--megabytes 400 1600]

Speed, in seconds of CPU: ../shared/data/text in documents of 8,000 characters at most, every tenth of which gets a
passage of an earlier one, from parquet to parquet. Counted is what the removal adds to the stage: passes `passages` and
`passage-join`, every match compared byte for byte, and what pass `dedup` takes longer than without it. Afterwards the
last 500 bytes of some planted passages are looked for in the result. Memory: peak of a process with the same passes
on made text of each of the two sizes, both of several segments; a line through them gives 100 GB. Suffix array:
pydivsufsort, where it is installed, with the lengths of common prefixes (Kasai), on the first 30 MB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bars import DATA, at_least, at_most, blank_columns, finish, options, show_machine

LENGTH = 500
FILE_BYTES = 8_000_000
PASSES = ("passages", "passage-join", "dedup")


def real_texts(limit):
    """Documents of 8,000 characters at most, about `limit` bytes of UTF-8 from every file alike; made ones without."""
    texts = []
    paths = sorted((DATA / "text").glob("*.jsonl.gz"))
    for path in paths:
        size = 0
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                texts += [text[i : i + 8000] for i in range(0, len(text), 8000)]
                size += len(text.encode())
                if size > limit / len(paths):
                    break
    return texts or made_texts(limit)


def made_texts(size):
    """Documents of 8,000 letters and blanks at random, `size` bytes together."""
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkqjxz      ", np.uint8)
    text = letters[np.random.Generator(np.random.PCG64(1)).integers(0, 32, size, np.uint8)].tobytes().decode()
    return [text[i : i + 8000] for i in range(0, size, 8000)]


def plant(texts):
    """Give every tenth document a passage of 600 to 3,000 characters of an earlier one. Returns the passages."""
    draw = random.Random(1)
    draw.shuffle(texts)
    passages = []
    for i in range(9, len(texts), 10):
        source = texts[draw.randrange(i)]
        if len(source) < 1000:
            continue
        start = draw.randrange(len(source) - 800)
        passage = source[start : start + draw.randrange(600, 3000)]
        at = draw.randrange(len(texts[i]) + 1)
        texts[i] = texts[i][:at] + passage + texts[i][at:]
        passages.append(passage)
    return passages


def write(folder, texts):
    """Parquet files of about FILE_BYTES as the dedup stage reads them."""
    from pipeline.documents import BASE_SCHEMA, document_id

    folder.mkdir()
    start = size = 0
    for end, text in enumerate(texts, 1):
        size += len(text.encode())
        if size < FILE_BYTES and end < len(texts):
            continue
        count = end - start
        columns = blank_columns(BASE_SCHEMA, count) | {
            "text": pa.array(texts[start:end]),
            "id": pa.array([document_id("web/made", number) for number in range(start, end)]),
            "offset": pa.array(range(start, end), pa.int64()),
        }
        pq.write_table(pa.table(columns).cast(BASE_SCHEMA), folder / f"{start:09d}.parquet", compression="zstd")
        start, size = end, 0


def run(inputs, work, substrings):
    """Run the stage. Returns the seconds of PASSES."""
    from pipeline.config import DedupConfig, Source
    from pipeline.dedup.stage import passes
    from pipeline.stage import Build

    settings = DedupConfig(exact=False, minhash=False, substrings=substrings)
    sources = (Source(name="web", type="jsonl", paths=["made"]),)
    build = Build(settings, sources, 1, work, tuple(sorted(inputs.glob("*.parquet"))), work, "mark")
    seconds = dict.fromkeys(PASSES, 0.0)
    for step in passes(build):
        start = time.process_time()
        for rank in range(step.tasks):
            step.run(rank=rank)
        if step.name in seconds:
            seconds[step.name] = time.process_time() - start
    return seconds


def measure(inputs, work):
    """{seconds: by pass, plain: seconds of the last pass without removal, peak_mb} of a process on one core."""
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", str(inputs), str(work)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


def child(inputs, work):
    chosen = {"min_bytes": LENGTH}
    write(work / "first", ["a passage " * 200, "another passage " * 100] * 2)
    run(work / "first", work / "compiled", chosen)  # compile or load the kernels outside the clock
    seconds = run(inputs, work / "cut", chosen)
    status = Path("/proc/self/status").read_text(encoding="ascii")  # `ru_maxrss` begins with what the parent had
    peak = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024
    plain = run(inputs, work / "plain", None)["dedup"]
    print(json.dumps({"seconds": seconds, "plain": plain, "peak_mb": peak}))


def read(path):
    return pq.read_table(path, columns=["text"])["text"].to_pylist()


def left_twice(texts, passages):
    """Every tenth planted passage of which the last window of LENGTH bytes is in the result more than once."""
    windows = [passage.encode()[-LENGTH:] for passage in passages[::10]]
    joined = "\0".join(texts).encode()
    return sum(joined.count(window) > 1 for window in windows)


def suffix_array(data):
    """MB/s of a suffix array with the lengths of common prefixes, and bytes of memory a byte."""
    from pydivsufsort import divsufsort, kasai

    start = time.process_time()
    array = divsufsort(data)
    prefixes = kasai(data, array)
    seconds = time.process_time() - start
    repeated = np.count_nonzero(prefixes >= LENGTH)
    held = (array.nbytes + prefixes.nbytes) / len(data) + 1
    print(
        f"pydivsufsort  {len(data) / 1e6 / seconds:6.1f} MB/s  {held:.0f} bytes a byte  {repeated:,} repeated windows"
    )


def main():
    parser = options(__doc__, "20 MB of text, memory at 20 and 60 MB")
    parser.add_argument("--megabytes", type=int, nargs=2, default=[400, 1600], help="sizes at which memory is measured")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*map(Path, arguments.child))
        return 0
    show_machine("numba", "pyarrow")
    sizes = [20, 60] if arguments.quick else arguments.megabytes
    with tempfile.TemporaryDirectory() as name:
        texts = real_texts(20_000_000 if arguments.quick else 100_000_000)
        passages = plant(texts)
        size = sum(len(text.encode()) for text in texts) / 1e6
        write(Path(name) / "real", texts)
        (work := Path(name) / "work").mkdir()
        real = measure(Path(name) / "real", work)
        rate = size / (sum(real["seconds"].values()) - real["plain"])
        left = [text for file in sorted(work.glob("cut/data/*.parquet")) for text in read(file)]
        gone = size - sum(len(text.encode()) for text in left) / 1e6
        parts = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in real["seconds"].items())
        missed = left_twice(left, passages)
        print(f"ours          {rate:6.1f} MB/s  {size:.1f} MB, {gone:.1f} MB cut, {real['peak_mb']:.0f} MB of memory")
        print(f"              {parts}; without removal {real['plain']:.2f} s")
        print(f"planted       {len(passages):,} passages, {missed} of every tenth left twice", flush=True)
        try:
            suffix_array("\0".join(texts).encode()[:30_000_000])
        except ImportError:
            print("pydivsufsort  not installed")
        peaks = []
        for megabytes in sizes:
            made = made_texts(megabytes * 1_000_000)
            plant(made)
            write(Path(name) / f"made-{megabytes}", made)
            size = sum(len(text.encode()) for text in made) / 1e6
            del made
            (work := Path(name) / f"work-{megabytes}").mkdir()
            found = measure(Path(name) / f"made-{megabytes}", work)
            peaks.append((size, found["peak_mb"]))
            speed = size / (sum(found["seconds"].values()) - found["plain"])
            print(f"made text     {speed:6.1f} MB/s  {size:.0f} MB, {found['peak_mb']:.0f} MB of memory", flush=True)
    (small, low), (large, high) = peaks
    at_100_gb = high + max(high - low, 0) / (large - small) * (100_000 - large)
    bars = {
        "MB/s on one core, verified": at_least(rate, 30),
        "GB of memory at 100 GB of text": at_most(at_100_gb / 1000, 1.5),
        "planted passages left twice": at_most(missed, 0),
    }
    return finish("substrings", bars)


if __name__ == "__main__":
    sys.exit(main())
