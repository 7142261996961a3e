"""WARC to shards: our corpus stages against datatrove's FineWeb chain on the same files, with as many processes.

datatrove: WarcReader, Trafilatura, Gopher repetition and quality, C4 (without the terminal-punctuation rule),
FineWeb's rules, the four MinHash stages, then tokenization of what is left with the same tokenizer. Its LanguageFilter
needs another fastText distribution and a download and is left out, so the peer does less. Ours: extract, language,
quality, dedup, tokenize, every response accounted for; the run's own log says when the first task began after the
command, how much text was read and written, and the command ends with the report.

--pages N: N different pages made by benchmarks/scale.py, 40 kB each; the peer takes the first 1,000 of them for each
worker, and rates are compared.

    python benchmarks/corpus.py [--quick] [--workers N] [--files GLOB | --pages N] [--extractor fast|trafilatura]
        [--skip-peer]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import DATA, ROOT, at_least, at_most, finish, options, show_machine, table
from scale import write_pages

BARS = {"fast": 8.0, "trafilatura": 1.5}
PAGES_BAR, PAGES_PER_SECOND = 12.0, 600.0  # with --pages


def archives(pattern, quick, folder):
    """The WARC files of `pattern` in the real data, else harvested documentation."""
    paths = sorted((DATA / "web").glob(pattern))
    if not paths:
        from data.harvest import harvest

        harvest(folder / "harvest", limit_bytes=10_000_000 if quick else 60_000_000)
        paths = sorted((folder / "harvest").glob("*.warc.gz"))
    return paths[:1] if quick else paths


def ours(files, folder, extractor, workers, tokenizer):
    """Run our chain in a process of its own. Returns (seconds, stats by stage, log entries of the stages)."""
    recipe = {
        "name": extractor,
        "runs": str(folder / "runs"),
        "sources": [{"name": "web", "type": "warc", "paths": [str(path) for path in files]}],
        "stages": ["extract", "language", "quality", "dedup", "tokenize"],
        "extract": {"extractor": extractor, "task_bytes": 1_000_000},
        "tokenize": {"tokenizer": {"path": str(tokenizer)}},
        "executor": {"workers": workers},
    }
    path = folder / f"{extractor}.yaml"
    path.write_text(json.dumps(recipe), "utf-8")
    command = [str(Path(sys.executable).parent / "pretrain"), "corpus", str(path)]
    start = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.time() - start
    run = folder / "runs" / extractor
    log = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    log[0]["first_task"] -= start
    log[-1]["after"] = start + seconds - log[-1]["time"]
    paths = [*sorted(run.glob("corpus/*/stats.json")), run / "shards/stats.json"]
    return seconds, {stats["stage"]: stats for stats in (json.loads(path.read_bytes()) for path in paths)}, log


PEER = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from loguru import logger

logger.remove()
source, work, tokenizer, tasks, workers = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
config = MinhashConfig()


def run(name, pipeline, tasks=tasks):
    logs = f"{work}/logs/{name}"
    LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=logs).run()


if __name__ == "__main__":
    run("read", [
        WarcReader(source, glob_pattern="*.warc.gz"), Trafilatura(timeout=30), GopherRepetitionFilter(),
        GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter(),
        JsonlWriter(f"{work}/kept"),
    ])
    run("signatures", [JsonlReader(f"{work}/kept"), MinhashDedupSignature(f"{work}/signatures", config=config)])
    run("buckets", [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets)
    run("cluster", [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1)
    run("filter", [JsonlReader(f"{work}/kept"), MinhashDedupFilter(f"{work}/remove"), JsonlWriter(f"{work}/unique")])
    run("tokens", [JsonlReader(f"{work}/unique"), DocumentTokenizer(f"{work}/tokens", tokenizer_name_or_path=tokenizer,
        eos_token="<|endoftext|>", local_working_dir=f"{work}/local")])
"""


