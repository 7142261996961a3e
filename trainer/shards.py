"""A shards folder (docs/format.md), or any folder of MDS data sets with a `tokens` column.

A manifest.json says vocabulary, sequence length, streams and their weights, and the hash of every file; all are
checked. Without one, each index.json below the folder is a stream (links are followed), held out if its path has a word
such as `val` (`split_of`) or `data.validation` names it. The vocabulary then comes from a tokenizer.json in the folder,
or else from a pass over all tokens; the sequence length is the longest training sample's, less one. Lengths and ids of
SURVEY samples are checked at once, those of the others when they are read.

`Shards.read` turns sample numbers into arrays with targets and documents, and refuses tokens outside the vocabulary
and samples of the wrong length.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from common.errors import TrainerError
from common.files import read_json, sha256
from common.runfolder import Row
from trainer.cache import Cache, Remote
from trainer.config import DataConfig
from trainer.dataset import AGAIN, Array, MdsDataset, hash_error, read_index
from trainer.loss import IGNORE
from trainer.sampler import Phase
from trainer.vocabulary import BESIDE, Special, find, load_codec, vocabulary_size

FORMAT = 1
SURVEY = 100_000  # samples looked at before the first step, in all streams together: some seconds
SPREAD, PIECE = 16, 4096  # pieces and bytes of each that the fingerprint takes of a shard without a hash
_AFFIXES = "train|pre|x|my|sub|xsmall|small|large|big|full|mini|tiny|sets?|splits?|data|parts?|folds?|shards?|texts?|s"
_HELD_OUT = re.compile(
    rf"(?:{_AFFIXES})*(?:val|valid|validate|validation|dev|devel|test|testing|eval|evaluation|holdout)(?:{_AFFIXES})*"
)
CHECKED_AT_ONCE = ("index.json", "tokenizer.json", "token_bytes.npy")


@dataclass(frozen=True)
class Stream:
    """One data set of one source or language; `weight` multiplies its share by tokens in training.

    tokens: of all samples; of a plain folder too large for a survey, an estimate.
    """

    name: str
    data: MdsDataset
    weight: float = 1.0
    tokens: int = 0


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


@dataclass(frozen=True)
class Shards:
    """An opened shards folder. `sequence_length` is the number of inputs per sample, one less than is stored."""

    folder: Path
    fingerprint: str
    sequence_length: int
    vocab_size: int
    special: Special
    tokenizer: Path | None
    tokenizer_sha256: str | None
    token_bytes: Array | None
    train: tuple[Stream, ...]
    validation: tuple[Stream, ...]
    mixture: tuple[tuple[float, Mapping[str, float]], ...]  # (start as a share of the run's steps, weight by stream)
    cache: Cache
    remote: bool
    warnings: tuple[str, ...] = ()

    @property
    def has_documents(self) -> bool:
        """Whether every stream lists where its documents end."""
        return all("doc_lengths" in stream.data.columns for stream in self.train + self.validation)

    def phases(self, steps: int) -> list[Phase]:
        """The mixture of a run of `steps` steps; each phase starts at its share of them, rounded to a step."""
        weights = {round(start * steps): weights for start, weights in self.mixture}  # of equal starts the last wins
        return [Phase(start, [here[stream.name] for stream in self.train]) for start, here in weights.items()]

    def documents(self, columns: list[str], column: str, values: Collection[str]) -> list[Row]:
        """Rows of documents.parquet whose `column` is among `values`; none without that table, or without pyarrow."""
        path = self.folder / "documents.parquet"
        if not values or not path.is_file() or find_spec("pyarrow") is None:  # the trainer alone does without it
            return []
        from pyarrow import parquet

        rows: list[Row] = parquet.read_table(path, columns=columns, filters=[(column, "in", values)]).to_pylist()
        return rows

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
                raise _too_long(streams[stream], index, len(row_tokens), length)
            tokens[row, : len(row_tokens)] = row_tokens
            counts[row] = len(row_tokens) if lengths is None else int(lengths.sum())
            if lengths is not None:
                owner = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[:length]
                documents[row, : len(owner)] = owner
                documents[row, len(owner) :] = len(lengths)
        wrong = (tokens >= self.vocab_size) | (tokens < 0)
        if wrong.any():
            row = int(wrong.any(axis=1).argmax())
            stream, index = ids[row].tolist()
            raise _unknown_token(streams[stream], index, int(tokens[row][wrong[row]][0]), self.vocab_size)
        targets = np.where(np.arange(1, length + 1) < counts[:, None], tokens[:, 1:], IGNORE)
        return Samples(tokens[:, :-1], targets, documents if self.has_documents else None)


def _too_long(stream: Stream, index: int, count: int, length: int) -> TrainerError:
    return TrainerError(
        f"{stream.data.folder}: sample {index} has {count} tokens, expected at most {length + 1}; "
        f"set `train.data.sequence_length` to at least {count - 1}, or pack the data set into sequences of one length"
    )


def _unknown_token(stream: Stream, index: int, token: int, size: int) -> TrainerError:
    return TrainerError(
        f"{stream.data.folder}: sample {index} holds token {token}, outside the vocabulary of {size}; if it is a "
        f"reserved id, set `train.model.vocab_size` to at least {token + 1}, else shards and tokenizer.json do not "
        "belong together"
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


def open_shards(
    location: Path | str, cached: Path, data: DataConfig | None = None, vocab_size: int | None = None
) -> Shards:
    """Open a shards folder, or a remote one by its address; fetched and unpacked shards are kept under `cached`.

    vocab_size: of the model, where it is larger than the tokenizer's. Raises TrainerError where the folder is missing,
    unfinished, not MDS, of another format or empty, a file differs from the manifest, or samples do not fit.
    """
    data = data or DataConfig()
    cache = Cache(cached, int(data.cache_gb * 1e9))
    remote = Remote(str(location), cached / "remote") if "://" in str(location) else None
    if remote is not None:
        remote.mirror.mkdir(parents=True, exist_ok=True)
        for name in remote.names():  # shards are fetched when they are read
            if name.endswith(("manifest.json", *CHECKED_AT_ONCE)) or name in BESIDE:
                remote.fetch(name)
    folder = Path(location) if remote is None else remote.mirror
    if remote is None and not folder.is_dir():
        raise TrainerError(f"{location} does not exist or is not a folder; expected a folder of MDS shards")
    if (folder / "manifest.json").is_file():
        given = data.model_dump(include={"validation", "sequence_length", "bos", "eos"}, exclude_none=True)
        if given:
            raise TrainerError(f"train.data.{next(iter(given))}: {folder / 'manifest.json'} decides; remove the field")
        return _open_manifest(folder, cache, remote)
    if (folder / "token_bytes.npy").exists() or (folder / "documents.parquet").exists():
        raise TrainerError(
            f"{folder} has no manifest.json, which is written last: the corpus is unfinished; build it again"
        )
    return _open_plain(folder, cache, data, vocab_size, remote)


def open_as_trained(location: Path | str, cached: Path, state: Mapping[str, Any]) -> Shards:
    """Open the shards of a checkpoint (its state.json) with the settings of its training."""
    return open_shards(location, cached, DataConfig(**state.get("data", {})), state.get("model", {}).get("vocab_size"))


def _open_manifest(folder: Path, cache: Cache, remote: Remote | None = None) -> Shards:
    path = folder / "manifest.json"
    manifest = read_json(path)
    try:
        if manifest["format"] != FORMAT:
            raise TrainerError(f"{path}: format {manifest['format']!r}, this version reads {FORMAT}")
        files = {name: (int(entry["bytes"]), str(entry["xxh3"])) for name, entry in manifest["files"].items()}
        length, vocabulary = int(manifest["sequence_length"]), int(manifest["vocab_size"])
        bos = manifest.get("bos_id")
        special = Special(bos, (int(manifest["eos_id"]),), prefix=() if bos is None else (int(bos),))
        listed = {
            name: (int(entry["samples"]), float(entry["weight"]), int(entry.get("tokens", 0)))
            for name, entry in manifest["streams"].items()
        }
        tokenizer_sha256 = str(manifest["tokenizer_sha256"])
        weights = {name: weight for name, (_, weight, _) in listed.items() if name.startswith("train/")}
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
    for full_name, (samples, weight, tokens) in listed.items():
        split, _, name = full_name.partition("/")
        if split not in streams or not name:
            raise TrainerError(f"{path}: stream `{full_name}` is in no known split (train, validation)")
        if not samples:
            continue
        prefix = f"{full_name}/"
        hashes = {file.removeprefix(prefix): digest for file, (_, digest) in files.items() if file.startswith(prefix)}
        data = MdsDataset(folder / full_name, cache, name=full_name, hashes=hashes, remote=remote)
        streams[split].append(Stream(name, data, weight, tokens))
    if not streams["train"]:
        raise TrainerError(f"{path} lists no training samples: the corpus is empty; `pretrain report` shows why")
    return Shards(
        folder=folder,
        fingerprint=xxhash.xxh3_128_hexdigest(path.read_bytes()),
        sequence_length=length,
        vocab_size=vocabulary,
        special=special,
        tokenizer=folder / "tokenizer.json",
        tokenizer_sha256=tokenizer_sha256,
        token_bytes=np.load(folder / "token_bytes.npy", allow_pickle=False),
        train=tuple(streams["train"]),
        validation=tuple(streams["validation"]),
        mixture=mixture,
        cache=cache,
        remote=remote is not None,
    )


def _open_plain(
    folder: Path, cache: Cache, data: DataConfig, vocab_size: int | None, remote: Remote | None = None
) -> Shards:
    paths = data_sets(folder)
    if not paths:
        raise TrainerError(f"{folder} has neither manifest.json nor an index.json below it: not a folder of MDS shards")
    names = {path: folder.name if path == Path() else path.as_posix() for path in paths}
    held = _held_out(names, data.validation)
    sets = {path: MdsDataset(folder / path, cache, name=path.as_posix(), remote=remote) for path in paths}
    both = {(folder / path).resolve() for path in held} & {
        (folder / path).resolve() for path in paths if path not in held
    }
    if both:
        raise TrainerError(f"{folder}: {both.pop()} is both trained on and held out; remove one of the links to it")
    tokenizer = folder / "tokenizer.json" if (folder / "tokenizer.json").is_file() else None
    codec = load_codec(tokenizer) if tokenizer else None
    limit = SURVEY // len(paths) if codec else None  # without a tokenizer, every token tells of the vocabulary
    surveys = {path: _survey(each, limit) for path, each in sets.items()}
    streams = {path: Stream(names[path], each, tokens=surveys[path].estimate) for path, each in sets.items()}
    train = tuple(stream for path, stream in streams.items() if path not in held)
    validation = tuple(stream for path, stream in streams.items() if path in held)
    if not train:
        raise TrainerError(
            f"{folder} has held-out data sets only ({', '.join(stream.name for stream in validation)}); "
            "`train.data.validation: []` trains on them"
        )
    longest = max(surveys[path].longest[0] for path in paths if path not in held)
    length = data.sequence_length or longest - 1
    if length < 1:
        raise TrainerError(f"{folder}: no sample has more than one token; there is nothing to predict")
    size = max(vocabulary_size(codec) if codec else _largest(folder, surveys.values()) + 1, vocab_size or 0)
    for path, survey in surveys.items():
        if survey.longest[0] > length + 1:
            raise _too_long(streams[path], survey.longest[1], survey.longest[0], length)
        for token, index in (survey.largest, survey.smallest):
            if not 0 <= token < size:
                raise _unknown_token(streams[path], index, token, size)
    shortest = min(survey.shortest for survey in surveys.values())
    uneven = f"samples have {shortest} to {longest} tokens; shorter ones are padded to {length + 1}"
    return Shards(
        folder=folder,
        fingerprint=_fingerprint(folder, sets, held, remote),
        sequence_length=length,
        vocab_size=size,
        special=find(tokenizer, codec, bos=data.bos, eos=data.eos) if tokenizer and codec else Special(),
        tokenizer=tokenizer,
        tokenizer_sha256=sha256(tokenizer) if tokenizer else None,
        token_bytes=None,
        train=train,
        validation=validation,
        mixture=((0.0, {stream.name: 1.0 for stream in train}),),
        cache=cache,
        remote=remote is not None,
        warnings=(uneven,) if shortest <= length else (),
    )


def data_sets(folder: Path) -> list[Path]:
    """Folders with an index.json at or below `folder`, relative to it; links are followed, hidden folders are not.

    None is looked for within another: those are its buckets. Raises TrainerError for a link to nothing or to a folder
    above it, and for shards without an index, since a stream must not be left out without a message.
    """
    sets: list[Path] = []
    left: list[tuple[Path, tuple[Path, ...]]] = [(Path(), (folder.resolve(),))]
    while left:
        path, above = left.pop()
        entries = sorted(entry for entry in (folder / path).iterdir() if not entry.name.startswith("."))
        if (folder / path / "index.json").is_file():
            sets.append(path)
            continue
        for entry in entries:
            if entry.is_symlink() and not entry.exists():
                raise TrainerError(
                    f"{entry} is a link to {entry.readlink()}, which does not exist; repair or remove it"
                )
            if re.fullmatch(r"shard\.\d+\.mds(\..+)?", entry.name):
                raise TrainerError(f"{entry} is a shard, but {entry.parent} has no index.json; {AGAIN}")
            if entry.is_dir():
                if (real := entry.resolve()) in above:
                    raise TrainerError(f"{entry} is a link to {real}, a folder above it; remove it")
                left.append((path / entry.name, (*above, real)))
    return sorted(sets)


def split_of(path: Path) -> str | None:
    """`validation` where a word of the path is a name for held-out data, else `train`; None where both are named.

    Words are cut at anything but letters and at capitals: `val_small`, `Validation`, `webDev`, `c4-test-00`, `testset`.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.as_posix())
    words = re.findall(r"[a-z]+", re.sub(r"(held|hold)[^a-z]*out", "holdout", text.lower()))
    held = [word for word in words if _HELD_OUT.fullmatch(word)]
    if held and any(re.match("(pre)?train", word) for word in words):
        return None
    return "validation" if held else "train"


