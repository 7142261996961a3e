"""Open input files wherever fsspec reaches, with retries.

A read that fails on the way (connection lost, time-out, 5xx) is tried again from the same position on a fresh file,
TRIES times with growing pauses; what is really not there (no such file, no permission) raises at once. Local files
are opened as they are.
"""

from __future__ import annotations

import io
import time
from typing import IO, Any, cast

import fsspec

TRIES = 4
FIRST_PAUSE = 0.25  # seconds, doubled with each try
BUFFER = 1 << 20
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)


def open_input(path: str) -> IO[bytes]:
    """Open a local path or fsspec URL for reading. Raises OSError."""
    if "://" not in path:
        return cast("IO[bytes]", fsspec.open(path, "rb").open())
    return cast("IO[bytes]", io.BufferedReader(_Retrying(path), BUFFER))


class _Retrying(io.RawIOBase):
    """A remote file that is opened anew, at the same position, where reading fails."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.position = 0
        self._file: Any = None
        self._try(lambda: None)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self.position}
        self.position = offset + (bases[whence] if whence in bases else int(self._file.size))
        return self.position

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._try(lambda: self._file.read(len(buffer)))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def _try(self, action: Any) -> Any:
        for attempt in range(TRIES):
            try:
                if self._file is None:
                    self._file = fsspec.open(self.path, "rb").open()
                if self._file.tell() != self.position:
                    self._file.seek(self.position)
                return action()
            except _FINAL:
                raise
            except _passing() as error:
                self._file = None
                if attempt == TRIES - 1:
                    raise OSError(
                        f"{self.path}: given up after {TRIES} tries at byte {self.position}: {error}"
                    ) from error
                time.sleep(FIRST_PAUSE * 2**attempt)
        return None


def _passing() -> tuple[type[Exception], ...]:
    """Errors that may not come again. aiohttp, a fifth of a second to import, is asked only when one is at hand."""
    import aiohttp

    return OSError, aiohttp.ClientError
