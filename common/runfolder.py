"""The layout of a run folder: the one module that knows the names in it.

    recipe.yaml                        the resolved recipe
    corpus/NN-stage/                   a published stage: data/, dropped/, stats.json, manifest.json
    corpus/.NN-stage.<fingerprint>/    the same stage while it is built
    shards/                            the published stage `tokenize`, with documents.parquet
    log.jsonl                          times, hosts and events of the corpus
    train/                             metrics.jsonl, log.jsonl, ledger.json, result.json, checkpoints/, blame/, losses/
    forgotten.json  lookup/            documents taken out for good; where each document is (`pretrain forget`)
    report.html  eval*.json  export/   written by commands

Every part may be missing or half written, because reports are made of unfinished runs too: a missing file reads as
empty, a torn line of a JSON-lines file is skipped. Files are read on first use and kept. Tables are not read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import RecipeError
from common.files import read_manifest

Row = dict[str, Any]
TRAIN = "train"
ACCOUNT, LOSSES = "blame/step-{:08d}.json", "losses"  # in a training folder: of an anomalous step; of documents
_PARTS = ("recipe.yaml", "corpus", "shards", TRAIN, "metrics.jsonl")


def stage_folder(run: Path, number: int, stage: str) -> Path:
    """Folder in which the recipe's stage `number` (from 1) is published."""
    return run / "shards" if stage == "tokenize" else run / "corpus" / f"{number:02d}-{stage}"


def building_folder(published: Path, fingerprint: str) -> Path:
    """Hidden folder beside `published` in which the stage of this fingerprint is built."""
    return published.with_name(f".{published.name}.{fingerprint}")


