"""A WARC over HTTP on loopback, with a server that fails on the way, and over s3:// on moto."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from common import remote
from common.remote import open_input
from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from tests.conftest import PROSE, page, write_warc

PAGES = {f"https://a.example/{name}": page(text) for name, text in PROSE.items()}


class Shaky(BaseHTTPRequestHandler):
    """Serves one file with ranges; `server.failures` says how many further GETs are answered with 503 or cut off."""

    server: Any

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(self.server.content)

    def _answer(self, content: bytes) -> None:
        if self.path != "/a.warc.gz":
            self.send_error(404)
            return
        found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        end = int(found[2]) + 1 if found and found[2] else len(self.server.content)
        if content and self.server.failures > 0:
            self.server.failures -= 1
            if self.server.failures % 2:
                self.send_error(503)
                return
            content = b""  # the promised bytes never come
        self.send_response(206 if found else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(min(end, len(self.server.content)) - start))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(self.server.content)}")
        self.end_headers()
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_warc(tmp_path / "a.warc.gz", PAGES)


@pytest.fixture
def server(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Shaky)
    server.content, server.failures = archive.read_bytes(), 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def texts(folder: Path, path: str) -> list[tuple[str, str]]:
    """(URL, text) of the documents that a recipe with this source keeps."""
    config = CorpusConfig.model_validate(
        {
            "name": "test",
            "stages": ["extract"],
            "sources": [{"name": "web", "type": "warc", "paths": [path]}],
            "executor": {"workers": 1},
        }
    )
    run = folder / f"run-{path.partition(':')[0][-4:]}"
    build_corpus(config, run, folder)
    tables = [pq.read_table(file) for file in sorted(run.glob("corpus/01-extract/data/*.parquet"))]
    return [pair for table in tables for pair in zip(*(table[n].to_pylist() for n in ("url", "text")), strict=True)]


def test_http_gives_what_the_local_file_gives(tmp_path: Path, archive: Path, server: Any) -> None:
    address = f"http://127.0.0.1:{server.server_port}/a.warc.gz"
    assert texts(tmp_path, address) == texts(tmp_path, str(archive))


def test_reads_survive_failures_on_the_way(archive: Path, server: Any) -> None:
    address = f"http://127.0.0.1:{server.server_port}/a.warc.gz"
    with open_input(address) as file:
        server.failures = 3
        assert file.read() == archive.read_bytes()
    assert server.failures == 0
    server.failures = 100
    with open_input(address) as file, pytest.raises(OSError, match="cannot be read, tried 4 times"):
        file.read()


def test_what_is_not_there_raises_at_once(server: Any) -> None:
    with pytest.raises(FileNotFoundError):
        open_input(f"http://127.0.0.1:{server.server_port}/missing")


def test_s3_gives_what_the_local_file_gives(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="crawl")
        client.upload_file(str(archive), "crawl", "2026/a.warc.gz")
        client.close()
        assert texts(tmp_path, "s3://crawl/*/*.warc.gz") == texts(tmp_path, str(archive))
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()
