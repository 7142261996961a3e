"""Writes real shards folders as docs/format.md describes them, for the trainer's tests."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from common import mds
from common.files import list_files

EOS = 256
VOCABULARY = 257
COLUMNS = {"tokens": np.dtype(np.uint16), "doc_lengths": np.dtype(np.uint32), "doc_ids": np.dtype(np.uint8)}
PROSE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")


def byte_tokenizer() -> Tokenizer:
    """One token a byte (0 to 255 in the byte-level alphabet's order), EOS 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


def pack(documents: list[str], length: int) -> list[dict[str, np.ndarray]]:
    """Documents as samples of `length` + 1 tokens, one after another; the last one is padded with EOS."""
    tokenizer = byte_tokenizer()
    pieces: list[tuple[int, int]] = []  # (token, document)
    for number, text in enumerate(documents):
        pieces += [(token, number) for token in [*tokenizer.encode(text).ids, EOS]]
    samples = []
    for start in range(0, len(pieces), length + 1):
        part = pieces[start : start + length + 1]
        tokens = np.full(length + 1, EOS, np.uint16)
        tokens[: len(part)] = [token for token, _ in part]
        owners = np.array([owner for _, owner in part])
        distinct, lengths = np.unique(owners, return_counts=True)
        ids = [np.frombuffer(bytes.fromhex(document_id(n)), np.uint8) for n in distinct.tolist()]
        samples.append({"tokens": tokens, "doc_lengths": lengths.astype(np.uint32), "doc_ids": np.stack(ids)})
    return samples


def document_id(number: int) -> str:
    """The id of a stream's document, hexadecimal."""
    return hashlib.blake2b(number.to_bytes(4), digest_size=16).hexdigest()


def write_mds(folder: Path, samples: list[dict[str, Any]], columns: dict[str, str], **options: Any) -> None:
    """One MDS data set, as other people's scripts write it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("streaming", exc_type=ImportError)
        from streaming import MDSWriter
    with MDSWriter(out=str(folder), columns=columns, **{"size_limit": 4096} | options) as writer:
        for sample in samples:
            writer.write({name: sample[name] for name in columns})


def merge_index(folder: Path) -> None:
    """Merge the bucket's index into the stream's, as streaming's merge_index does (which leaks file handles)."""
    index = json.loads((folder / "0" / "index.json").read_bytes())
    for entry in index["shards"]:
        for kind in ("raw_data", "zip_data"):
            if entry[kind]:
                entry[kind]["basename"] = f"0/{entry[kind]['basename']}"
    (folder / "index.json").write_text(json.dumps(index))


def write_shards(
    folder: Path,
    streams: dict[str, tuple[list[str], float]],
    *,
    length: int = 32,
    compression: str | None = "zstd",
    seed: int = 1,
) -> Path:
    """A shards folder: `streams` maps <split>/<stream> to its documents and weight."""
    folder.mkdir(parents=True)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    sizes = np.ones(VOCABULARY, np.uint16)
    sizes[EOS] = 0
    np.save(folder / "token_bytes.npy", sizes)
    listed = {}
    for name, (documents, weight) in streams.items():
        samples = pack(documents, length)
        mds.write_shards(folder / name / "0", samples, COLUMNS, compression=compression, size_limit=4096)
        merge_index(folder / name)
        listed[name] = {
            "samples": len(samples),
            "tokens": int(sum(sample["doc_lengths"].sum() for sample in samples)),
            "documents": len(documents),
            "bytes": sum(len(text.encode()) for text in documents),
            "weight": weight,
        }
    manifest = {
        "format": 1,
        "sequence_length": length,
        "vocab_size": VOCABULARY,
        "eos_id": EOS,
        "token_dtype": "uint16",
        "seed": seed,
        "fingerprint": "0" * 32,
        "tokenizer_sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
        "streams": listed,
    }
    write_manifest(folder, manifest)
    return folder


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """manifest.json over whatever the folder holds now."""
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": list_files(folder)}))


def prose_shards(folder: Path, **options: Any) -> Path:
    """Two streams of license text, one of them held out too."""
    paragraphs = [part for part in PROSE.split("\n\n") if part.strip()]
    half = len(paragraphs) // 2
    streams = {
        "train/first": (paragraphs[:half], 1.0),
        "train/second": (paragraphs[half:-4], 2.0),
        "validation/first": (paragraphs[-4:], 1.0),
    }
    return write_shards(folder, streams, **options)


def copy_shards(source: Path, target: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(source, target)
    return target
