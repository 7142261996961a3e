"""Progress of a corpus build and of a training run, reported as calls on an `Observer`.

Neither half prints: `cli/terminal.py` draws tables and bars from these calls, a notebook may do something else.
The methods of `Observer` do nothing, so that a subclass overrides those it needs, and a plain `Observer()` is silent.
All calls come from the main process; those of a build may come from its progress thread, a few times a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Progress of a stage: documents and text bytes read, share of the input done (0 to 1), seconds since its start."""

    documents: int
    bytes: int
    fraction: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """The end of a training run.

    loss: mean training loss since the last logged row, in nats; validation: the last evaluation's record without
    `kind` (None where nothing is held out); samples: the recipe's prompts with their continuations.
    """

    step: int
    tokens: int
    loss: float
    validation: dict[str, Any] | None
    checkpoint: Path
    samples: list[dict[str, str]]


class Observer:
    """Receives events; `stats` is a stage's stats.json, `record` a row of metrics.jsonl (docs/format.md).

    An exception raised by an observer ends the run as a crash would.
    """

    def stage_started(self, stage: str, tasks: int) -> None: ...

    def stage_progress(self, stage: str, progress: Progress) -> None: ...

    def stage_finished(self, stage: str, stats: dict[str, Any], seconds: float) -> None: ...

    def stage_skipped(self, stage: str, stats: dict[str, Any]) -> None: ...

    def training_started(self, info: dict[str, Any]) -> None: ...

    def resumed(self, step: int) -> None: ...

    def step(self, record: dict[str, Any]) -> None: ...

    def evaluated(self, record: dict[str, Any]) -> None: ...

    def checkpointed(self, step: int, path: Path) -> None: ...

    def warning(self, message: str) -> None: ...

    def finished(self, result: TrainResult) -> None: ...