def _held_out(names: Mapping[Path, str], wanted: list[str] | None) -> set[Path]:
    """The held-out ones among data sets: those that `wanted` names or, where it is None, by their own names."""
    listed = ", ".join(names.values())
    if wanted is None:
        splits = {path: split_of(path) for path in names}
        if unclear := [names[path] for path, split in splits.items() if split is None]:
            raise TrainerError(
                f"is {' and '.join(unclear)} trained on or held out? The name does not tell; list what is held out, "
                f"e.g. `--set 'train.data.validation=[{unclear[0]}]'`, or [] for nothing. Data sets: {listed}"
            )
        return {path for path, split in splits.items() if split == "validation"}
    held = set()
    for pattern in wanted:
        matching = {
            path for path, name in names.items() if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*")
        }
        if not matching:
            raise TrainerError(f"train.data.validation: {pattern!r} matches none of the data sets {listed}")
        held |= matching
    return held


class _Survey(NamedTuple):
    """Lengths and ids of the first samples; `longest`, `largest` and `smallest` come with the sample's number."""

    shortest: int
    longest: tuple[int, int]
    largest: tuple[int, int]
    smallest: tuple[int, int]
    estimate: int  # tokens of all samples


def _survey(data: MdsDataset, limit: int | None) -> _Survey:
    count = len(data) if limit is None else max(1, min(limit, len(data)))
    lengths = np.zeros(count, np.int64)
    largest, smallest = (-1, 0), (0, 0)
    for index in range(count):
        tokens = sample_tokens(data.sample(index))
        lengths[index] = len(tokens)
        if len(tokens):
            largest = max(largest, (int(tokens.max()), index), key=lambda each: each[0])
            smallest = min(smallest, (int(tokens.min()), index), key=lambda each: each[0])
    longest = int(lengths.argmax())
    estimate = int(lengths.sum()) * len(data) // count
    return _Survey(int(lengths.min()), (int(lengths[longest]), longest), largest, smallest, estimate)


