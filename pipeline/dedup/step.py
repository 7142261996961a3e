"""Stage `dedup`: signatures per file, clusters over all, then one survivor of each cluster per file again.

Adds `cluster` (id of the survivor) and `cluster_size`. Drops by `exact_duplicate` (same text after folding
case and white space) and `near_duplicate` (value: estimated Jaccard to the survivor); the survivor's id stands
in `detail`. Documents are named by id throughout; memory of the middle pass is 4 x hashes bytes a document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import DedupConfig
from pipeline.dedup.clusters import agreement, cluster, group_equal, optimal_bands
from pipeline.documents import read_batches, read_rows, text_bytes
from pipeline.minhash import MinHasher
from pipeline.stage import Build
from pipeline.step import CorpusStep, DocumentStep, Heartbeat, TaskReport, Verdicts
from pipeline.storage import atomic_file

ADDED = (pa.field("cluster", pa.string()), pa.field("cluster_size", pa.int64()))


def passes(build: Build) -> Iterator[CorpusStep]:
    """Signatures (a task per file), clusters (one task), apply (a task per file)."""
    yield SignatureStep(build)
    yield ClusterStep(build)
    yield ApplyStep(build)


def external_files(settings: DedupConfig, base: Path) -> list[Path]:
    """None."""
    return []


def manifest(build: Build) -> dict[str, Any]:
    """Nothing beyond the runner's fields."""
    return {}


def make_hasher(settings: DedupConfig, seed: int) -> MinHasher:
    """The recipe's hasher; `threshold` picks bands and rows within bands x rows hashes."""
    bands, rows = settings.bands, settings.rows
    if settings.threshold is not None:
        bands, rows = optimal_bands(settings.threshold, bands * rows)
    return MinHasher(bands, rows, settings.ngram, seed)


def text_hash(text: str, scope: str) -> bytes:
    """blake2b-128 of the text with case and white space folded, within a scope."""
    folded = " ".join(text.casefold().split())
    return hashlib.blake2b(f"{scope}\0{folded}".encode(), digest_size=16).digest()


class SignatureStep(CorpusStep):
    """Writes signatures, exact hashes and what survivors are chosen by, one .npz per input file."""

    def __init__(self, build: Build) -> None:
        super().__init__("signatures", build.workdir, len(build.inputs))
        self.inputs, self.settings, self.seed = build.inputs, build.settings, build.seed

    def weight(self, rank: int) -> float:
        return float(self.inputs[rank].stat().st_size)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        hasher = make_hasher(self.settings, self.seed)
        total, seen = max(read_rows(self.inputs[rank]), 1), 0
        parts: list[dict[str, Any]] = []
        for table in read_batches(self.inputs[rank]):
            texts = table["text"].to_pylist()
            scopes = self._scopes(table)
            exact = b"".join(text_hash(text, scope) for text, scope in zip(texts, scopes, strict=True))
            parts.append(
                {
                    "signatures": hasher.signatures(texts),
                    "exact": np.frombuffer(exact, np.uint64).reshape(-1, 2),
                    "scopes": np.array([_hash64(scope) for scope in scopes], np.uint64),
                    "ids": np.frombuffer(bytes.fromhex("".join(table["id"].to_pylist())), np.uint64).reshape(-1, 2),
                    "lengths": np.array([len(text) for text in texts], np.int64),
                    "dates": np.array([_date_number(date) for date in table["date"].to_pylist()], np.int64),
                }
            )
            seen += len(texts)
            heartbeat.beat(len(texts), text_bytes(table), seen / total)
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
        path = self.workdir / f".scratch/signatures/{rank:05d}.npz"
        with atomic_file(path) as file:
            np.savez(file, **columns)
        return TaskReport(files=[path])

    def _scopes(self, table: pa.Table) -> list[str]:
        if self.settings.scope == "global" or self.settings.scope not in table.column_names:
            return [""] * table.num_rows
        scopes: list[str] = table[self.settings.scope].to_pylist()
        return scopes


