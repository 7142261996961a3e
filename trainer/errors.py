"""Errors that are meant for people: the command line prints their text and exits 1, without a traceback."""

from __future__ import annotations

from pathlib import Path


class TrainerError(Exception):
    """A training run cannot start or go on; the message says what was found, what was expected, what to do."""


class Interrupted(Exception):
    """SIGTERM or SIGINT stopped the run after `step` steps; `path` is the checkpoint that the same call resumes.

    Not a TrainerError: nothing went wrong, and a scheduler tells the two apart by the exit code.
    """

    def __init__(self, signal: int, step: int, path: Path) -> None:
        super().__init__(f"stopped by signal {signal} after step {step}; the same command goes on from {path}")
        self.signal = signal
        self.step = step
        self.path = path
