"""Check a shards folder (docs/format.md), and show one of its samples as text.

`verify` compares files with the manifest's sizes and hashes, shards with the hashes in index.json, every decoded sample
with the sequence length and the vocabulary, and all counts (samples, tokens, padding, pieces) with the manifest and
documents.parquet. Cost: the files are read twice and each sample is decoded once; one shard at a time is in memory.
`show` decodes one sample: its documents, where they begin and end, and where they come from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import PipelineError, PretrainError
from common.files import hash_file, list_names, read_json
from common.mds import BROKEN, Shard, digest
from pipeline.tokenize.tokenizer import Encoder, load

FORMAT = 1


@dataclass
class Report:
    """Counts of what was read, and a line for each problem, which names the file."""

    files: int = 0
    bytes: int = 0
    samples: int = 0
    tokens: int = 0
    problems: list[str] = field(default_factory=list)


def open_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a shards folder. Raises PipelineError if there is none, or one of another format."""
    if not folder.is_dir():
        raise PipelineError(f"{folder}: no such folder; expected a folder of shards, e.g. runs/demo/shards")
    if not (folder / "manifest.json").is_file():
        state = "unfinished shards" if (folder / "token_bytes.npy").is_file() else "not a folder of shards"
        raise PipelineError(f"{folder}: {state}: manifest.json, which is written last, is missing; build the shards")
    manifest: dict[str, Any] = read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT or "streams" not in manifest:
        raise PipelineError(f"{folder}/manifest.json: not a manifest of shards of format {FORMAT}")
    if not manifest["streams"]:
        raise PipelineError(f"{folder}/manifest.json: lists no stream, so there is nothing to train on")
    return manifest


def verify(folder: Path) -> Report:
    """Check a shards folder. Raises PipelineError if it is not one."""
    manifest, report = open_manifest(folder), Report()
    for name, entry in manifest["files"].items():
        report.files += 1
        report.bytes += entry["bytes"]
        if problem := _file_problem(folder / name, entry):
            report.problems.append(problem)
    # StreamingDataset leaves unpacked shards next to the compressed ones of a local folder.
    expected = set(manifest["files"]) | {name.rpartition(".")[0] for name in manifest["files"]}
    for name in sorted(set(list_names(folder)) - expected):
        report.problems.append(f"{folder / name}: not listed in manifest.json")
    report.problems += _tokenizer_problems(folder, manifest)
    pieces = _count_pieces(folder / "documents.parquet", report)
    for name, counts in manifest["streams"].items():
        read = Counter[str]()
        for entry in read_index(folder / name, report.problems):
            report.problems += _shard_problems(folder / name, entry, manifest, read)
        report.samples += read["samples"]
        report.tokens += read["tokens"]
        totals = [(folder / name / "index.json", key, read[key]) for key in ("samples", "tokens", "padding")]
        if pieces is not None:
            totals.append((folder / "documents.parquet", "tokens", pieces[name]))
        report.problems += [
            f"{path}: {total} {key} in `{name}`, manifest.json counts {counts[key]}"
            for path, key, total in totals
            if total != counts[key]
        ]
    return report


