"""Reading archives: records a second against warcio and FastWARC alone, and how many records of awkward files are read.

usage: python benchmarks/warc.py [--quick] [--data ../shared/data]
All three decode the HTTP message of each response (FastWARC with `auto_decode="all"`, which stops at headers that lie)
and read its body. Speed: the archives of data/web. Coverage: records of all types, and HTML responses, over
data/eval/warc.
Times are CPU seconds of one process.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from bars import DATA, at_least, finish, options, show_machine, table
from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from pipeline.read.archives import Tally, read_records

Counts = tuple[int, int]  # records, HTML responses


def ours(path: Path) -> Counts:
    tally = Tally()
    pages = [
        record.type == "response" and "html" in record.media_type for record in read_records(str(path), tally=tally)
    ]
    return len(pages) + sum(tally.skipped.values()), sum(pages)


def warcio(path: Path) -> Counts:
    records = pages = 0
    with path.open("rb") as file:
        try:
            for record in WarcioIterator(file, arc2warc=True):
                records += 1
                record.content_stream().read()
                if record.rec_type == "response" and record.http_headers:
                    pages += "html" in (record.http_headers.get_header("Content-Type") or "")
        except Exception:  # noqa: BLE001  # what it got until then counts
            pass
    return records, pages


def fastwarc(path: Path) -> Counts:
    records = pages = 0
    with path.open("rb") as file:
        try:
            for record in FastIterator(file, parse_http=True, auto_decode="all", quirks_mode=True):
                records += 1
                record.reader.read()
                if record.record_type == WarcRecordType.response:
                    pages += "html" in (record.http_content_type or "")
        except Exception:  # noqa: BLE001
            pass
    return records, pages


READERS: dict[str, Callable[[Path], Counts]] = {"ours": ours, "warcio": warcio, "FastWARC": fastwarc}


def main() -> int:
    parser = options(__doc__, "one archive of data/web")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    archives = sorted((arguments.data / "web").glob("*.warc.gz"))[: 1 if arguments.quick else None]
    awkward = sorted((arguments.data / "eval/warc/files").iterdir())
    show_machine("warcio", "fastwarc")
    columns = {"records/s": ".0f", "web: records": "d", "HTML": "d", "eval/warc: records": "d", "HTML ": "d"}
    row = table("reader", columns)
    rates, coverage = {}, {}
    for name, read in READERS.items():
        read(archives[0])
        began = time.process_time()
        web = [sum(part) for part in zip(*map(read, archives), strict=True)]
        rates[name] = web[0] / (time.process_time() - began)
        with redirect_stderr(StringIO()):  # warcio reports bad lengths there
            coverage[name] = [sum(part) for part in zip(*map(read, awkward), strict=True)]
        row(name, rates[name], *web, *coverage[name])
    bars = {
        "times_warcio": at_least(rates["ours"] / rates["warcio"], 1.0),
        "html_responses": at_least(coverage["ours"][1], max(coverage["warcio"][1], coverage["FastWARC"][1])),
    }
    return finish("warc", bars)


if __name__ == "__main__":
    sys.exit(main())
