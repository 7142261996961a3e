"""The corpus half at 1, 10 and 100 times the same kind of input: speed per core, peak memory, time by stage.

    python benchmarks/scale.py [--pages 2500] [--factors 1,10,100] [--workers 2] [--quick]

Pages are made from the sample corpus's prose: sentences drawn by a seed until a page has its length, in a web page's
frame of 40 kB (styles, scripts, menus), so that the largest size has 10 GB of HTML; one in ten is a near copy of the
one before it. Each size is built by `pretrain corpus` in a process of its own. Memory and CPU time are summed over that
process and its children, sampled five times a second; CPU seconds hold on a machine that does other work too, where
seconds by the clock do not. Bars: a document costs at most 5 % more CPU time than in the smaller size (the last two
sizes: the smallest spends its time starting processes), and peak memory at most 1.25 times.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import psutil
from bars import ROOT, at_most, finish, options, show_machine
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

PAGES_PER_FILE = 1000
SENTENCES = 40


def main() -> int:
    parser = options(__doc__, "1 and 4 times 100 pages")
    parser.add_argument("--pages", type=int, default=2500, help="pages of the smallest size")
    parser.add_argument("--factors", default="1,10,100")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    pages, factors = arguments.pages, [int(factor) for factor in arguments.factors.split(",")]
    if arguments.quick:
        pages, factors = 100, [1, 4]
    show_machine("numba", "pyarrow")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for factor in factors:
            rows.append(measure(Path(folder) / str(factor), pages * factor, arguments.workers))
            print(line(rows[-1]), flush=True)
    second, last = rows[-2], rows[-1]
    cost = second["documents_per_cpu_second"] / last["documents_per_cpu_second"]
    memory = last["peak_bytes"] / second["peak_bytes"]
    bars = {
        "cost_of_largest_to_size_before": at_most(cost, 1.05),
        "memory_of_largest_to_size_before": at_most(memory, 1.25),
    }
    return finish("scale", bars, sizes=rows)


def measure(folder: Path, pages: int, workers: int) -> dict[str, float]:
    """Build a corpus of `pages` generated pages; its time, speed and peak memory."""
    size = write_pages(folder / "web", pages, workers)
    recipe = {
        "name": "scale",
        "runs": str(folder / "runs"),
        "sources": [{"name": "web", "type": "warc", "paths": ["web/*.warc.gz"]}],
        "tokenize": {"tokenizer": {"vocab_size": 4096, "sample_bytes": 5_000_000}, "bucket_bytes": 32_000_000},
        "executor": {"workers": workers},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "cli.main", "corpus", str(folder / "recipe.yaml")]
    started = time.monotonic()
    usage = Usage()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        usage.watch(process)
        if process.returncode:
            raise SystemExit(process.stderr.read().decode() if process.stderr else "the build failed")
    seconds = time.monotonic() - started
    log = [json.loads(text) for text in (folder / "runs/scale/log.jsonl").read_text().splitlines()]
    stages = [entry for entry in log if entry["event"] == "stage"]
    cpu = usage.between([entry["time"] for entry in stages])
    return {
        "pages": pages,
        "html_bytes": size,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.total(), 1),
        "documents_per_cpu_second": round(pages / usage.total(), 2),
        "peak_bytes": usage.peak,
        **{f"{entry['stage']}_seconds": entry["seconds"] for entry in stages},
        **{f"{entry['stage']}_cpu": round(used, 1) for entry, used in zip(stages, cpu, strict=True)},
    }


class Usage:
    """Peak resident bytes, and CPU seconds over time, of a process and its children until it ends."""

    def __init__(self) -> None:
        self.peak = 0
        self.used: dict[int, float] = {}  # CPU seconds by process, as last seen
        self.samples: list[tuple[float, float]] = []  # time, CPU seconds until then

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Sample until the process has ended."""
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            resident = 0
            for member in [parent, *_children(parent)]:
                try:
                    resident += member.memory_info().rss
                    times = member.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                self.used[member.pid] = times.user + times.system
            self.peak = max(self.peak, resident)
            self.samples.append((time.time(), self.total()))
            time.sleep(0.2)

    def total(self) -> float:
        """CPU seconds so far."""
        return sum(self.used.values())

    def between(self, ends: list[float]) -> list[float]:
        """CPU seconds up to each of `ends`, less those up to the one before."""
        until = [max((cpu for when, cpu in self.samples if when <= end), default=0.0) for end in ends]
        return [now - before for before, now in zip([0.0, *until], until, strict=False)]


