"""Open files wherever fsspec reaches, with retries.

What fails on the way (connection lost, time-out, 5xx) is tried TRIES times with doubling pauses, a read from the same
position on a fresh file. What will fail again (no such file, no permission) raises at once.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar, cast

TRIES = 4
FIRST_PAUSE = 0.5  # seconds, doubled with each try
BUFFER = 1 << 20
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)
T = TypeVar("T")


def retry(what: str, call: Callable[[], T], deed: str = "read") -> T:
    """The result of `call`, tried again where the network fails. Raises OSError, which names `what` after TRIES."""
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except _FINAL:
            raise
        except _passing() as error:
            if attempt == TRIES:
                raise OSError(f"{what} cannot be {deed}, tried {TRIES} times: {error}") from error
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _passing() -> tuple[type[Exception], ...]:
    """Errors that may not come again; clients' only where something imported them (it takes a fifth of a second)."""
    clients = {"aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError"}
    return (OSError, *(getattr(sys.modules[name], error) for name, error in clients.items() if name in sys.modules))


def open_input(path: str) -> IO[bytes]:
    """Open a local path, as it is, or fsspec URL for reading. Raises OSError."""
    if "://" not in path:
        return Path(path).open("rb")  # fsspec would read `::` and wildcards in a name as its own
    return cast("IO[bytes]", io.BufferedReader(_Retrying(path), BUFFER))


class _Retrying(io.RawIOBase):
    """A remote file that is opened anew, at the same position, where reading fails."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.position = 0
        self._file: Any = None
        retry(path, lambda: self._read(0))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self.position}
        self.position = offset + (bases[whence] if whence in bases else int(self._file.size))
        return self.position

    def readinto(self, buffer: Any) -> int:
        data = retry(f"{self.path} at byte {self.position}", lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def _read(self, size: int) -> bytes:
        """Read at `position`; the file is kept only if that works."""
        import fsspec  # here, since it takes 0.07 s and few corpora are remote

        file, self._file = self._file or fsspec.open(self.path, "rb").open(), None
        if file.tell() != self.position:
            file.seek(self.position)
        data: bytes = file.read(size) if size else b""
        self._file = file
        return data
