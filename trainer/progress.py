"""What a training run tells whoever watches: plain values through one small protocol.

The package prints nothing; `recipes/terminal.py` draws from these calls, a notebook may do otherwise. Records are
the rows of metrics.jsonl (see `trainer.train`). An exception raised by an observer ends the run as a crash would.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    `loss` is the mean training loss since the last log in nats, `validation` the last evaluation's record without
    `kind` (None where nothing is held out), `samples` the recipe's prompts with their continuations.
    """

    step: int
    tokens: int
    loss: float
    validation: dict[str, Any] | None
    checkpoint: Path
    samples: list[dict[str, str]]


class Observer(Protocol):
    """Receives a training run's events, in the process and thread that trains."""

    def training_started(self, info: dict[str, Any]) -> None: ...

    def resumed(self, step: int) -> None: ...

    def step(self, record: dict[str, Any]) -> None: ...

    def evaluated(self, record: dict[str, Any]) -> None: ...

    def checkpointed(self, step: int, path: Path) -> None: ...

    def warning(self, message: str) -> None: ...

    def finished(self, result: TrainResult) -> None: ...


class Silent:
    """An observer that ignores everything."""

    def training_started(self, info: dict[str, Any]) -> None: ...

    def resumed(self, step: int) -> None: ...

    def step(self, record: dict[str, Any]) -> None: ...

    def evaluated(self, record: dict[str, Any]) -> None: ...

    def checkpointed(self, step: int, path: Path) -> None: ...

    def warning(self, message: str) -> None: ...

    def finished(self, result: TrainResult) -> None: ...
