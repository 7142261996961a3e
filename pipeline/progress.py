"""What a running corpus tells whoever watches: plain values through one small protocol.

The package prints nothing; `recipes/terminal.py` draws bars and tables from these calls, a notebook may do
otherwise. All calls come from the main process, `progress` at most a few times a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    documents and bytes (of text) were read so far; fraction is the share of the stage's input done, 0 to 1;
    seconds since the stage began.
    """

    documents: int
    bytes: int
    fraction: float
    seconds: float


class Observer(Protocol):
    """Receives a corpus run's events. `stats` is the stage's stats.json (docs/format.md)."""

    def stage_started(self, stage: str, tasks: int) -> None: ...

    def stage_progress(self, stage: str, progress: Progress) -> None: ...

    def stage_finished(self, stage: str, stats: dict[str, Any], seconds: float) -> None: ...

    def stage_skipped(self, stage: str, stats: dict[str, Any]) -> None: ...


class Silent:
    """An observer that ignores everything."""

    def stage_started(self, stage: str, tasks: int) -> None: ...

    def stage_progress(self, stage: str, progress: Progress) -> None: ...

    def stage_finished(self, stage: str, stats: dict[str, Any], seconds: float) -> None: ...

    def stage_skipped(self, stage: str, stats: dict[str, Any]) -> None: ...
