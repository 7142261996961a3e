"""Source `commoncrawl` against servers on loopback that hold a crawl as Common Crawl lays it out."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from common.errors import PipelineError
from pipeline.config import Fetch, Source
from pipeline.read import RawDocument, list_inputs, polite, read_documents, read_records
from pipeline.read.polite import Server
from tests.conftest import PROSE, page, write_warc

CRAWL = "CC-MAIN-2026-21"
SEGMENT = f"crawl-data/{CRAWL}/segments/1716.7/warc"
TABLE = f"cc-index/table/cc-main/warc/crawl={CRAWL}"
INDEX = f"{TABLE}/subset=warc/part-00000-a.c000.gz.parquet"
# In the order of the index, by host backwards: (url, key, language, archive)
PAGES = [
    ("https://www.amt.de/1", "de,amt)/1", "deu", 0),
    ("https://www.amt.de/2", "de,amt)/2", "deu,eng", 1),
    ("https://archiv.amt.de/", "de,amt,archiv)/", "eng,deu", 0),
    ("https://amtlich.de/", "de,amtlich)/", "deu", 1),
    ("https://example.org/a", "org,example)/a", "eng", 0),
    ("https://example.org/b", "org,example)/b", "eng", 1),
]


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two archives, their list, and an index whose row groups have two rows each."""
    root = tmp_path_factory.mktemp("crawl")
    bodies = {url: page(f"{url}. {text}") for (url, *_), text in zip(PAGES, [*PROSE.values()] * 2, strict=True)}
    archives = [f"{SEGMENT}/CC-MAIN-20260501000000-{number:05d}.warc.gz" for number in range(2)]
    places = {}
    for number, name in enumerate(archives):
        write_warc(root / name, {url: bodies[url] for url, *_, of in PAGES if of == number})
        offsets = [record.offset for record in read_records(root / name)]
        ends = [*offsets[1:], (root / name).stat().st_size]
        urls = [url for url, *_, of in PAGES if of == number]
        places |= {url: (name, start, end - start) for url, start, end in zip(urls, offsets, ends, strict=True)}
    table = {
        "url_surtkey": [key for _, key, *_ in PAGES],
        "url": [url for url, *_ in PAGES],
        "url_host_name": [url.split("/")[2] for url, *_ in PAGES],
        "fetch_status": pa.array([200] * len(PAGES), pa.int16()),
        "content_mime_detected": ["text/html"] * 5 + ["application/pdf"],
        "content_languages": [language for _, _, language, _ in PAGES],
        "warc_filename": [places[url][0] for url, *_ in PAGES],
        "warc_record_offset": pa.array([places[url][1] for url, *_ in PAGES], pa.int32()),
        "warc_record_length": pa.array([places[url][2] for url, *_ in PAGES], pa.int32()),
    }
    (root / INDEX).parent.mkdir(parents=True)
    pq.write_table(pa.table(table), root / INDEX, compression="gzip", row_group_size=2)
    lists = {"warc": archives, "cc-index-table": [f"{TABLE}/subset=robotstxt/part-00000-a.c000.gz.parquet", INDEX]}
    for name, lines in lists.items():
        (root / f"crawl-data/{CRAWL}/{name}.paths.gz").write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return root