class Stage:
    """A published stage: its statistics and the folders of its tables."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.data, self.dropped = folder / "data", folder / "dropped"
        self.stats: Row = _json(folder / "stats.json", {})
        self.manifest: Row = _json(folder / "manifest.json", {})


class RunFolder:
    """The folder of a run, or a training folder alone. Creates nothing; any part of it may be missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name
        self.recipe = path / "recipe.yaml"
        self.shards = path / "shards"
        self.documents = self.shards / "documents.parquet"
        self.train = path / TRAIN
        self.forgotten = path / "forgotten.json"
        self.lookup = path / "lookup"
        self.report = path / "report.html"
        self.exported = {
            "hf": path / "export" / "hf",
            "gguf": path / "export" / "model.gguf",
            "dataset": path / "export" / "dataset",
        }

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run at `path`. Raises RecipeError where there is none."""
        if not any((path / name).exists() for name in _PARTS):
            raise RecipeError(f"{path}: not a run folder (it has none of {', '.join(_PARTS)})")
        return cls(path)

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Published stages in order, `tokenize` last."""
        folders = {folder.name[3:]: folder for folder in sorted(self.path.glob("corpus/[0-9][0-9]-*"))}
        if (self.shards / "stats.json").is_file():
            folders["tokenize"] = self.shards
        return {name: Stage(name, folder) for name, folder in folders.items()}

    @cached_property
    def text_stages(self) -> dict[str, Stage]:
        """Published stages whose tables hold texts: all but `tokenize`."""
        return {name: stage for name, stage in self.stages.items() if name != "tokenize"}

    @cached_property
    def building(self) -> dict[str, Path]:
        """Hidden folders of stages that are being built, or whose building was interrupted."""
        folders = [*self.path.glob("corpus/.[0-9][0-9]-*.*"), *self.path.glob(".shards.*")]
        names = {folder: folder.name[1:].rpartition(".")[0] for folder in folders if folder.suffix != ".old"}
        return {"tokenize" if name == "shards" else name[3:]: folder for folder, name in names.items()}

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the published shards; None before there are any."""
        manifest = read_manifest(self.shards)
        return manifest["fingerprint"] if manifest else None

    @cached_property
    def log(self) -> list[Row]:
        """Rows of log.jsonl: times, hosts and events, which may differ between equal runs."""
        return list(_rows(self.path / "log.jsonl"))

    @cached_property
    def built(self) -> dict[str, Row]:
        """The newest log entry of each stage's building."""
        return {row["stage"]: row for row in self.log if row.get("event") == "stage"}

    @property
    def trained(self) -> Path:
        """The training folder: `train`, or the folder itself where it is one."""
        alone = not self.train.is_dir() and any(
            (self.path / name).exists() for name in ("metrics.jsonl", "checkpoints")
        )
        return self.path if alone else self.train

    @cached_property
    def metrics(self) -> list[Row]:
        """Rows of the training folder's metrics.jsonl, then those of its log.jsonl (speed, events)."""
        return [*_rows(self.trained / "metrics.jsonl"), *_rows(self.trained / "log.jsonl")]

    def records(self, kind: str) -> list[Row]:
        """Metrics of one kind, one row a step; `train` rows include the speed that was logged at their step."""
        rows = {row["step"]: row for row in self.metrics if row.get("kind") == kind and "step" in row}
        for row in self.metrics if kind == "train" else ():
            if row.get("kind") == "speed" and row.get("step") in rows:
                rows[row["step"]] = row | rows[row["step"]]
        return [rows[step] for step in sorted(rows)]

    def seconds_since_last_record(self, now: float) -> float:
        """Seconds from the last write of metrics.jsonl to `now` (seconds since 1970)."""
        return now - (self.trained / "metrics.jsonl").stat().st_mtime

    @cached_property
    def result(self) -> Row:
        """result.json of a finished training run."""
        result: Row = _json(self.trained / "result.json", {})
        return result

    @cached_property
    def ledger(self) -> list[Row]:
        """Steps that training skips, and why."""
        ledger: list[Row] = _json(self.trained / "ledger.json", [])
        return ledger

    @cached_property
    def evaluations(self) -> list[Row]:
        """Results of `pretrain eval` that were kept as eval*.json, oldest first."""
        paths = {*self.path.glob("eval*.json"), *self.trained.glob("eval*.json")}
        return [_json(path, {}) for path in sorted(paths, key=lambda path: path.stat().st_mtime)]

    @property
    def checkpoints(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted(self.trained.glob("checkpoints/step-*"))

    @cached_property
    def state(self) -> Row:
        """state.json of the newest checkpoint."""
        return _json(self.checkpoints[-1] / "state.json", {}) if self.checkpoints else {}

    def set_training_aside(self) -> Path | None:
        """Rename `train` to the first free `train.N`, and return that; None where there is no training."""
        if not self.train.exists():
            return None
        number = 1
        while (kept := self.path / f"{TRAIN}.{number}").exists():
            number += 1
        return self.train.rename(kept)

    def summary(self) -> Row:
        """Results as one JSON value: statistics of each stage, and the last training and evaluation records."""
        summary: Row = {"run": str(self.path), "stages": {name: stage.stats for name, stage in self.stages.items()}}
        if self.metrics:
            last = {row.get("kind"): row for row in self.metrics}
            result = {"last": last.get("train"), "evaluation": last.get("eval"), "result": self.result or None}
            summary["training"] = result
        return summary


def pass_progress(building: Path) -> Row:
    """{pass, tasks_finished, documents_read} of the pass that a stage's tasks reported last; empty before any did."""
    beats = sorted(building.glob(".progress/*-[0-9]*"), key=lambda path: path.stat().st_mtime)
    if not beats:
        return {}
    current = beats[-1].name.rpartition("-")[0]
    values = [path.read_text("ascii").split() for path in beats if path.name.rpartition("-")[0] == current]
    read = sum(int(value[0]) for value in values if len(value) == 3)  # others are being written
    finished = len(list(building.glob(f".receipts/{current}-*.json")))
    return {"pass": current, "tasks_finished": finished, "documents_read": read}


def _json(path: Path, default: Any) -> Any:
    """A JSON file's value, or `default` where the file is missing, empty or half written."""
    try:
        return json.loads(path.read_bytes()) or default
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return default


def _rows(path: Path) -> Iterator[Row]:
    """Objects of a JSON-lines file, without torn lines."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row
