"""A shards folder (docs/format.md), or any folder of MDS data sets with a `tokens` column.

A manifest.json says vocabulary, sequence length, streams and their weights, and the hash of every file; all are
checked. Without one, each index.json below the folder is a stream; those under a folder called val, validation, valid,
eval or test are held out. The vocabulary then comes from a tokenizer.json in the folder, or else from a pass over all
tokens.

`Shards.read` turns sample numbers into arrays with targets and documents, and refuses tokens outside the vocabulary
and samples of the wrong length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from tokenizers import Tokenizer
from torch import Tensor

from common.errors import TrainerError
from common.files import read_json, sha256
from trainer.cache import Cache, Needed, Prefetcher, Remote
from trainer.dataset import AGAIN, Array, MdsDataset, hash_error, read_index
from trainer.loss import IGNORE
from trainer.sampler import Phase, Sampler

FORMAT = 1
HELD_OUT = {"val", "validation", "valid", "eval", "test"}
CHECKED_AT_ONCE = ("index.json", "tokenizer.json", "token_bytes.npy")


@dataclass(frozen=True)
class Stream:
    """One data set of one source or language; `weight` multiplies its share by tokens in training."""

    name: str
    data: MdsDataset
    weight: float = 1.0


@dataclass(frozen=True)
class Samples:
    """`n` packed sequences: tokens and targets (n, length) int64, documents (n, length) int32 or None.

    Targets are -100 where there is nothing to predict; documents number each sequence's documents from 0.
    """

    tokens: Array
    targets: Array
    documents: Array | None

    def __getitem__(self, rows: slice) -> Samples:
        return Samples(self.tokens[rows], self.targets[rows], None if self.documents is None else self.documents[rows])

    def tensors(self, document_mask: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens, targets and (where wanted and known) documents, in main memory."""
        documents = self.documents if document_mask else None
        tokens, targets = torch.from_numpy(self.tokens), torch.from_numpy(self.targets)
        return tokens, targets, None if documents is None else torch.from_numpy(documents)


@dataclass(frozen=True)
class Shards:
    """An opened shards folder. `sequence_length` is the number of inputs per sample, one less than is stored."""

    folder: Path
    fingerprint: str
    sequence_length: int
    vocab_size: int
    eos_id: int | None
    tokenizer: Path | None
    tokenizer_sha256: str | None
    token_bytes: Array | None
    train: tuple[Stream, ...]
    validation: tuple[Stream, ...]
    mixture: tuple[tuple[float, Mapping[str, float]], ...]  # (start as a share of the run's steps, weight by stream)
    cache: Cache
    remote: bool

    @property
    def has_documents(self) -> bool:
        """Whether every stream lists where its documents end."""
        return all("doc_lengths" in stream.data.columns for stream in self.train + self.validation)

    def phases(self, steps: int) -> list[Phase]:
        """The mixture of a run of `steps` steps; each phase starts at its share of them, rounded to a step."""
        weights = {round(start * steps): weights for start, weights in self.mixture}  # of equal starts the last wins
        return [Phase(start, [here[stream.name] for stream in self.train]) for start, here in weights.items()]

    def prefetcher(self, sampler: Sampler) -> Prefetcher:
        """Prefetcher for the shards of upcoming steps."""

        def needed(stream: int, shard: int) -> Needed:
            data = self.train[stream].data
            return Needed((stream, shard), data.shard_bytes(shard), partial(data.open, shard))

        def shards(step: int) -> list[Needed]:
            ids = sampler.batch(step).tolist()
            return [
                needed(*key) for key in sorted({(stream, self.train[stream].data.shard_of(i)) for stream, i in ids})
            ]

        return Prefetcher(self.cache, shards)

    def read(self, streams: tuple[Stream, ...], ids: Array) -> Samples:
        """Samples by (stream, sample) number, `ids` (n, 2) int64, in that order.

        Raises TrainerError where a sample does not fit the sequence length or the vocabulary.
        """
        length = self.sequence_length
        tokens = np.zeros((len(ids), length + 1), np.int64)
        counts = np.zeros(len(ids), np.int64)
        documents = np.zeros((len(ids), length), np.int32)
        for row, (stream, index) in enumerate(ids.tolist()):
            sample = streams[stream].data.sample(index)
            row_tokens, lengths = sample_tokens(sample), sample.get("doc_lengths")
            if len(row_tokens) > length + 1:
                raise TrainerError(
                    f"{streams[stream].data.folder}: sample {index} has {len(row_tokens)} tokens, expected at most "
                    f"{length + 1}; pack the data set into sequences of one length"
                )
            tokens[row, : len(row_tokens)] = row_tokens
            counts[row] = len(row_tokens) if lengths is None else int(lengths.sum())
            if lengths is not None:
                owner = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[:length]
                documents[row, : len(owner)] = owner
                documents[row, len(owner) :] = len(lengths)
        self._check_vocabulary(streams, ids, tokens)
        targets = np.where(np.arange(1, length + 1) < counts[:, None], tokens[:, 1:], IGNORE)
        return Samples(tokens[:, :-1], targets, documents if self.has_documents else None)

    def _check_vocabulary(self, streams: tuple[Stream, ...], ids: Array, tokens: Array) -> None:
        wrong = (tokens >= self.vocab_size) | (tokens < 0)
        if wrong.any():
            row = int(wrong.any(axis=1).argmax())
            stream, index = ids[row].tolist()
            raise TrainerError(
                f"{streams[stream].data.folder}: sample {index} holds token {tokens[row][wrong[row]][0]}, outside "
                f"the vocabulary of {self.vocab_size}; shards and tokenizer.json do not belong together"
            )