def peer(files, folder, workers, tokenizer):
    """Run datatrove's chain. Returns (seconds, documents read, documents left)."""
    source, work = folder / "source", folder / "peer"
    source.mkdir()
    for path in files:
        (source / path.name).symlink_to(path)
    script = folder / "peer.py"
    script.write_text(PEER, "utf-8")
    command = [sys.executable, str(script), str(source), str(work), str(tokenizer), str(len(files)), str(workers)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"datatrove's chain failed:\n{done.stderr[-2000:]}")
    statistics = json.loads((work / "logs/read/stats.json").read_bytes())
    read = statistics[0]["stats"]["documents"]["total"]
    left = json.loads((work / "logs/filter/stats.json").read_bytes())[-1]["stats"]["total"]
    return seconds, read, left if isinstance(left, int) else left["total"]  # datatrove writes plain sums as numbers


def main():
    parser = options(__doc__, "one file")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--files", default="*.warc.gz", help="files of ../shared/data/web")
    parser.add_argument("--pages", type=int, help="make so many pages instead")
    parser.add_argument("--extractor", choices=BARS, action="append")
    parser.add_argument("--skip-peer", action="store_true", help="time ours alone; no bar can hold then")
    arguments = parser.parse_args()
    from pipeline.read.archives import read_records
    from pipeline.tokenize.tokenizer import train

    show_machine("datatrove", "trafilatura", "resiliparse")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = archives(arguments.files, arguments.quick, folder)
        if arguments.pages:
            write_pages(folder / "pages", arguments.pages, arguments.workers)
            files = sorted((folder / "pages").glob("*.warc.gz"))
        records = sum(1 for path in files for _ in read_records(str(path)))
        tokenizer = folder / "tokenizer.json"
        train([(ROOT / "LICENSE").read_text("utf-8")], 2000, "gpt2").save(str(tokenizer))
        print(f"{len(files)} files, {records:,} responses, {arguments.workers} workers")
        row = table("", {"seconds": ".1f", "pages/s": ".1f", "read": ",d", "dropped": ",d", "left": ",d"}, 20)
        bars = {}
        theirs = float("inf")
        if not arguments.skip_peer:
            # Made pages are all alike: a file of them for each worker gives the rate.
            sample = files[: arguments.workers] if arguments.pages else files
            theirs, read, left = peer(sample, folder, arguments.workers, tokenizer)
            part = records * len(sample) / len(files)
            row("datatrove", theirs, part / theirs, read, "", left)
            theirs *= records / part
        for extractor in arguments.extractor or BARS:
            seconds, stats, log = ours(files, folder, extractor, arguments.workers, tokenizer)
            read = stats["extract"]["documents_in"]
            dropped = sum(stat["documents_dropped"] for stat in stats.values())
            left = list(stats.values())[-1]["documents_kept"]
            row(f"ours, {extractor}", seconds, records / seconds, read, dropped, left)
            if not arguments.skip_peer:
                least = PAGES_BAR if arguments.pages and extractor == "fast" else BARS[extractor]
                bars[f"times datatrove's pages/s, {extractor}"] = at_least(theirs / seconds, least)
            text = stats["extract"]["bytes_in"]
            volumes = {name: sum(entry[f"text_{name}"] for entry in log) / text for name in ("written", "read")}
            print(
                f"  first task {log[0]['first_task']:.2f} s after the command, its end {log[-1]['after']:.2f} s after"
                f" the last stage; text written {volumes['written']:.2f} times, read {volumes['read']:.2f} times"
            )
            bars[f"text written, {extractor}"] = at_most(volumes["written"], 2)
            bars[f"text read, {extractor}"] = at_most(volumes["read"], 4)
            bars[f"seconds to the first task, {extractor}"] = at_most(log[0]["first_task"], 1.5)
            bars[f"seconds of the report and the end, {extractor}"] = at_most(log[-1]["after"], 1)
            if arguments.pages and extractor == "fast":
                bars["pages/s"] = at_least(records / seconds, PAGES_PER_SECOND)
            bars[f"responses accounted for, {extractor}"] = at_least(read == records == dropped + left, 1)
    return finish("corpus", bars)


if __name__ == "__main__":
    sys.exit(main())
