"""Passes 1 and 2 of stage `tokenize`: the tokenizer, and documents as token ids, sorted into buckets.

A document's split, stream and bucket follow from hashes of its id, so that they do not depend on tasks. The
validation split is drawn by duplicate cluster: no near-duplicate of a held-out document is trained on. A bucket is a
range of the shuffle's keys that holds about `bucket_bytes` of text, so shuffling it in memory shuffles the whole
stream however large that is. Both passes hold one batch of documents and `_BUFFER` bytes of tokens in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import PipelineError
from common.files import atomic_file, hash_file
from pipeline.config import TokenizeConfig, TokenizerConfig
from pipeline.documents import ParquetFile, read_batches, read_rows, read_schema, text_bytes
from pipeline.stage import Build
from pipeline.task import CorpusStep, Counts, Heartbeat, TaskReport, add_counts, count_documents
from pipeline.tokenize.tokenizer import Encoder, load, train

ENCODED = pa.schema(
    [
        ("key", pa.uint64()),  # place in the global shuffle
        ("id", pa.string()),
        ("copy", pa.int32()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("bytes", pa.int64()),
        ("tokens", pa.binary()),
    ]
)
Item = TypeVar("Item")
UNKNOWN = "und"  # language of documents that no stage identified
_BUFFER = 64_000_000
_TASK_BYTES = 16_000_000  # of parquet files encoded by one task
_COLUMNS = ["id", "url", "source", "text", "language", "cluster", "cluster_size"]


def draw(seed: int, purpose: str, name: str) -> int:
    """A uniform 64-bit number that is a function of its arguments alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{purpose}\0{name}".encode(), digest_size=8).digest(), "little")


def copies(cluster_size: int | None, table: dict[int, int] | None) -> int:
    """How often a document stands in the training split, by the size of its duplicate cluster."""
    size = cluster_size or 1
    return next((table[least] for least in sorted(table, reverse=True) if size >= least), 1) if table else 1


def stream_name(source: str, language: str, stream_by: str) -> str:
    """Name of the stream that a document belongs to."""
    return {"source": source, "language": language, "source-language": f"{source}-{language}"}[stream_by]


def measure(inputs: Sequence[Path], settings: TokenizeConfig) -> tuple[Counter[str], Counter[str]]:
    """Bytes of text by stream (copies counted) and by language. Reads four columns once."""
    streams: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    for path in inputs:
        for table in read_batches(path, _present(path, ["source", "text", "language", "cluster_size"])):
            sizes = pc.binary_length(table["text"]).to_pylist()
            clusters = _column(table, "cluster_size", 1)
            keys = zip(sizes, table["source"].to_pylist(), _column(table, "language", UNKNOWN), clusters, strict=True)
            for size, source, language, cluster_size in keys:
                languages[language] += size
                stream = stream_name(source, language, settings.stream_by)
                streams[stream] += size * copies(cluster_size, settings.rehydrate)
    return streams, languages


def sample_rates(languages: Counter[str], settings: TokenizerConfig) -> dict[str, float]:
    """Share of each language's documents that the tokenizer is trained on.

    Shares of the sample go by size times the recipe's factor; what a language is too small to give goes to others.
    """
    rates: dict[str, float] = {}
    left = {name: settings.languages.get(name, 1.0) for name, size in languages.items() if size}
    room = float(settings.sample_bytes)
    while left:
        scale = room / max(sum(languages[name] * factor for name, factor in left.items()), 1e-9)
        whole = sorted(name for name, factor in left.items() if factor * scale >= 1)
        if not whole:
            return rates | {name: factor * scale for name, factor in left.items()}
        for name in whole:
            rates[name] = 1.0
            room -= languages[name]
            del left[name]
    return rates


def special_ids(settings: TokenizeConfig, encoder: Encoder) -> tuple[int | None, int]:
    """Ids of the tokens before (or None) and after each document. Raises PipelineError where there is no such token."""
    ids = []
    own_end = settings.tokenizer.special_tokens[0] if settings.tokenizer.path is None else None
    for field, name in (("bos", settings.bos), ("eos", settings.eos or own_end)):
        found = encoder.tokenizer.token_to_id(name) if name is not None else None
        if name is not None and found is None:
            raise PipelineError(f"tokenize.{field}: the tokenizer has no token {name!r}")
        ids.append(found)
    return ids[0], ids[1] if ids[1] is not None else encoder.eos_id


class TokenizerStep(CorpusStep):
    """Trains the tokenizer on a sample of the documents drawn by their ids, or copies the given one."""

    def __init__(self, build: Build, languages: Counter[str]) -> None:
        super().__init__("tokenizer", build.workdir, 1)
        self.inputs, self.seed, self.base = build.inputs, build.seed, build.base
        self.whole: TokenizeConfig = build.settings
        self.settings = self.whole.tokenizer
        self.rates = sample_rates(languages, self.settings)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        settings = self.settings
        if settings.path:
            tokenizer = load(self.base / settings.path)
        else:
            sample = self._sample(heartbeat)
            tokenizer = train(sample, settings.vocab_size, settings.pattern, settings.digits, settings.special_tokens)
        encoder = Encoder(tokenizer)
        special_ids(self.whole, encoder)  # a missing token is an error now, not after hours
        paths = [self.workdir / "tokenizer.json", self.workdir / "token_bytes.npy"]
        with atomic_file(paths[0]) as file:
            file.write(tokenizer.to_str(pretty=False).encode())
        with atomic_file(paths[1]) as file:
            np.save(file, encoder.token_bytes())
        heartbeat.beat(0, 0, 1.0)
        return TaskReport(files=paths)

    def _sample(self, heartbeat: Heartbeat) -> Iterator[str]:
        for number, path in enumerate(self.inputs):
            for table in read_batches(path, _present(path, ["id", "text", "language"])):
                rows = zip(
                    table["id"].to_pylist(), table["text"].to_pylist(), _column(table, "language", UNKNOWN), strict=True
                )
                for name, text, language in rows:
                    if draw(self.seed, "tokenizer", name) < self.rates.get(language, 0.0) * 2**64:
                        yield text
            heartbeat.beat(0, 0, 0.5 * (number + 1) / len(self.inputs))