def sample_tokens(sample: Mapping[str, Any]) -> Array:
    """A sample's `tokens` as a flat integer array; raw `bytes` are int64, as LLM Foundry writes them."""
    tokens = sample["tokens"]
    if isinstance(tokens, bytes):
        if len(tokens) % 8:
            raise TrainerError(f"a `tokens` value of type bytes has {len(tokens)} bytes; int64 ids were expected")
        return np.frombuffer(tokens, np.int64)
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise TrainerError(
            f"a `tokens` value is a {type(tokens).__name__}; a one-dimensional integer array was expected"
            " (MDS encoding ndarray:uint16 or ndarray:uint32)"
        )
    return tokens


def open_shards(location: Path | str, cached: Path, limit: int = 32 * 10**9) -> Shards:
    """Open a shards folder, or a remote one by its address; fetched and unpacked shards are kept under `cached`.

    limit: most bytes of shards kept there at a time. Raises TrainerError where the folder is missing, unfinished,
    not MDS, of another format or empty, or where a file differs from the manifest.
    """
    cache = Cache(cached, limit)
    if "://" in str(location):
        return _open_remote(Remote(str(location), cached / "remote"), cache)
    folder = Path(location)
    if not folder.is_dir():
        raise TrainerError(f"{folder} does not exist or is not a folder; expected a folder of MDS shards")
    if (folder / "manifest.json").is_file():
        return _open_manifest(folder, cache)
    if (folder / "token_bytes.npy").exists() or (folder / "documents.parquet").exists():
        raise TrainerError(
            f"{folder} has no manifest.json, which is written last: the corpus is unfinished; build it again"
        )
    return _open_plain(folder, cache)


def _open_remote(remote: Remote, cache: Cache) -> Shards:
    """Mirror the small files; shards are fetched when they are read."""
    names = remote.names()
    for name in names:
        if name.endswith(("manifest.json", *CHECKED_AT_ONCE)):
            remote.fetch(name)
    if "manifest.json" in names:
        return _open_manifest(remote.mirror, cache, remote)
    return _open_plain(remote.mirror, cache, remote)