class Handler(BaseHTTPRequestHandler):
    """Serves a folder with ranges and keeps connections. `server.faults`: what the next GETs meet instead."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, path = self.server, self.path.lstrip("/")
        server.asked.append((path, self.headers.get("Range", ""), self.headers["User-Agent"]))
        with server.lock:
            server.open += 1
            server.most = max(server.most, server.open)
        time.sleep(server.pause)
        with server.lock:  # before the answer, which lets the next one begin
            server.open -= 1
        fault = server.faults.pop(0) if server.faults and self.command == "GET" else None
        file = server.root / path
        if isinstance(fault, int) or not file.is_file():
            self._answer(fault or 404, {"Retry-After": "7"} if fault == 503 else {}, b"", 0)
        else:
            content = file.read_bytes()
            found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = (int(found[1]), int(found[2] or len(content) - 1) + 1) if found else (0, len(content))
            part = content[start:end]
            sent = part[: len(part) // 2] if fault == "break" else part
            self._answer(416 if start >= len(content) else 206 if found else 200, {}, sent, len(part))

    def _answer(self, status: int, headers: dict[str, str], sent: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(sent)
        self.close_connection = len(sent) < length

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def server(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(polite, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(polite, "TRIES", 3)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.root, server.asked, server.faults, server.lock = crawl, [], [], threading.Lock()
    server.open = server.most = server.pause = 0
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def source(address: str, select: dict[str, Any] | None = None, paths: str = "*", **fetch: Any) -> Source:
    chosen = {"server": address, "store": "store", "contact": "me@a.example"} | fetch
    return Source.model_validate(
        {"name": "cc", "type": "commoncrawl", "crawl": CRAWL, "paths": [paths], "select": select, "fetch": chosen}
    )


def read(source: Source, folder: Path) -> list[RawDocument]:
    return [document for item in list_inputs([source], folder) for document in read_documents(item, 1_000_000)]


def asked(server: Any, ending: str) -> list[str]:
    """Ranges of the requests for files with this ending, in order; forgets all requests."""
    found = [part for path, part, _ in server.asked if path.endswith(ending)]
    server.asked.clear()
    return found


def test_whole_archives_give_what_local_ones_give(server: Any, crawl: Path, tmp_path: Path) -> None:
    local = Source(name="cc", type="warc", paths=[str(crawl / SEGMENT)])
    found = read(source(server.address), tmp_path)
    assert [(d.url, d.offset, d.body) for d in found] == [(d.url, d.offset, d.body) for d in read(local, tmp_path)]
    assert not list(tmp_path.glob("store/**/*-0000?.warc.gz*"))
    assert {agent for *_, agent in server.asked} == {"pretrain (a corpus builder; me@a.example)"}
    kept = source(server.address, paths="*-00001.warc.gz", keep=True)
    assert len(read(kept, tmp_path)) == 3
    server.asked.clear()
    assert len(read(kept, tmp_path)) == 3
    assert not server.asked


@pytest.mark.parametrize(
    ("select", "rows"),
    [
        ({"hosts": ["amt.de"]}, [0, 1, 2]),
        ({"hosts": ["amt.de"], "languages": ["deu"]}, [0, 1]),
        ({"hosts": ["example.org"], "media_types": ["text/html"]}, [4]),
        ({"languages": ["deu"]}, [0, 1, 3]),
        ({"hosts": ["b.example"]}, []),
    ],
)
def test_records_are_selected_by_the_index(
    select: dict[str, Any], rows: list[int], server: Any, crawl: Path, tmp_path: Path
) -> None:
    found = read(source(server.address, select), tmp_path)
    assert [(document.offset, document.url) for document in found] == [(row, PAGES[row][0]) for row in rows]
    for document in found:
        archive, offset = (document.metadata[name] for name in ("warc_filename", "warc_record_offset"))
        record = next(record for record in read_records(crawl / archive) if record.offset == offset)
        assert (record.url, record.body) == (document.url, document.body)
    assert len(asked(server, ".warc.gz")) == len(rows)
    assert [document.url for document in read(source(server.address, select), tmp_path)] == [PAGES[r][0] for r in rows]
    assert not server.asked


def test_row_groups_without_the_host_are_not_read(server: Any, crawl: Path, tmp_path: Path) -> None:
    read(source(server.address, {"hosts": ["example.org"]}), tmp_path)
    groups = pq.read_metadata(crawl / INDEX)
    ends = [groups.row_group(n).column(0).dictionary_page_offset for n in (1, 2)]
    starts = [int(part.split("=")[1].split("-")[0]) for part in asked(server, ".parquet") if part]
    assert not any(ends[0] <= start < ends[1] for start in starts)


def test_a_selection_goes_on_at_the_record(server: Any, tmp_path: Path) -> None:
    chosen = source(server.address, {"languages": ["deu"]})
    item = list_inputs([chosen], tmp_path)[0]
    whole = read(chosen, tmp_path / "whole")
    journal = Path(f"{item.path}.journal")
    other = list_inputs([chosen], tmp_path / "whole")[0]
    lines = Path(f"{other.path}.journal").read_bytes().splitlines(keepends=True)
    data = Path(other.path).read_bytes()
    journal.parent.mkdir(parents=True, exist_ok=True)
    end = json.loads(lines[0])[2]
    for torn, left in ((lines[1][:7], 2), (b"", 2)):  # killed while it wrote the second line, or the second record
        journal.write_bytes(lines[0] + torn)
        Path(item.path).write_bytes(data[: end + 9])
        asked(server, "")
        assert read(chosen, tmp_path) == whole
        assert len(asked(server, ".warc.gz")) == left
        assert Path(item.path).read_bytes() == data


def test_an_archive_goes_on_at_the_byte(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polite, "PIECE", 100)
    chosen = source(server.address, paths="*-00000.warc.gz")
    item = list_inputs([chosen], tmp_path)[0]
    server.faults += ["break", 500, "break", 500, 500, 500, 500]
    with pytest.raises(OSError, match="cannot be read, tried 3 times"):
        list(read_documents(item, 1_000_000))
    size = Path(f"{item.path}.partial").stat().st_size
    assert size
    server.faults.clear()
    asked(server, "")
    assert len(list(read_documents(item, 1_000_000))) == 3
    assert asked(server, ".warc.gz") == [f"bytes={size}-"]


def test_waits_as_long_as_the_server_asks(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    server.faults += [503, 503, 429]
    assert len(read(source(server.address, paths="*-00000.warc.gz"), tmp_path)) == 3
    assert pauses.count(7) == 2


def test_few_requests_at_a_time(server: Any, tmp_path: Path) -> None:
    server.pause = 0.02
    path = f"crawl-data/{CRAWL}/warc.paths.gz"

    def ask(_: int) -> bytes:
        return b"".join(Server(server.address, tmp_path, 2, "test").read(path))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(16)))) == 1
    assert server.most == 2


def test_refusals_say_what_to_do(server: Any, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"`\*.arc` matches none of the 2 paths.*CC-MAIN-2026.*correct `paths`"):
        read(source(server.address, paths="*.arc"), tmp_path)
    other = source(server.address).model_copy(update={"crawl": "CC-MAIN-1999-01"})
    with pytest.raises(PipelineError, match="is there a crawl `CC-MAIN-1999-01`"):
        read(other, tmp_path)
    listing = tmp_path / "store" / f"crawl-data/{CRAWL}/warc.paths.gz"
    listing.write_bytes(gzip.compress(b"crawl-data/../../../a.warc.gz\n"))
    with pytest.raises(PipelineError, match="outside the store"):
        read(source(server.address), tmp_path)
    listing.unlink()
    server.faults += [None, 403]
    with pytest.raises(PermissionError, match="lower `parallel`"):
        read(source(server.address), tmp_path)
    with pytest.raises(ValueError, match="go together"):
        Source(name="cc", type="commoncrawl", paths=["*"])


def test_a_missing_archive_is_recorded(server: Any, crawl: Path, tmp_path: Path) -> None:
    chosen = source(server.address, {"hosts": ["amt.de"], "languages": ["deu"]})
    name = f"{SEGMENT}/CC-MAIN-20260501000000-00001.warc.gz"
    (crawl / name).rename(crawl / "away")
    try:
        found = read(chosen, tmp_path)
    finally:
        (crawl / "away").rename(crawl / name)
    assert [(document.offset, bool(document.fault)) for document in found] == [(0, False), (1, True)]


def test_s3(crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    names = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in {**names, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    try:
        client = boto3.client("s3", endpoint_url=names["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="commoncrawl")
        for file in crawl.rglob("*.gz*"):
            client.upload_file(str(file), "commoncrawl", str(file.relative_to(crawl)))
        client.close()
        assert [d.offset for d in read(source("s3://commoncrawl", {"hosts": ["amt.de"]}), tmp_path)] == [0, 1, 2]
        assert len(read(source("s3://commoncrawl"), tmp_path)) == len(PAGES)
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        moto.stop()


def test_fetch_decides_no_byte() -> None:
    assert Fetch() == source("https://data.commoncrawl.org", store="commoncrawl", contact=None).fetch
