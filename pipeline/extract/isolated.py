"""An extractor in a child process, for pages that hang or crash it: `extract.isolate_seconds`.

The child is a plain subprocess (workers of a pool may have no children of multiprocessing's) that answers one page
after another over its pipes. A page over the time limit, or one that ends the child, costs that child: it is killed,
the page is refused with a reason, and the next page gets a new child (about two seconds to start). Run as a module,
this file is the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
from struct import pack, unpack
from threading import Event, Timer
from typing import IO, Self

from pipeline.extract.text import extract_decoded

_LENGTH = ">I"
Rule = str


class PageRefusedError(Exception):
    """A page cost its child: `rule` is extractor_timeout or extractor_crash, `detail` says more."""

    def __init__(self, rule: Rule, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule, self.detail = rule, detail


class IsolatedExtractor:
    """`extract` as extract_decoded, within `seconds` a page. A context manager: leaving it ends the child."""

    def __init__(self, extractor: str, seconds: float) -> None:
        self.extractor, self.seconds = extractor, seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def extract(self, page: str, url: str | None) -> str:
        """Main text of a decoded page. Raises PageRefusedError where the child hangs or dies on it."""
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        late = Event()

        def stop() -> None:
            late.set()
            child.kill()

        timer = Timer(self.seconds, stop)
        timer.start()
        try:
            _write(child.stdin, json.dumps([page, url, self.extractor]).encode("utf-8"))
            answer = _read(child.stdout)
        except OSError:
            answer = None
        finally:
            timer.cancel()
        if answer is not None:
            return answer.decode("utf-8")
        code = self._end()
        if late.is_set():
            raise PageRefusedError("extractor_timeout", f"{self.extractor} took over {self.seconds} s")
        raise PageRefusedError("extractor_crash", f"{self.extractor} ended with exit status {code}")

    def _start(self) -> subprocess.Popen[bytes]:
        """A child that has said that it is ready, so that its imports do not count as a page's time."""
        child = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        if _read(child.stdout) is None:
            raise OSError(f"the extractor's process did not start (exit status {child.wait()})")
        return child

    def _end(self) -> int:
        child, self._child = self._child, None
        if child is None:
            return 0
        child.kill()
        child.communicate()
        return child.returncode


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(pack(_LENGTH, len(data)) + data)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """One message, None where the stream ends before its end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (length,) = unpack(_LENGTH, head)
    data = stream.read(length)
    return data if len(data) == length else None


def _serve() -> None:
    """Answer pages until the parent closes the pipe."""
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no answer
    _write(answers, b"ready")
    while (data := _read(sys.stdin.buffer)) is not None:
        page, url, extractor = json.loads(data)
        _write(answers, extract_decoded(page, url=url, extractor=extractor).encode("utf-8", "replace"))


if __name__ == "__main__":
    _serve()
