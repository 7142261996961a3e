"""Passes `measure` to `encode` of stage `tokenize`: documents to token ids, sorted into buckets.

`measure` adds up bytes of text by stream and language, from which the tokenizer's sample and the number of buckets
follow; `count` counts the pieces of that sample, `tokenizer` adds the counts up and learns from them. Split, stream and
bucket of a document follow from hashes of its id, so that they do not depend on tasks. The validation split is drawn by
duplicate cluster: no near-duplicate of a held-out document is trained on. A bucket is a range of the shuffle's keys
that holds about `bucket_bytes` of text, so shuffling buckets in memory shuffles the stream, however large it is. A pass
holds one batch of documents in memory, `count` and `tokenizer` the sample's different pieces, `encode` `_BUFFER` bytes
of tokens more.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import PipelineError
from common.files import atomic_file, hash_file
from pipeline.config import TokenizeConfig, TokenizerConfig
from pipeline.documents import Counts, add_counts, count_documents, parquet_file, sizes_known, text_sizes
from pipeline.kernels.bpe.learn import Strings, add_up, count_pieces
from pipeline.stage import Build
from pipeline.task import FilesPass, Pass, Task, TaskReport
from pipeline.tokenize.tokenizer import Encoder, learn, load, pattern_of

ENCODED = pa.schema(
    [
        ("key", pa.uint64()),  # orders the global shuffle
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
_TASK_BYTES = 4_000_000, 16_000_000  # of parquet files encoded by one task, at least and at most
_COLUMNS = ["id", "url", "source", "text", "language", "cluster", "cluster_size"]


def draw(seed: int, purpose: str, name: str) -> int:
    """A uniform 64-bit number that is a function of its arguments alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{purpose}\0{name}".encode(), digest_size=8).digest(), "little")


def copies(cluster_size: int | None, table: dict[int, int] | None) -> int:
    """Number of copies of a document in the training split, by the size of its duplicate cluster."""
    size = cluster_size or 1
    return next((table[least] for least in sorted(table, reverse=True) if size >= least), 1) if table else 1


def stream_name(source: str, language: str, stream_by: str) -> str:
    return {"source": source, "language": language, "source-language": f"{source}-{language}"}[stream_by]


def sample_rates(languages: Mapping[str, int], settings: TokenizerConfig) -> dict[str, float]:
    """Share of each language's documents that the tokenizer is trained on.

    A language's part of the sample is proportional to its size times the recipe's factor; what a small language cannot
    fill is divided among the others.
    """
    rates: dict[str, float] = {}
    left = {name: settings.languages.get(name, 1.0) for name, size in languages.items() if size}
    room = float(settings.sample_bytes)
    while left:
        scale = room / max(sum(languages[name] * factor for name, factor in left.items()), 1e-9)
        full = sorted(name for name, factor in left.items() if factor * scale >= 1)
        if not full:
            return rates | {name: factor * scale for name, factor in left.items()}
        for name in full:
            rates[name] = 1.0
            room -= languages[name]
            del left[name]
    return rates


def special_ids(settings: TokenizeConfig, encoder: Encoder) -> tuple[int | None, int]:
    """Ids of the tokens before (or None) and after each document. Raises PipelineError where there is no such token."""
    ids = []
    own_end = settings.tokenizer.special_tokens[0] if settings.tokenizer.path is None else None
    for field, name in (("bos", settings.bos), ("eos", settings.eos or own_end)):
        token = encoder.tokenizer.token_to_id(name) if name is not None else None
        if name is not None and token is None:
            raise PipelineError(f"tokenize.{field}: the tokenizer has no token {name!r}")
        ids.append(token)
    return ids[0], ids[1] if ids[1] is not None else encoder.eos_id