def _children(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def write_pages(folder: Path, pages: int, workers: int) -> int:
    """Write the pages in WARC files of PAGES_PER_FILE. Returns the bytes of HTML."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(workers) as pool:
        return sum(pool.map(partial(write_file, folder, pages), range(0, pages, PAGES_PER_FILE)))


def write_file(folder: Path, pages: int, first: int) -> int:
    """Write one file, its records compressed each. Returns the bytes of HTML."""
    size = 0
    with (folder / f"{first // PAGES_PER_FILE:05d}.warc.gz").open("wb") as file:
        for number in range(first, min(pages, first + PAGES_PER_FILE)):
            body, raw = page(number), BytesIO()
            size += len(body)
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], "HTTP/1.1")
            address = f"https://site{number % 97}.example/{number}"
            writer = WARCWriter(raw, gzip=False)
            writer.write_record(writer.create_warc_record(address, "response", BytesIO(body), http_headers=headers))
            file.write(zlib.compress(raw.getvalue(), level=1, wbits=31))
    return size


@cache
def prose() -> tuple[list[str], list[str]]:
    """Sentences of the sample corpus's English prose, and its words."""
    from data.prose import read_language

    paragraphs = [paragraph for page in read_language("en")[1] for paragraph in page.paragraphs()]
    sentences = [sentence.strip() + "." for text in paragraphs for sentence in text.split(".") if len(sentence) > 30]
    return sentences, [word for sentence in sentences for word in sentence.rstrip(".").split()]


def page(number: int) -> bytes:
    """Page `number`; each tenth repeats the one before it but for its last paragraph."""
    seed = number - 1 if number % 10 == 9 else number
    draw = random.Random(seed)
    sentences, words = prose()
    # A quarter of the sentences are the prose's own, the others new ones of its words: few pages share five words in a
    # row.
    lines = [
        draw.choice(sentences)
        if index % 4 == 0
        else " ".join(draw.choices(words, k=draw.randint(8, 22))).capitalize() + "."
        for index in range(SENTENCES)
    ]
    paragraphs = [" ".join(lines[at : at + 4]) for at in range(0, len(lines), 4)]
    if seed != number:
        paragraphs[-1] = f"This is another copy, number {number}, of what stood before."
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    menu = "".join(f'<li class="item item-{i}"><a href="/{i}/{number}">Part {i}</a></li>' for i in range(60))
    style = "".join(f".item-{i} {{ margin: {i % 7}px; color: #{i:06x} }}\n" for i in range(350))
    script = "".join(f"window.data.push({{id: {i}, shown: {i * seed % 1009}, next: null}});\n" for i in range(350))
    return (
        f"<!doctype html><html lang=en><head><title>Page {number}</title><style>{style}</style></head>"
        f"<body><nav><ul>{menu}</ul></nav><main><h1>Page {number} of the collection</h1>{body}</main>"
        f"<footer>All pages.</footer><script>{script}</script></body></html>"
    ).encode()


def line(row: dict[str, float]) -> str:
    """One size as a line of the table."""
    names = [key[:-4] for key in row if key.endswith("_cpu")]
    stages = "  ".join(f"{name} {row[f'{name}_seconds']:.1f} ({row[f'{name}_cpu']:.1f} CPU)" for name in names)
    return (
        f"{row['pages']:>8,.0f} pages {row['html_bytes'] / 1e6:8.1f} MB  {row['seconds']:7.1f} s"
        f"  {row['cpu_seconds']:7.1f} CPU s  {row['documents_per_cpu_second']:7.2f} documents/CPU s"
        f"  {row['peak_bytes'] / 1e6:7.0f} MB peak   {stages}"
    )


if __name__ == "__main__":
    sys.exit(main())