def read_index(stream: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Shard entries of a stream's index.json, none if it is unusable; why is added to `problems`."""
    path = stream / "index.json"
    try:
        entries: list[dict[str, Any]] = read_json(path)["shards"]
        if all(isinstance(entry, dict) and entry.get("format") == "mds" for entry in entries):
            return entries
        problems.append(f"{path}: lists shards that are not MDS")
    except FileNotFoundError:
        problems.append(f"{path}: missing")
    except (PretrainError, KeyError, TypeError) as error:
        problems.append(f"{path}: not an MDS index: {error}")
    return []


def _file_problem(path: Path, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{path}: {path.stat().st_size} bytes, manifest.json lists {entry['bytes']}"
    if (digest := hash_file(path)) != entry["xxh3"]:
        return f"{path}: corrupted: its xxh3 is {digest}, manifest.json lists {entry['xxh3']}"
    return None


def _tokenizer_problems(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest["tokenizer_sha256"]:
        yield f"{path}: not the tokenizer of these shards (its SHA-256 differs from manifest.json's)"
    try:
        size = Encoder(path).vocab_size
        if size != manifest["vocab_size"]:
            yield f"{path}: a vocabulary of {size}, the shards were made with {manifest['vocab_size']}"
    except PipelineError as error:
        yield str(error)


def _count_pieces(path: Path, report: Report) -> Counter[str] | None:
    """Tokens by stream in documents.parquet; None, and a problem reported, if it cannot be read."""
    counts: Counter[str] = Counter()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["split", "stream", "tokens"]):
                rows = pa.Table.from_batches([batch]).group_by(["split", "stream"]).aggregate([("tokens", "sum")])
                for row in rows.to_pylist():
                    counts[f"{row['split']}/{row['stream']}"] += row["tokens_sum"]
    except (pa.ArrowException, OSError) as error:
        report.problems.append(f"{path}: cannot be read: {error}")
        return None
    return counts


def _shard_problems(stream: Path, entry: dict[str, Any], manifest: dict[str, Any], read: Counter[str]) -> Iterator[str]:
    """Decode every sample of a shard, and add its counts to `read`."""
    path = stream / "index.json"  # until the shard's name is read from the entry
    try:
        data = entry.get("zip_data") or entry["raw_data"]
        path = stream / data["basename"]
        if not path.is_file():
            yield f"{path}: missing, but index.json lists it"
            return
        content = path.read_bytes()
        for algorithm, expected in data["hashes"].items():
            if digest(algorithm, content) != expected:
                yield f"{path}: corrupted: its {algorithm} differs from index.json's"
                return
        shard = Shard(stream, entry)
        for number in range(len(shard)):
            if problem := _sample_problem(shard[number], manifest, read):
                yield f"{path}: sample {number}: {problem}"
                return
    except BROKEN as error:
        yield f"{path}: cannot be decoded: {error!r}"


def _sample_problem(sample: dict[str, Any], manifest: dict[str, Any], read: Counter[str]) -> str | None:
    tokens, lengths, ids = sample["tokens"], sample["doc_lengths"], sample["doc_ids"]
    size, real = manifest["sequence_length"] + 1, int(lengths.sum())
    if tokens.shape != (size,):
        return f"{tokens.shape[0]} tokens, expected sequence_length + 1 = {size}"
    if int(tokens.max()) >= manifest["vocab_size"]:
        return f"token {int(tokens.max())} is outside the vocabulary of {manifest['vocab_size']}"
    if ids.shape != (len(lengths), 16) or not 0 < real <= size:
        return f"{len(lengths)} pieces of {real} tokens and {len(ids)} ids do not fit {size} tokens"
    if not np.all(tokens[real:] == manifest["eos_id"]):
        return f"its padding is not the end token {manifest['eos_id']}"
    read.update({"samples": 1, "tokens": real, "padding": size - real})
    return None


@dataclass(frozen=True)
class Part:
    """A document's piece in a sample. whole: whether the piece is the entire document."""

    id: str
    url: str | None
    source: str
    language: str
    offset: int
    tokens: int
    whole: bool
    text: str


def show(folder: Path, stream: str | None, number: int) -> tuple[str, list[Part], int]:
    """(stream, pieces of its sample `number` in order, tokens of padding). Default: the first training stream.

    Raises PipelineError if there is no such stream or sample, or a shard cannot be read.
    """
    manifest = open_manifest(folder)
    names = sorted(manifest["streams"])
    name = stream or next((name for name in names if name.startswith("train/")), names[0])
    if name not in names:
        raise PipelineError(f"{folder}: no stream `{name}`; its streams are {', '.join(names)}")
    count = manifest["streams"][name]["samples"]
    if not 0 <= number < count:
        raise PipelineError(f"{folder}: `{name}` has samples 0 to {count - 1}, got {number}")
    tokens, lengths = _sample(folder / name, number)
    rows = _rows(folder / "documents.parquet", name, number)
    tokenizer = load(folder / "tokenizer.json")
    parts, at = [], 0
    for row, length in zip(rows, lengths, strict=True):
        text = tokenizer.decode(tokens[at : at + length], skip_special_tokens=False)
        parts.append(Part(**row, text=text))
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
    """The fields of `Part`, but the text, for the pieces of one sample by offset."""
    split, stream = name.split("/", 1)
    wanted = [("split", "=", split), ("stream", "=", stream)]
    rows = pq.read_table(path, filters=[*wanted, ("sample", "=", number)]).sort_by("offset").to_pylist()
    pieces = pq.read_table(path, columns=["id", "copy"], filters=[*wanted, ("id", "in", [row["id"] for row in rows])])
    copies = list(zip(pieces["id"].to_pylist(), pieces["copy"].to_pylist(), strict=True))
    fields = ("id", "url", "source", "language", "offset", "tokens")
    return [
        {name: row[name] for name in fields} | {"whole": copies.count((row["id"], row["copy"])) == 1} for row in rows
    ]