class EncodeStep(CorpusStep):
    """Encodes the input files, small ones together, and files their documents by (split, stream, bucket)."""

    def __init__(self, build: Build, streams: Counter[str]) -> None:
        self.bundles = bundle([(path, path.stat().st_size) for path in build.inputs], _TASK_BYTES)
        super().__init__("encode", build.workdir, len(self.bundles))
        self.seed = build.seed
        self.settings: TokenizeConfig = build.settings
        self.buckets = {name: max(-(-size // self.settings.bucket_bytes), 1) for name, size in streams.items()}

    def weight(self, rank: int) -> float:
        return float(sum(path.stat().st_size for path in self.bundles[rank]))

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        encoder = encoder_of(self.workdir)
        ends = special_ids(self.settings, encoder)
        inputs = self.bundles[rank]
        total, seen, held = max(sum(map(read_rows, inputs)), 1), 0, 0
        report = TaskReport()
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        files: dict[str, ParquetFile] = {}
        with ExitStack() as stack:
            for table in chain.from_iterable(read_batches(path, _present(path, _COLUMNS)) for path in inputs):
                for group, row in self._encode(encoder, ends, table, report.counts):
                    held += len(row["tokens"])
                    groups[group].append(row)
                seen += table.num_rows
                if held > _BUFFER or seen == total:
                    for group, rows in sorted(groups.items()):
                        if group not in files:
                            path = self.workdir / f".scratch/encoded/{group}/{rank:05d}.parquet"
                            files[group] = stack.enter_context(ParquetFile(path, ENCODED))
                            report.files.append(path)
                        files[group].write(pa.Table.from_pylist(rows, schema=ENCODED))
                    groups.clear()
                    held = 0
                heartbeat.beat(table.num_rows, text_bytes(table), seen / total)
        return report

    def _encode(
        self, encoder: Encoder, ends: tuple[int | None, int], table: pa.Table, counts: Counts
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(group, row of ENCODED) of each document and copy."""
        add_counts(counts, count_documents("in", table))
        add_counts(counts, count_documents("kept", table))
        columns = {name: _column(table, name, None) for name in _COLUMNS}
        sizes = pc.binary_length(table["text"]).to_pylist()
        head = [] if ends[0] is None else [np.array([ends[0]], encoder.dtype)]
        tail = np.array([ends[1]], encoder.dtype)
        for i, ids in enumerate(encoder.encode_batch(columns["text"])):
            name, language, size = columns["id"][i], columns["language"][i] or UNKNOWN, sizes[i]
            add_counts(counts, {"languages": {language: {"documents": 1, "bytes": size, "tokens": len(ids)}}})
            held_out = draw(self.seed, "validation", columns["cluster"][i] or name)
            split = "validation" if held_out < self.settings.validation * 2**64 else "train"
            stream = stream_name(columns["source"][i], language, self.settings.stream_by)
            times = copies(columns["cluster_size"][i], self.settings.rehydrate) if split == "train" else 1
            tokens = np.concatenate([*head, ids, tail]).tobytes()
            for copy in range(times):
                key = draw(self.seed, "shuffle", name if copy == 0 else f"{name}/{copy}")
                yield (
                    f"{split}/{stream}/{key * self.buckets[stream] >> 64:05d}",
                    {
                        "key": key,
                        "id": name,
                        "copy": copy,
                        "url": columns["url"][i],
                        "source": columns["source"][i],
                        "language": language,
                        "bytes": size,
                        "tokens": tokens,
                    },
                )


def encoder_of(workdir: Path) -> Encoder:
    """The encoder of a stage's own tokenizer.json, made once for all tasks of a process."""
    path = workdir / "tokenizer.json"
    return _encoder(path, hash_file(path))


@lru_cache(maxsize=1)
def _encoder(path: Path, content: str) -> Encoder:
    return Encoder(path)


def bundle(items: Sequence[tuple[Item, int]], size: int) -> list[list[Item]]:
    """Neighbours in bundles of about `size`, by the sizes that stand beside them."""
    bundles: list[list[Item]] = []
    room = 0
    for item, taken in items:
        if room <= 0:
            bundles.append([])
            room = size
        bundles[-1].append(item)
        room -= taken
    return bundles


def list_groups(workdir: Path) -> list[tuple[str, int]]:
    """Every `<split>/<stream>/<bucket>` that has documents, sorted, with the size of its encoded files."""
    root = workdir / ".scratch/encoded"
    sizes: Counter[str] = Counter()
    for path in root.glob("*/*/*/*.parquet"):
        sizes[str(path.parent.relative_to(root))] += path.stat().st_size
    return sorted(sizes.items())


def _present(path: Path, names: list[str]) -> list[str]:
    columns = read_schema(path).names
    return [name for name in names if name in columns]


def _column(table: pa.Table, name: str, default: Any) -> list[Any]:
    """A column's values, `default` where there is none."""
    if name not in table.column_names:
        return [default] * table.num_rows
    return [default if value is None else value for value in table[name].to_pylist()]