def _largest(folder: Path, surveys: Iterable[_Survey]) -> int:
    """The largest token of complete surveys."""
    largest = max(survey.largest[0] for survey in surveys)
    if largest >= 1 << 31:
        raise TrainerError(
            f"{folder}: the largest token is {largest}: `tokens` of type bytes must hold int64 ids; write them as an "
            "ndarray"
        )
    return largest


def _fingerprint(folder: Path, sets: Mapping[Path, MdsDataset], held: set[Path], remote: Remote | None) -> str:
    """Hash of every index, of the splits, and of what shards without a hash show (docs/determinism.md)."""
    digest = xxhash.xxh3_128()
    for path, data in sets.items():
        digest.update(json.dumps([path.as_posix(), path in held, read_index(folder / path)]).encode())
        for stored in (entry["zip_data"] or entry["raw_data"] for entry in data.shards):
            if not stored["hashes"]:
                for part in _traces(folder, path / stored["basename"], remote):
                    digest.update(part)
    return digest.hexdigest()


def _traces(folder: Path, name: Path, remote: Remote | None) -> Iterator[bytes]:
    """Size, time and SPREAD pieces of a file; of a remote one, what the listing says of it."""
    if remote is not None:
        yield remote.listed(name.as_posix()).encode()
        return
    with (folder / name).open("rb") as file:
        status = os.fstat(file.fileno())
        yield f"{status.st_size} {status.st_mtime_ns}".encode()
        for number in range(SPREAD):
            yield os.pread(file.fileno(), PIECE, max(0, status.st_size - PIECE) * number // (SPREAD - 1))
