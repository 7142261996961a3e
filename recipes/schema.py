"""The schema of recipes: the settings of `pipeline` and `trainer` in one typed model, without a heavy import.

Corpus settings are at the top level, training settings under `train`: `quality.rules.gopher_stop_words` and
`train.steps` are the paths that `--set` takes. `pretrain schema` prints it as JSON Schema, for editors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, Field, model_validator

from pipeline.config import CorpusConfig, Model, Name, OwnStage
from pipeline.quality.presets import PRESETS
from trainer.config import TrainConfig

Location = tuple[str | int, ...]
ITEM, KEY = 0, "NAME"  # in a path of `walk`: any item of a list, any key of a mapping

RUNS = Field("runs", description="folder of the run folders, relative to the current directory, or an fsspec URL")


class Recipe(CorpusConfig):
    """A corpus and, if `train` is given, a model trained on it."""

    runs: str = RUNS
    train: TrainConfig | None = Field(None, description="settings of the training run; absent: corpus only")

    @model_validator(mode="after")
    def _training_has_shards(self) -> Self:
        if self.train and "tokenize" not in self.stages:
            raise ValueError("`train` needs shards: end `stages` with `tokenize`, or remove `train`")
        return self

    @model_validator(mode="after")
    def _rules_have_presets(self) -> Self:
        active = {name for preset in self.quality.presets for name in PRESETS[preset]}
        for name in (*self.quality.rules, *(name for rules in self.quality.languages.values() for name in rules)):
            if name not in active:
                raise ValueError(f"`{name}` belongs to a preset that is not among `quality.presets`")
        return self


class Training(Model):
    """A recipe without a corpus: for `pretrain train --shards`."""

    name: Name = "train"
    runs: str = RUNS
    train: TrainConfig = TrainConfig()


def local_paths(recipe: Recipe) -> Iterator[tuple[Location, str, bool]]:
    """(field, path, whether it may be a glob or a folder) of every local file that the recipe names.

    URLs (`s3://...`), names of data sets and paths of crawls are left out; `use` of a stage is FILE.py:NAME.
    """
    named: list[tuple[Location, str | None, bool]] = [
        (("sources", number, "paths", index), path, True)
        for number, source in enumerate(recipe.sources)
        if source.type not in ("hf", "commoncrawl")
        for index, path in enumerate(source.paths)
    ]
    named += [
        (("stages", number, "use"), of.use, False)
        for number, of in enumerate(recipe.stages)
        if isinstance(of, OwnStage)
    ]
    for name in ("blocklist", "allowlist", "url_words"):
        lists = getattr(recipe.extract, name)
        named += [(("extract", name, index), path, True) for index, path in enumerate(lists)]  # files or folders
    named += [
        (("language", "model"), recipe.language.model, False),
        (("tokenize", "tokenizer", "path"), recipe.tokenize.tokenizer.path, False),
        (("truth",), recipe.truth, False),
    ]
    if recipe.train is not None:
        named.append((("train", "initial"), recipe.train.initial, True))  # a folder
    named += [(("quality", "models", name, "path"), model.path, False) for name, model in recipe.quality.models.items()]
    evaluations = recipe.quality.decontaminate.files
    named += [(("quality", "decontaminate", "files", index), path, False) for index, path in enumerate(evaluations)]
    for location, path, is_glob in named:
        if path is not None and "://" not in path:
            yield location, path, is_glob


def walk(schema: type[BaseModel]) -> Iterator[tuple[Location, type[BaseModel]]]:
    """(path, model) of every model in a schema, outermost first, with ITEM and KEY for list items and mapping keys."""
    waiting: list[tuple[Location, type[BaseModel]]] = [((), schema)]
    for path, model in waiting:
        yield path, model
        for name, field in model.model_fields.items():
            waiting += _models(field.annotation, (*path, name))


def _models(annotation: Any, path: Location) -> Iterator[tuple[Location, type[BaseModel]]]:
    """Models in an annotation: itself, members of a union, items of a list, values of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield path, annotation
    origin = get_origin(annotation)
    below = (ITEM,) if origin is list else (KEY,) if origin is dict else ()
    for part in get_args(annotation):
        yield from _models(part, (*path, *below))


def json_schema() -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Recipe.model_json_schema()
