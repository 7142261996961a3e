"""Stage `tokenize`: tokenizer, encoding, packing, MDS shards (docs/format.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import TokenizeConfig
from pipeline.errors import PipelineError
from pipeline.stage import Build
from pipeline.step import CorpusStep
from pipeline.storage import read_json
from pipeline.tokenize.encode import EncodeStep, TokenizerStep, list_groups
from pipeline.tokenizer import Encoder


def passes(build: Build) -> Iterator[CorpusStep]:
    """Tokenizer (one task), encode (a task per file), pack (a task per bucket), index (one task)."""
    from pipeline.tokenize.shards import IndexStep, PackStep  # imports torch, which the other stages never need

    yield TokenizerStep(build)
    yield EncodeStep(build)
    groups = list_groups(build.workdir)
    if not any(group.startswith("train/") for group in groups):
        raise PipelineError(
            f"tokenize.validation is {build.settings.validation}: every document was held out and none is left"
            " to train on; lower it"
        )
    yield PackStep(build, groups)
    yield IndexStep(build)


def external_files(settings: TokenizeConfig, base: Path) -> list[Path]:
    """A given tokenizer.json."""
    path = settings.tokenizer.path
    if path is None:
        return []
    if not (base / path).is_file():
        raise PipelineError(f"tokenize.tokenizer.path: no file at {base / path}")
    return [base / path]


def manifest(build: Build) -> dict[str, Any]:
    """The fields of shards/manifest.json."""
    settings: TokenizeConfig = build.settings
    encoder = Encoder(build.workdir / "tokenizer.json")
    streams = read_json(build.workdir / "stats.json")["streams"]
    weights = {source.name: source.weight for source in build.sources}
    return {
        "format": 1,
        "sequence_length": settings.sequence_length,
        "vocab_size": encoder.vocab_size,
        "eos_id": encoder.eos_id,
        "token_dtype": str(encoder.dtype),
        "seed": build.seed,
        "tokenizer_sha256": hashlib.sha256((build.workdir / "tokenizer.json").read_bytes()).hexdigest(),
        "streams": {
            name: counts | {"weight": _weight(name, settings.stream_by, weights)}
            for name, counts in sorted(streams.items())
        },
    }


def _weight(stream: str, stream_by: str, weights: dict[str, float]) -> float:
    """Weight of a stream's source; streams by language mix sources, whose weights then have no meaning."""
    name = stream.split("/", 1)[1]
    if stream_by == "language":
        return 1.0
    return weights[name if stream_by == "source" else name.rsplit("-", 1)[0]]
