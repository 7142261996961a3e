"""The errors meant for people: the command line prints their text and exits, without a traceback.

    PretrainError
      RecipeError      a recipe or an option cannot be used (exit code 2)
      PipelineError    a corpus cannot be built (exit code 1)
      TrainerError     a model cannot be trained, scored or exported (exit code 1)
    Interrupted        a signal stopped a training run; not a failure (exit code 128 + signal)

A message says what happened, to which file, line or field, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class PretrainError(Exception):
    """Base of the errors whose text is written for the user."""


class RecipeError(PretrainError):
    """A recipe or a command's option cannot be used; each message names file, line and field where it has them."""

    def __init__(self, messages: str | Sequence[str]) -> None:
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__("\n".join(self.messages))


class PipelineError(PretrainError):
    """A corpus cannot be built."""


class TrainerError(PretrainError):
    """A model cannot be trained, resumed, scored or exported."""


class Interrupted(Exception):
    """SIGTERM or SIGINT stopped the run after `step` steps; `path` is the checkpoint from which it resumes."""

    def __init__(self, signal: int, step: int, path: Path) -> None:
        super().__init__(f"stopped by signal {signal} after step {step}; the same command resumes from {path}")
        self.signal = signal
        self.step = step
        self.path = path
