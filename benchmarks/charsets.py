"""Charset detection on pages that declare nothing, against resiliparse's and charset-normalizer's; speed of decoding.

usage: python benchmarks/charsets.py [--quick] [--data ../shared/data]
Pages: UDHR paragraphs (data/eval/lid) of 25 languages in the charsets that their sites used before UTF-8, in HTML, with
20 to 2,000 characters of text. A page is right if its text is, sign by sign but for one in a hundred.
Speed: pages of data/web as they are, with the header's charset, against resiliparse's `detect_encoding` and
`bytes_to_str`. CPU seconds of one process.
"""

from __future__ import annotations

import gzip
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import charset_normalizer
from bars import DATA, at_least, finish, options, show_machine, table
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from pipeline.extract.decoding import decode
from pipeline.read import read_records

CHARSETS = {
    "cmn": "gb18030 big5hkscs", "jpn": "cp932 euc_jp iso2022_jp", "kor": "cp949",
    "rus": "cp1251 koi8-r iso8859-5 cp866",
    "ukr": "cp1251 koi8-u", "bul": "cp1251", "ell": "cp1253", "tur": "cp1254", "heb": "cp1255", "arb": "cp1256",
    "tha": "cp874", "vie": "cp1258", "pol": "cp1250 iso8859-2", "ces": "cp1250 iso8859-2", "hun": "cp1250 iso8859-2",
    "lit": "cp1257", "lvs": "cp1257", "deu": "cp1252", "fra": "cp1252", "spa": "cp1252", "por": "cp1252",
    "swe": "cp1252", "dan": "cp1252", "ita": "cp1252", "fin": "cp1252",
}  # fmt: skip
SIZES = (20, 60, 200, 2000)
HEAD = (
    b"<!DOCTYPE html><html><head><title>x</title><link rel='stylesheet' href='/style.css'></head><body class='page'>"
    b"<div id='menu'><a href='/index.html'>Home</a> <a href='/contact.html'>Contact</a></div><div class='text'>"
)


def ours(page: bytes) -> str:
    return decode(page)[0]


def resiliparse(page: bytes) -> str:
    return bytes_to_str(page, detect_encoding(page, from_html_meta=True), errors="replace")


def normalizer(page: bytes) -> str:
    best = charset_normalizer.from_bytes(page[:20_000]).best()
    return page.decode(best.encoding if best else "utf-8", "replace")


READERS: dict[str, Callable[[bytes], str]] = {
    "ours": ours, "resiliparse": resiliparse, "charset-normalizer": normalizer
}  # fmt: skip


def pages(data: Path, quick: bool) -> Iterator[tuple[str, str, int, str, bytes]]:
    """(language, codec, size, text, page)."""
    paragraphs: dict[str, list[str]] = defaultdict(list)
    with gzip.open(data / "eval/lid/udhr-paragraphs.tsv.gz", "rt", encoding="utf-8") as file:
        for line in file:
            language, text = line.rstrip("\n").split("\t")
            paragraphs[language].append(text)
    for language, codecs in CHARSETS.items():
        for codec in codecs.split():
            # Without paragraphs in another script (cmn), or with a sign that the charset lacks.
            fit = [part for part in paragraphs[language] if part.encode(codec, "ignore").decode(codec) == part]
            for size in SIZES:
                prose = " ".join(fit)
                cuts = [prose[at : at + size] for at in range(0, len(prose) - size, size)]
                for text in [cut for cut in cuts if not cut.isascii()][: 4 if quick else 12]:
                    yield language, codec, size, text, HEAD + text.encode(codec) + b"</div></body></html>"


def same(found: str, text: str) -> bool:
    expected = HEAD.decode() + text + "</div></body></html>"
    return len(found) == len(expected) and sum(a != b for a, b in zip(found, expected, strict=True)) * 100 <= len(text)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    data: Path = arguments.data
    show_machine("charset_normalizer", "resiliparse")
    right: Counter[tuple[str, int]] = Counter()
    by_codec: Counter[tuple[str, str]] = Counter()
    total: Counter[int] = Counter()
    codecs: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for _, codec, size, text, page in pages(data, arguments.quick):
        total[size] += 1
        codecs[codec] += 1
        for name, read in READERS.items():
            began = time.process_time()
            found = read(page)
            seconds[name] += time.process_time() - began
            if same(found, text):
                right[name, size] += 1
                by_codec[name, codec] += 1
    row = table("reader", {f"{size} characters": ".1%" for size in SIZES} | {"ms a page": ".2f"}, 20)
    for name in READERS:
        row(name, *(right[name, size] / total[size] for size in SIZES), seconds[name] / total.total() * 1000)
    row = table("codec", {"pages": "d"} | dict.fromkeys(READERS, ".0%"), 20)
    for codec, number in codecs.items():
        row(codec, number, *(by_codec[name, codec] / number for name in READERS))
    speeds = speed(data)
    row = table("decoding data/web", {"MB/s": ",.0f"}, 20)
    for name, value in speeds.items():
        row(name, value)
    bars = {f"{size} characters": at_least(right["ours", size] / total[size],
                                           right["resiliparse", size] / total[size]) for size in SIZES}  # fmt: skip
    return finish("charsets", bars | {"MB/s": at_least(speeds["ours"], 0.9 * speeds["resiliparse"])})


def speed(data: Path) -> dict[str, float]:
    """MB/s over real pages, with the header's charset."""
    records = [record for path in sorted(data.glob("web/*.warc.gz")) for record in read_records(path)]
    bodies = [(record.body, record.charset) for record in records if record.media_type == "text/html"]

    def peer(body: bytes, charset: str | None) -> str:
        return bytes_to_str(body, charset or detect_encoding(body, from_html_meta=True), errors="replace")

    speeds = {}
    for name, read in {"ours": decode, "resiliparse": peer}.items():
        times = []
        for _ in range(3):
            began = time.process_time()
            for body, charset in bodies:
                read(body, charset)
            times.append(time.process_time() - began)
        speeds[name] = sum(len(body) for body, _ in bodies) / 1e6 / min(times)
    return speeds


if __name__ == "__main__":
    sys.exit(main())