def _bundles(build: Build[TokenizeConfig]) -> list[list[Path]]:
    """Input files of each task, small ones together."""
    sizes = [path.stat().st_size for path in build.inputs]
    least, most = _TASK_BYTES
    return bundle(list(zip(build.inputs, sizes, strict=True)), min(most, max(least, sum(sizes) // 64)))


class MeasurePass(FilesPass):
    """Notes {streams, languages}: bytes of text by stream (copies counted) and by language."""

    def __init__(self, build: Build[TokenizeConfig]) -> None:
        super().__init__("measure", build.workdir, _bundles(build))
        self.settings = build.settings

    def process(self, rank: int, task: Task) -> TaskReport:
        streams: Counter[str] = Counter()
        languages: Counter[str] = Counter()
        size_from = "bytes" if all(map(sizes_known, self.files[rank])) else "text"
        for table in self.read(rank, task, ["source", size_from, "language", "cluster_size"]):
            sizes = text_sizes(table).to_pylist()
            clusters = _column(table, "cluster_size", 1)
            keys = zip(sizes, table["source"].to_pylist(), _column(table, "language", UNKNOWN), clusters, strict=True)
            for size, source, language, cluster_size in keys:
                languages[language] += size
                stream = stream_name(source, language, self.settings.stream_by)
                streams[stream] += size * copies(cluster_size, self.settings.rehydrate)
        return TaskReport(notes={"streams": streams, "languages": languages})


class CountPass(FilesPass):
    """Counts the pieces of a sample of the documents, drawn by their ids, for the tokenizer's training."""

    def __init__(self, build: Build[TokenizeConfig], languages: Mapping[str, int]) -> None:
        super().__init__("count", build.workdir, _bundles(build))
        self.settings, self.seed = build.settings.tokenizer, build.seed
        self.rates = sample_rates(languages, self.settings)

    def process(self, rank: int, task: Task) -> TaskReport:
        pieces = count_pieces(self._sample(rank, task), pattern_of(self.settings.pattern, self.settings.digits))
        path = _counts_file(self.workdir, rank)
        with atomic_file(path, durable=False) as file:
            np.savez(file, data=pieces.data, bounds=pieces.bounds, counts=pieces.counts)
        return TaskReport(files=[path])

    def _sample(self, rank: int, task: Task) -> Iterator[str]:
        for table in self.read(rank, task, ["id", "text", "language"]):
            columns = [table["id"].to_pylist(), table["text"].to_pylist(), _column(table, "language", UNKNOWN)]
            for name, text, language in zip(*columns, strict=True):
                if draw(self.seed, "tokenizer", name) < self.rates.get(language, 0.0) * 2**64:
                    yield text


class TokenizerPass(Pass):
    """Trains the tokenizer on what `CountPass` counted in so many tasks, or copies the given one."""

    def __init__(self, build: Build[TokenizeConfig], counted: int) -> None:
        super().__init__("tokenizer", build.workdir, 1)
        self.settings, self.base = build.settings, build.base
        self.counts = [_counts_file(build.workdir, rank) for rank in range(counted)]

    def reads(self, rank: int) -> Sequence[Path]:
        return self.counts

    def process(self, rank: int, task: Task) -> TaskReport:
        settings = self.settings.tokenizer
        if settings.path:
            tokenizer = load(self.base / settings.path)
        else:
            pieces = add_up(map(_read_counts, self.counts))
            cut = pattern_of(settings.pattern, settings.digits)
            tokenizer = learn(pieces, settings.vocab_size, cut, settings.special_tokens)
        encoder = Encoder(tokenizer)
        special_ids(self.settings, encoder)  # a missing token is an error now, not after hours
        paths = [self.workdir / "tokenizer.json", self.workdir / "token_bytes.npy"]
        with atomic_file(paths[0]) as file:
            file.write(tokenizer.to_str(pretty=False).encode())
        with atomic_file(paths[1]) as file:
            np.save(file, encoder.token_bytes())
        task.beat(0, 0, 1.0)
        return TaskReport(files=paths)


class EncodePass(FilesPass):
    """Encodes documents and files them by (split, stream, bucket)."""

    def __init__(self, build: Build[TokenizeConfig], streams: Mapping[str, int]) -> None:
        super().__init__("encode", build.workdir, _bundles(build))
        self.settings, self.seed = build.settings, build.seed
        self.buckets = {name: max(-(-size // self.settings.bucket_bytes), 1) for name, size in streams.items()}

    def reads(self, rank: int) -> Sequence[Path]:
        return [*self.files[rank], self.workdir / "tokenizer.json"]

    def process(self, rank: int, task: Task) -> TaskReport:
        encoder = encoder_of(self.workdir)
        ends = special_ids(self.settings, encoder)
        report = TaskReport()
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        files: dict[str, Callable[[pa.Table], None]] = {}
        held = 0
        with ExitStack() as stack:

            def write() -> None:
                for group, rows in sorted(groups.items()):
                    if group not in files:
                        path = self.workdir / f".scratch/encoded/{group}/{rank:05d}.parquet"
                        files[group] = stack.enter_context(parquet_file(path, ENCODED))
                        report.files.append(path)
                    files[group](pa.Table.from_pylist(rows, schema=ENCODED))
                groups.clear()

            for table in self.read(rank, task, _COLUMNS):
                for group, row in self._encode(encoder, ends, table, report.counts):
                    held += len(row["tokens"])
                    groups[group].append(row)
                if held > _BUFFER:
                    write()
                    held = 0
            write()
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
                row = {"key": key, "id": name, "copy": copy, "language": language, "bytes": size, "tokens": tokens}
                row |= {field: columns[field][i] for field in ("url", "source")}
                yield f"{split}/{stream}/{key * self.buckets[stream] >> 64:05d}", row


def _counts_file(workdir: Path, rank: int) -> Path:
    return workdir / f".scratch/counts/{rank:05d}.npz"


def _read_counts(path: Path) -> Strings:
    with np.load(path) as arrays:
        return Strings(np.empty(0, np.int64), **arrays)


def encoder_of(workdir: Path) -> Encoder:
    """The encoder of a stage's tokenizer.json, built once for all tasks of a process."""
    path = workdir / "tokenizer.json"
    return _encoder(path, hash_file(path))


@lru_cache(maxsize=1)
def _encoder(path: Path, content: str) -> Encoder:
    return Encoder(path)


def bundle(items: Sequence[tuple[Item, int]], size: int) -> list[list[Item]]:
    """Consecutive items in bundles of about `size`; each item comes with its size."""
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


def _column(table: pa.Table, name: str, default: Any) -> list[Any]:
    """A column's values, `default` where there is none."""
    if name not in table.column_names:
        return [default] * table.num_rows
    return [default if value is None else value for value in table[name].to_pylist()]
