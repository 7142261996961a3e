"""An extractor in a child process, for pages that hang or crash it: `extract.isolate_seconds`.

The child is a plain subprocess, since workers of some pools may have no children of multiprocessing's. It answers one
page after another over a connection. A page that exceeds the time limit, or that crashes the child, costs that child:
it is killed, the page is refused with a reason, and the next page gets a new child. A child takes about two seconds to
start, and a page 0.1 ms more than in this process. Run as a module, this file is the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Self

from pipeline.documents import storable
from pipeline.extract.text import Extracted, extract_decoded
from pipeline.kernels.html.fast import TEXT, Form


class PageRefusedError(Exception):
    """A page cost its child. rule: extractor_timeout or extractor_crash."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule, self.detail = rule, detail


class IsolatedExtractor:
    """`extract_decoded` in a child process, within `seconds` a page. A context manager, which ends the child."""

    def __init__(self, extractor: str, seconds: float, form: Form = TEXT) -> None:
        self.extractor, self.seconds, self.form = extractor, seconds, form
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def extract(self, page: str, url: str | None) -> Extracted:
        """Main text of a decoded page. Raises PageRefusedError if the child hangs or dies on it."""
        self._child = self._child or _Child()
        try:
            answer = self._child.ask((page, url, self.extractor, tuple(self.form)), self.seconds)
            return Extracted(*json.loads(answer))
        except TimeoutError:
            self._end()
            raise PageRefusedError("extractor_timeout", f"{self.extractor} took over {self.seconds} s") from None
        except (EOFError, OSError):
            detail = f"{self.extractor} ended with exit status {self._end()}"
            raise PageRefusedError("extractor_crash", detail) from None

    def _end(self) -> int:
        child, self._child = self._child, None
        return child.end() if child else 0


class _Child:
    """A process that has reported that it is ready, so that its imports do not count as a page's time."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        # Output is dropped: what a library prints does not belong into this process's.
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)
        theirs.close()
        self.pid = self._process.pid
        try:
            self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise OSError(f"the extractor's process did not start (exit status {self.end()})") from error

    def ask(self, request: Any, seconds: float) -> bytes:
        """The answer to a request. Raises TimeoutError if it takes longer, EOFError or OSError if the process dies."""
        self._connection.send(request)
        if not self._connection.poll(seconds):
            raise TimeoutError
        return self._connection.recv_bytes()

    def end(self) -> int:
        """Kill the process. Returns its exit status."""
        self._process.kill()
        self._connection.close()
        return self._process.wait()


def _serve(connection: Connection[Any, Any]) -> None:
    """Answer pages until the parent closes the connection."""
    connection.send_bytes(b"ready")
    while True:
        try:
            page, url, extractor, form = connection.recv()
        except EOFError:
            return
        # Bytes and not a pickled object: a parser that a page has taken over must not run code in the parent.
        found = extract_decoded(page, url=url, extractor=extractor, form=Form(*form))
        connection.send_bytes(json.dumps(found._replace(text=storable(found.text))).encode())


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
