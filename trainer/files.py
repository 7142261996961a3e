"""Content hashes and durable files: the few operations that shards, checkpoints and results share.

A file counts as written once its bytes are synced and it has been renamed into place; a folder entry counts once
the folder is synced too. Hashing reads in 8 MB pieces, so memory does not depend on the file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from trainer.errors import TrainerError

PIECE = 8 << 20


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex: what checkpoints and tokenizers are named by."""
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def xxh3(path: Path) -> str:
    """XXH3-128 of a file, hex: what shards are checked by."""
    digest = xxhash.xxh3_128()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: afterwards it holds the old bytes or the new ones, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process. Raises TrainerError where another one holds it; a killed one does not."""
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise TrainerError(
                f"{folder}: another process ({lock.read().strip() or 'unknown'}) is training in this folder; wait for "
                "it, or give this run another `--output`"
            ) from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def to_json(value: Any) -> bytes:
    """Indented JSON with a closing newline; floats keep every bit."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
