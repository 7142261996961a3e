"""What a stage is to the runner: one object with everything that `pipeline.build` must know of it.

Each stage's `stage.py` ends with its `STAGE`. To add a stage: its settings in `pipeline.config`, its name in
`pipeline.config.STAGES`, and its folder with a `stage.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import pyarrow as pa

from pipeline.config import STAGES, CorpusConfig, Model, OwnStage, Source, StageName
from pipeline.crashes import Position
from pipeline.documents import Counts, read_schema
from pipeline.forgotten import NOTHING, Forgotten
from pipeline.task import DocumentPass, Pass

Settings = TypeVar("Settings", bound=Model)
MODULES = {name: f"pipeline.{name}.stage" for name in STAGES}
OWN_MODULE = "pipeline.own"


@dataclass(frozen=True)
class Build(Generic[Settings]):
    """One building of one stage.

    base: folder against which relative paths are meant; inputs: parquet files of the stage before, in order (none for
    `extract`, which reads `sources`); workdir: the folder to fill, in which hidden names are scratch; published: the
    folder that it becomes, with an earlier result where there is one; crashed: documents of the sources to leave out
    (`extract`; in other stages `inputs` no longer holds them); texts: for each input the file that has its texts, where
    the stage shall leave them out; schema: columns of the inputs, where they are not written yet; forgotten: documents
    that `extract` takes no text of; earlier: the published folder, where what it says of documents still holds
    (`pipeline.reuse`).
    """

    settings: Settings
    sources: tuple[Source, ...]
    seed: int
    base: Path
    inputs: tuple[Path, ...]
    workdir: Path
    fingerprint: str
    published: Path | None = None
    crashed: tuple[Position, ...] = ()
    forgotten: Forgotten = NOTHING
    earlier: Path | None = None
    texts: tuple[Path, ...] = ()
    schema: pa.Schema | None = None

    def input_schema(self) -> pa.Schema:
        """Columns of the inputs."""
        if self.schema is not None:
            return self.schema
        return read_schema(self.inputs[0]) if self.inputs else pa.schema([])


@dataclass(frozen=True)
class Stage(Generic[Settings]):
    """A stage of the corpus.

    module: its code, hashed with all that it imports; libraries: distributions whose versions decide its output;
    passes: generator of its passes; each runs to its end before the generator is resumed, so a pass may read what the
    one before it wrote; files: outside the run that decide the output (a model, a list), hashed by content; manifest:
    fields that it adds to its manifest; decided_by: what else of the recipe decides its output, merged over its own
    settings; manifest_only: settings that decide its manifest alone; check: raises PipelineError for counts that hide
    a mistake; single: its one pass, where it looks at one document at a time: it may then run while the stage before it
    writes those documents (`pipeline.task`). None where its settings ask for other passes, too; mixes: whether the text
    of a kept document depends on other documents.
    """

    name: str
    module: str
    libraries: tuple[str, ...]
    passes: Callable[[Build[Settings]], Iterator[Pass]]
    files: Callable[[Settings, Path], list[Path]] = lambda settings, base: []
    manifest: Callable[[Build[Settings]], dict[str, Any]] = lambda build: {}
    decided_by: Callable[[CorpusConfig], dict[str, Any]] = lambda config: {}
    manifest_only: tuple[str, ...] = ()
    check: Callable[[Build[Settings], Counts], None] = lambda build, counts: None
    mixes: Callable[[Settings], bool] = lambda settings: False
    single: Callable[[Build[Settings]], DocumentPass | None] = lambda build: None


def load_stage(chosen: StageName | OwnStage) -> Stage[Any]:
    """A stage of the recipe. Imports its libraries."""
    if isinstance(chosen, OwnStage):
        own = cast(Stage[Any], importlib.import_module(OWN_MODULE).STAGE)
        return replace(own, name=chosen.name)
    return cast(Stage[Any], importlib.import_module(MODULES[chosen]).STAGE)