class ClusterStep(CorpusStep):
    """Finds clusters over all documents and writes each one's survivor: .scratch/clusters.parquet."""

    def __init__(self, build: Build) -> None:
        super().__init__("clusters", build.workdir, 1)
        self.inputs, self.settings, self.seed = build.inputs, build.settings, build.seed

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        data = self._load()
        labels, exact = self._labels(data)
        survivors = self._survivors(data, labels)
        index = np.arange(len(labels))
        dropped = index != survivors
        similarity = np.ones(len(labels))
        similarity[dropped] = agreement(data["signatures"], index[dropped], survivors[dropped])
        same_text = (exact == exact[survivors]) & dropped
        ids = [value.tobytes().hex() for value in data["ids"]]
        table = pa.table(
            {
                "id": ids,
                "cluster": [ids[i] for i in survivors],
                "cluster_size": np.bincount(labels, minlength=len(labels))[labels],
                "similarity": similarity,
                "exact": same_text,
            }
        )
        path = self.workdir / ".scratch/clusters.parquet"
        with atomic_file(path) as file:
            pq.write_table(table, file)
        heartbeat.beat(0, 0, 1.0)
        return TaskReport(files=[path])

    def _load(self) -> dict[str, Any]:
        files = [np.load(self.workdir / f".scratch/signatures/{i:05d}.npz") for i in range(len(self.inputs))]
        files = [file for file in files if file.files]
        return {key: np.concatenate([file[key] for file in files]) for key in files[0].files}

    def _labels(self, data: dict[str, Any]) -> tuple[Any, Any]:
        """(label of each document over exact and near duplicates, label over exact duplicates alone)."""
        alone = np.arange(len(data["lengths"]), dtype=np.int64)
        exact = group_equal(data["exact"]) if self.settings.exact else alone
        labels = exact
        if self.settings.minhash:
            hasher = make_hasher(self.settings, self.seed)
            used = data["signatures"][:, : hasher.bands * hasher.rows]
            keys = hasher.band_keys(used) ^ data["scopes"][:, None]
            labels = cluster(used, keys, self.settings.verify, exact)
        return labels, exact

    def _survivors(self, data: dict[str, Any], labels: Any) -> Any:
        """Index of the survivor of each document's cluster, by the recipe's rule; ties go to the first."""
        index = np.arange(len(labels))
        rank = {"first": index * 0, "longest": -data["lengths"], "newest": -data["dates"]}[self.settings.survivor]
        order = np.lexsort((index, rank, labels))
        heads = np.ones(len(order), bool)
        heads[1:] = labels[order[1:]] != labels[order[:-1]]
        survivor_of_label = np.zeros(len(labels), np.int64)
        survivor_of_label[labels[order[heads]]] = order[heads]
        return survivor_of_label[labels]


class ApplyStep(DocumentStep):
    """Keeps each cluster's survivor."""

    def __init__(self, build: Build) -> None:
        super().__init__("dedup", build.workdir, build.inputs, ADDED)
        self.settings: DedupConfig = build.settings
        self._clusters: dict[str, tuple[str, int, float, bool]] = {}

    def judge(self, table: pa.Table, rank: int) -> Verdicts:
        if not self._clusters:
            rows = pq.read_table(self.workdir / ".scratch/clusters.parquet").to_pydict()
            self._clusters = dict(
                zip(
                    rows["id"],
                    zip(rows["cluster"], rows["cluster_size"], rows["similarity"], rows["exact"], strict=True),
                    strict=True,
                )
            )
        ids = table["id"].to_pylist()
        found = [self._clusters[i] for i in ids]
        table = table.append_column(ADDED[0], pa.array([row[0] for row in found], pa.string()))
        table = table.append_column(ADDED[1], pa.array([row[1] for row in found], pa.int64()))
        rules: list[str | None] = [
            None if row[0] == i else ("exact_duplicate" if row[3] else "near_duplicate")
            for i, row in zip(ids, found, strict=True)
        ]
        threshold = [1.0 if rule == "exact_duplicate" else self.settings.verify for rule in rules]
        return Verdicts(table, rules, [row[2] for row in found], list(threshold), [row[0] for row in found])


def _hash64(scope: str) -> int:
    return int.from_bytes(hashlib.blake2b(scope.encode(), digest_size=8).digest(), "little") if scope else 0


def _date_number(date: str) -> int:
    """A sortable number of an ISO or ARC date; 0 where there is none."""
    digits = "".join(character for character in date if character.isdigit())[:14]
    return int(digits.ljust(14, "0")) if digits else 0
