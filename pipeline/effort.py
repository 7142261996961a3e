"""What a stage took: its tasks' seconds, the bytes of text that they read and wrote, and how many workers were busy.

Summed from receipts and written to the run's log, since all of it may differ between equal runs. A task that ran inside
another stage's adds its seconds to its own stage; the worker was busy for the other. Memory: two numbers a task.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

SLICES = 40  # of a stage's time, for each of which the busy workers are averaged


@dataclass
class Effort:
    """Sums over the tasks of a stage that began at `started` (seconds since 1970)."""

    started: float
    tasks: int = 0
    seconds: float = 0.0
    text_read: int = 0
    text_written: int = 0
    worked: list[tuple[float, float]] = field(default_factory=list)

    def add(self, receipt: dict[str, Any]) -> None:
        """Add a task's receipt."""
        effort = receipt["effort"]
        self.seconds += effort["seconds"]
        self.text_read += effort["text_read"]
        self.text_written += effort["text_written"]
        if "worked" in receipt:
            start, seconds = receipt["worked"]
            self.worked.append((start, start + seconds))

    def fields(self) -> dict[str, Any]:
        """Fields of the log, at the end of the stage: docs/format.md."""
        sums = {name: getattr(self, name) for name in ("tasks", "text_read", "text_written")}
        first = min((start for start, _ in self.worked if start >= self.started), default=None)
        return sums | {"core_seconds": round(self.seconds, 3), "first_task": first, "busy": self._busy(time.time())}

    def _busy(self, end: float) -> list[float]:
        """Mean number of busy workers in each of SLICES equal slices from the start to `end`."""
        width = max(end - self.started, 1e-6) / SLICES
        busy = [0.0] * SLICES
        for start, stop in self.worked:
            low, high = (start - self.started) / width, (stop - self.started) / width
            for number in range(max(int(low), 0), min(int(high) + 1, SLICES)):
                busy[number] += max(min(high, number + 1) - max(low, number), 0.0)
        return [round(value, 2) for value in busy]