def _open_manifest(folder: Path, cache: Cache, remote: Remote | None = None) -> Shards:
    path = folder / "manifest.json"
    manifest = read_json(path)
    try:
        if manifest["format"] != FORMAT:
            raise TrainerError(f"{path}: format {manifest['format']!r}, this version reads {FORMAT}")
        files = {name: (int(entry["bytes"]), str(entry["xxh3"])) for name, entry in manifest["files"].items()}
        known = {key: int(manifest[key]) for key in ("sequence_length", "vocab_size", "eos_id")}
        listed = {name: (int(entry["samples"]), float(entry["weight"])) for name, entry in manifest["streams"].items()}
        tokenizer_sha256 = str(manifest["tokenizer_sha256"])
        weights = {name: weight for name, (_, weight) in listed.items() if name.startswith("train/")}
        mixture = tuple(
            (float(phase["start"]), {name.removeprefix("train/"): float(phase["weights"][name]) for name in weights})
            for phase in manifest.get("phases", [{"start": 0.0, "weights": weights}])
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainerError(f"{path} is not a shards manifest (docs/format.md): {error!r}") from None
    for name, (size, expected) in files.items():
        if remote is not None and not name.endswith(CHECKED_AT_ONCE):
            continue
        actual = (folder / name).stat().st_size if (folder / name).is_file() else None
        if actual != size:
            state = "is missing" if actual is None else f"has {actual} bytes"
            raise TrainerError(f"{folder / name} {state}, but the manifest lists {size} bytes; {AGAIN}")
        if name.endswith(CHECKED_AT_ONCE) and (problem := hash_error(folder / name, expected)) is not None:
            raise problem
    streams: dict[str, list[Stream]] = {"train": [], "validation": []}
    for full_name, (samples, weight) in listed.items():
        split, _, name = full_name.partition("/")
        if split not in streams or not name:
            raise TrainerError(f"{path}: stream `{full_name}` is in no known split (train, validation)")
        if not samples:
            continue
        prefix = f"{full_name}/"
        hashes = {file.removeprefix(prefix): digest for file, (_, digest) in files.items() if file.startswith(prefix)}
        data = MdsDataset(folder / full_name, cache, name=full_name, hashes=hashes, remote=remote)
        streams[split].append(Stream(name, data, weight))
    if not streams["train"]:
        raise TrainerError(f"{path} lists no training samples: the corpus is empty; `pretrain report` shows why")
    return Shards(
        folder=folder,
        fingerprint=xxhash.xxh3_128_hexdigest(path.read_bytes()),
        **known,
        tokenizer=folder / "tokenizer.json",
        tokenizer_sha256=tokenizer_sha256,
        token_bytes=np.load(folder / "token_bytes.npy", allow_pickle=False),
        train=tuple(streams["train"]),
        validation=tuple(streams["validation"]),
        mixture=mixture,
        cache=cache,
        remote=remote is not None,
    )


def _open_plain(folder: Path, cache: Cache, remote: Remote | None = None) -> Shards:
    paths = sorted(path.parent.relative_to(folder) for path in folder.rglob("index.json"))
    paths = [path for path in paths if not any(other in path.parents for other in paths)]  # a bucket's own index
    if not paths:
        raise TrainerError(f"{folder} has neither manifest.json nor an index.json below it: not a folder of MDS shards")
    streams: dict[bool, list[Stream]] = {True: [], False: []}
    digest = xxhash.xxh3_128()
    for path in paths:
        data = MdsDataset(folder / path, cache, name=path.as_posix(), remote=remote)
        name = folder.name if path == Path() else path.as_posix()
        streams[bool(HELD_OUT & set(path.parts))].append(Stream(name, data))
        digest.update(json.dumps([path.as_posix(), read_index(folder / path)]).encode())
    train, validation = tuple(streams[False]), tuple(streams[True])
    if not train:
        raise TrainerError(f"{folder} has held-out data sets only ({', '.join(s.name for s in validation)})")
    tokenizer = folder / "tokenizer.json" if (folder / "tokenizer.json").is_file() else None
    return Shards(
        folder=folder,
        fingerprint=digest.hexdigest(),
        sequence_length=len(sample_tokens(train[0].data.sample(0))) - 1,
        vocab_size=_vocab_size(tokenizer, train + validation),
        eos_id=None,
        tokenizer=tokenizer,
        tokenizer_sha256=sha256(tokenizer) if tokenizer else None,
        token_bytes=None,
        train=train,
        validation=validation,
        mixture=((0.0, {stream.name: 1.0 for stream in train}),),
        cache=cache,
        remote=remote is not None,
    )


def _vocab_size(tokenizer: Path | None, streams: tuple[Stream, ...]) -> int:
    """The tokenizer's size, or without one the largest token of all, plus one."""
    if tokenizer is not None:
        return int(Tokenizer.from_file(str(tokenizer)).get_vocab_size())
    largest = 0
    for stream in streams:
        for index in range(len(stream.data)):
            largest = max(largest, int(sample_tokens(stream.data.sample(index)).max(initial=0)))
    if largest >= 1 << 31:
        raise TrainerError(
            f"the largest token is {largest}: `tokens` of type bytes must hold int64 ids; write them as an ndarray"
        )
    return largest + 1
