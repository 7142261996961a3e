"""Read ranges of files on a server that is everybody's: few requests at a time, pauses where it asks for them.

Over https a session names itself, keeps its connection and waits as long as `Retry-After` says after 429 and 503, else
twice as long after each failure; a body that breaks off goes on at its next byte. s3 and what else fsspec knows goes
through `common.remote`. At most `parallel` requests are open at a time by all processes that share the folder of the
turns, whatever the number of workers.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, cast

import requests
from fsspec.spec import AbstractBufferedFile
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from common.remote import open_input

PIECE = 1 << 20
TRIES = 12  # without a byte in between; with doubling pauses that is half an hour
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds
_TIMEOUT = (30, 120)  # seconds to connect, and between two bytes
_WAIT = 0.05  # seconds until the locks are tried again
_GOOD = (requests.codes.ok, requests.codes.partial_content)
_AGAIN = (429, 500, 502, 503, 504)


class Server:
    """Files that never change, below one address. turns: folder of the locks; agent: the User-Agent header."""

    def __init__(self, address: str, turns: Path, parallel: int, agent: str) -> None:
        self.address, self.turns, self.parallel, self.agent = address.rstrip("/"), turns, parallel, agent
        self.is_web = self.address.startswith(("http://", "https://"))

    def read(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a file from `start` up to `end`. Raises OSError."""
        if self.is_web:
            yield from self._read_web(path, start, end)
            return
        with self._turn(), self.open(path) as file:
            file.seek(start)
            while piece := file.read(PIECE if end is None else min(PIECE, end - file.tell())):
                yield piece

    def open(self, path: str) -> IO[bytes]:
        """A file to seek and read in."""
        if self.is_web:
            return cast("IO[bytes]", _Ranges(self, path))
        return open_input(f"{self.address}/{path}")

    def size(self, path: str) -> int:
        with self._turn(), self._ask("HEAD", path, {}) as answer:
            return int(answer.headers["Content-Length"])

    def _read_web(self, path: str, start: int, end: int | None) -> Iterator[bytes]:
        failures = 0
        while True:
            part = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
            with self._turn(), self._ask("GET", path, part) as answer:
                if answer.status_code == requests.codes.requested_range_not_satisfiable:
                    return  # nothing from `start` on
                if start and answer.status_code != requests.codes.partial_content:
                    raise OSError(f"{self.address}/{path}: the server does not give parts of files")
                try:
                    for piece in answer.iter_content(PIECE):
                        yield piece
                        start, failures = start + len(piece), 0
                    return
                except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError) as error:
                    failures += 1
                    if failures == TRIES:
                        raise OSError(
                            f"{self.address}/{path}: broke off {TRIES} times at byte {start}: {error}"
                        ) from error
            time.sleep(min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE))

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> requests.Response:
        address = f"{self.address}/{path}"
        try:
            answer = self._session.request(method, address, headers=headers, stream=True, timeout=_TIMEOUT)
        except requests.exceptions.RequestException as error:
            raise OSError(f"{address} cannot be read, tried {TRIES} times: {error}") from error
        if answer.status_code == requests.codes.not_found:
            raise FileNotFoundError(f"{address}: no such file")
        if answer.status_code == requests.codes.forbidden:
            raise PermissionError(
                f"{address}: the server refuses (403), as Common Crawl's does whoever asks too often; wait a day, then"
                " ask less: lower `parallel`"
            )
        if answer.status_code not in (*_GOOD, requests.codes.requested_range_not_satisfiable):
            raise OSError(f"{address}: answered {answer.status_code} {answer.reason}")
        return answer

    @cached_property
    def _session(self) -> requests.Session:
        again = Retry(
            TRIES, backoff_factor=FIRST_PAUSE, backoff_max=LONGEST_PAUSE, status_forcelist=_AGAIN, backoff_jitter=1.0
        )
        session = requests.Session()
        session.headers.update({"User-Agent": self.agent, "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=again))
        return session

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for one of `parallel` locks and hold it; a process that dies leaves it."""
        self.turns.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            locks = [stack.enter_context((self.turns / f"{i}.lock").open("a")) for i in range(self.parallel)]
            while not any(_locked(lock) for lock in locks):
                time.sleep(_WAIT)
            yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Ranges(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """A file on a web server, read where it is looked into."""

    def __init__(self, server: Server, path: str) -> None:
        self._server = server
        super().__init__(None, path, block_size=PIECE, size=server.size(path))

    def _fetch_range(self, start: int, end: int) -> bytes:
        return b"".join(self._server.read(self.path, start, end))
