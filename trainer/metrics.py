"""metrics.jsonl: one JSON row per event, exact across interruptions.

Each checkpoint records how long the file was; a resumed run cuts it back to there and writes the same rows again.
So no row is missing or repeated, and a row torn by a kill disappears with its tail.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Metrics:
    """An append-only log that can be cut back."""

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open for appending after the first `size` bytes, where given; the rest is dropped."""
        self.file = path.open("ab")
        if size is not None and self.file.tell() > size:
            self.file.truncate(size)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self.file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.file.flush()

    def sync(self) -> int:
        """Bring every row to the disk and return the file's length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
