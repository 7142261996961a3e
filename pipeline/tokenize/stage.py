"""Stage `tokenize`: tokenizer, encoding, packing, MDS shards (docs/format.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import PipelineError
from common.files import read_json
from pipeline.config import CorpusConfig, Source, TokenizeConfig
from pipeline.stage import Build, Stage
from pipeline.task import Pass
from pipeline.tokenize.encode import (
    CountPass,
    EncodePass,
    MeasurePass,
    TokenizerPass,
    encoder_of,
    list_groups,
    special_ids,
)
from pipeline.tokenize.pack import IndexPass, PackPass


def passes(build: Build[TokenizeConfig]) -> Iterator[Pass]:
    """Measure, count (unless a tokenizer is given), tokenizer, encode, pack (a task per some buckets), index.

    `tokenizer` and `index` have one task each.
    """
    measure = MeasurePass(build)
    yield measure
    sizes = measure.total("notes")
    _check_phases(build.settings, build.sources, set(sizes["streams"]))
    counted = 0
    if build.settings.tokenizer.path is None:
        count = CountPass(build, sizes["languages"])
        yield count
        counted = count.tasks
    yield TokenizerPass(build, counted)
    yield EncodePass(build, sizes["streams"])
    groups = list_groups(build.workdir)
    if not any(group.startswith("train/") for group, _ in groups):
        raise PipelineError(
            f"tokenize.validation is {build.settings.validation}: every document was held out and none is left"
            " to train on; lower it"
        )
    yield PackPass(build, groups)
    yield IndexPass(build)


def files(settings: TokenizeConfig, base: Path) -> list[Path]:
    path = settings.tokenizer.path
    if path is None:
        return []
    if not (base / path).is_file():
        raise PipelineError(f"tokenize.tokenizer.path: no file at {base / path}")
    return [base / path]


def decided_by(config: CorpusConfig) -> dict[str, Any]:
    """The seed, and the sources' weights, which decide the manifest. A given tokenizer's content is hashed."""
    given = config.tokenize.tokenizer.path is not None
    return {
        "seed": config.seed,
        "weights": {source.name: source.weight * source.repeat for source in config.sources},
        "tokenizer": config.tokenize.tokenizer.model_dump(mode="json") | {"path": given},
    }


def manifest(build: Build[TokenizeConfig]) -> dict[str, Any]:
    """The fields of shards/manifest.json."""
    settings = build.settings
    encoder = encoder_of(build.workdir)
    streams = read_json(build.workdir / "stats.json")["streams"]
    _check_phases(settings, build.sources, {name.partition("/")[2] for name in streams})
    weights = {name: _weight(name, settings.stream_by, build.sources) for name in sorted(streams)}
    bos, eos = special_ids(settings, encoder)
    return {
        "format": 1,
        "sequence_length": settings.sequence_length,
        "packing": settings.packing,
        "vocab_size": encoder.vocab_size,
        "eos_id": eos,
        "bos_id": bos,
        "token_dtype": str(encoder.dtype),
        "seed": build.seed,
        "tokenizer_sha256": hashlib.sha256((build.workdir / "tokenizer.json").read_bytes()).hexdigest(),
        "streams": {name: streams[name] | {"weight": weight} for name, weight in weights.items()},
        "phases": mixture(settings, {name: weight for name, weight in weights.items() if name.startswith("train/")}),
    }


def mixture(settings: TokenizeConfig, weights: dict[str, float]) -> list[dict[str, Any]]:
    """The phases of docs/format.md over training streams with the given weights of the first phase.

    A phase's weights name streams, or the source of `<source>-<language>`; the longest name of a stream decides.
    """
    phases: list[dict[str, Any]] = [{"start": 0.0, "weights": weights}]
    for phase in settings.phases:
        mixed = {}
        for name, weight in weights.items():
            stream = name.partition("/")[2]
            named = [key for key in phase.weights if key in (stream, stream.rpartition("-")[0])]
            mixed[name] = phase.weights[max(named, key=len)] if named else weight
        if not any(mixed.values()):
            raise PipelineError(f"tokenize.phases: the phase from {phase.start} leaves out every stream")
        phases.append({"start": phase.start, "weights": mixed})
    return phases


def _check_phases(settings: TokenizeConfig, sources: tuple[Source, ...], streams: set[str]) -> None:
    """Raise PipelineError where a phase names no source or stream."""
    known = {source.name for source in sources} if settings.stream_by != "language" else set()
    for number, phase in enumerate(settings.phases):
        for name in phase.weights:
            if name not in known | streams:
                raise PipelineError(
                    f"tokenize.phases.{number}.weights: there is no source or stream `{name}`;"
                    f" there are: {', '.join(sorted(known | streams))}"
                )


def _weight(stream: str, stream_by: str, sources: tuple[Source, ...]) -> float:
    """Weight times repeat of a stream's source; 1 where streams by language mix sources."""
    name = stream.split("/", 1)[1]
    if stream_by == "language":
        return 1.0
    source = name if stream_by == "source" else name.rsplit("-", 1)[0]
    return next(of.weight * of.repeat for of in sources if of.name == source)


_LIBRARIES = ("tokenizers", "zstandard", "pyarrow")
STAGE = Stage("tokenize", __name__, _LIBRARIES, passes, files, manifest, decided_by, ("weights", "phases"))
