"""One sample of a shards folder as text: its documents, where they begin and end, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.tokenize.mds import BROKEN, Shard
from pipeline.tokenize.verify import open_manifest, read_index
from pipeline.tokenizer import load


@dataclass(frozen=True)
class Part:
    """A document's piece in a sample. whole: whether the piece is all of the document."""

    id: str
    url: str | None
    source: str
    language: str
    offset: int
    tokens: int
    whole: bool
    text: str


def show(folder: Path, stream: str | None, number: int) -> tuple[str, list[Part], int]:
    """(stream, pieces of its sample `number` in order, places of padding). Default: the first training stream.

    Raises PipelineError where there is no such stream or sample, or a shard cannot be read.
    """
    manifest = open_manifest(folder)
    names = sorted(manifest["streams"])
    name = stream or next((name for name in names if name.startswith("train/")), names[0])
    if name not in names:
        raise PipelineError(f"{folder}: no stream `{name}`; there are: {', '.join(names)}")
    count = manifest["streams"][name]["samples"]
    if not 0 <= number < count:
        raise PipelineError(f"{folder}: `{name}` has samples 0 to {count - 1}, got {number}")
    tokens, lengths = _sample(folder / name, number)
    rows = _rows(folder / "documents.parquet", name, number)
    tokenizer = load(folder / "tokenizer.json")
    parts, at = [], 0
    for row, length in zip(rows, lengths, strict=True):
        text = tokenizer.decode(tokens[at : at + length], skip_special_tokens=False)
        fields = {key: row[key] for key in ("id", "url", "source", "language", "offset", "tokens")}
        parts.append(Part(**fields, whole=row["whole"], text=text))
        at += length
    return name, parts, len(tokens) - at


def _sample(stream: Path, number: int) -> tuple[list[int], list[int]]:
    problems: list[str] = []
    for entry in read_index(stream, problems):
        if number < entry["samples"]:
            try:
                sample = Shard(stream, entry)[number]
            except BROKEN as error:
                name = (entry.get("zip_data") or entry["raw_data"])["basename"]
                raise PipelineError(f"{stream / name}: cannot be decoded: {error!r}") from error
            return sample["tokens"].tolist(), sample["doc_lengths"].tolist()
        number -= entry["samples"]
    raise PipelineError("; ".join(problems) or f"{stream}/index.json: lists fewer samples than manifest.json")


def _rows(path: Path, name: str, number: int) -> list[dict[str, Any]]:
    """Rows of documents.parquet for one sample, by offset, with `whole` added."""
    split, stream = name.split("/", 1)
    wanted = [("split", "=", split), ("stream", "=", stream)]
    rows = pq.read_table(path, filters=[*wanted, ("sample", "=", number)]).sort_by("offset").to_pylist()
    pieces = pq.read_table(path, columns=["id", "copy"], filters=[*wanted, ("id", "in", [row["id"] for row in rows])])
    copies = list(zip(pieces["id"].to_pylist(), pieces["copy"].to_pylist(), strict=True))
    return [row | {"whole": copies.count((row["id"], row["copy"])) == 1} for row in rows]
