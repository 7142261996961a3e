"""What a stage's module offers to the runner, and what it is given.

A module offers three functions:

- `passes(build)`: a generator of `CorpusStep`s; each runs to its end before the generator goes on, so that a
  pass may look at what the one before it wrote;
- `external_files(settings, base)`: files outside the run that decide the output (a model, a list), hashed
  into the fingerprint;
- `manifest(build)`: fields that the stage adds to its manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import Model, Source
from pipeline.crashes import Place
from pipeline.task import CorpusStep


@dataclass(frozen=True)
class Build:
    """One building of one stage.

    settings: the stage's own model from `pipeline.config`; base: folder against which its relative paths are
    meant; inputs: parquet files of the stage before, in order (none for `extract`, which reads `sources`);
    workdir: the folder to fill, in which hidden names are scratch; fingerprint: of this building; crashed: documents
    of the sources to leave out (`extract`; in the other stages `inputs` no longer holds them).
    """

    settings: Any
    sources: tuple[Source, ...]
    seed: int
    base: Path
    inputs: tuple[Path, ...]
    workdir: Path
    fingerprint: str
    crashed: tuple[Place, ...] = ()


class StageModule(Protocol):
    """The three functions of a stage's module."""

    def passes(self, build: Build) -> Iterator[CorpusStep]: ...

    def external_files(self, settings: Model, base: Path) -> list[Path]: ...

    def manifest(self, build: Build) -> dict[str, Any]: ...
