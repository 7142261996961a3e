"""Read a run folder, whichever of its parts exist yet: a report may be asked for while the run goes on.

Small files (stats, manifests, metrics, log) are read whole; parquet is read as a sample of at most ROW_GROUPS row
groups (of 1,000 documents) a folder, evenly spaced over all of them, always the same ones. A line torn by a crash or
by a writer at work is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import RecipeError

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUPS = 100
Row = dict[str, Any]


def stage_folder(run: Path, number: int, stage: str) -> Path:
    """Folder in which the recipe's stage `number` (from 1) is published."""
    return run / "shards" if stage == "tokenize" else run / "corpus" / f"{number:02d}-{stage}"


def building_folder(published: Path, fingerprint: str) -> Path:
    """Hidden folder beside `published` in which the stage of this fingerprint is built."""
    return published.with_name(f".{published.name}.{fingerprint}")


@dataclass(frozen=True)
class Sample:
    """Rows of a parquet folder: `table` with the columns that exist, and how many rows there are in all."""

    table: pa.Table
    total: int

    @property
    def scale(self) -> float:
        """What one sampled row stands for."""
        return self.total / max(int(self.table.num_rows), 1)

    @property
    def whole(self) -> bool:
        """Whether the sample is everything."""
        return int(self.table.num_rows) == self.total

    def __contains__(self, column: str) -> bool:
        return column in self.table.column_names

    def column(self, name: str) -> list[Any]:
        """A column's values; None for each row where the column does not exist."""
        return list(self.table[name].to_pylist()) if name in self else [None] * self.table.num_rows


class Stage:
    """A published stage: stats, and samples of what it kept and dropped."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.stats: Row = read_json(folder / "stats.json") or {}
        self.manifest: Row = read_json(folder / "manifest.json") or {}

    def kept(self, columns: list[str]) -> Sample:
        """A sample of kept documents."""
        return read_sample(self.folder / "data", columns)

    def dropped(self, columns: list[str]) -> Sample:
        """A sample of dropped documents."""
        return read_sample(self.folder / "dropped", columns)


class RunFolder:
    """What a run has left so far. Raises RecipeError where the folder holds no run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not any((path / name).exists() for name in ("recipe.yaml", "corpus", "shards", "train", "metrics.jsonl")):
            raise RecipeError(
                f"{path}: not a run folder (no recipe.yaml, corpus, shards, train or metrics.jsonl in it)"
            )

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Published stages of the corpus in order, the shards last."""
        folders = {folder.name[3:]: folder for folder in sorted((self.path / "corpus").glob("[0-9][0-9]-*"))}
        if (self.path / "shards" / "stats.json").is_file():
            folders["tokenize"] = self.path / "shards"
        return {name: Stage(name, folder) for name, folder in folders.items()}

    @cached_property
    def recipe_text(self) -> str:
        """The resolved recipe, empty where none was kept."""
        path = self.path / "recipe.yaml"
        return path.read_text("utf-8") if path.is_file() else ""

    @cached_property
    def recipe(self) -> Row:
        import yaml

        loaded = yaml.safe_load(self.recipe_text) if self.recipe_text else {}
        return loaded if isinstance(loaded, dict) else {}

    @cached_property
    def log(self) -> list[Row]:
        """Rows of log.jsonl: what may differ between equal runs."""
        return list(read_rows(self.path / "log.jsonl"))

    @cached_property
    def train(self) -> Path:
        """The training folder; the run folder itself where training was started alone."""
        return self.path if (self.path / "metrics.jsonl").is_file() else self.path / "train"

    @cached_property
    def metrics(self) -> list[Row]:
        """Rows of metrics.jsonl, and of the training folder's log.jsonl: what a clock or an interruption decides."""
        return [*read_rows(self.train / "metrics.jsonl"), *read_rows(self.train / "log.jsonl")]

    @cached_property
    def result(self) -> Row:
        """result.json of a finished training run."""
        return read_json(self.train / "result.json") or {}

    @cached_property
    def checkpoints(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted(self.train.glob("checkpoints/step-*"))

    @cached_property
    def state(self) -> Row:
        """state.json of the newest checkpoint."""
        return (read_json(self.checkpoints[-1] / "state.json") or {}) if self.checkpoints else {}


def rows_of(run: RunFolder, kind: str) -> list[Row]:
    """Rows of one kind by step, those of `train` with the speed measured then; a row written twice counts once."""
    kinds = (kind, "speed") if kind == "train" else (kind,)
    rows: dict[int, Row] = {}
    for wanted in kinds:
        for row in run.metrics:
            if row.get("kind") == wanted and "step" in row and (wanted == kind or row["step"] in rows):
                rows[row["step"]] = row if wanted == kind else row | rows[row["step"]]
    return [rows[step] for step in sorted(rows)]


def summary(run: RunFolder) -> Row:
    """A run's results as one JSON value: stats of each stage, and what training came to."""
    found: Row = {"run": str(run.path), "stages": {name: stage.stats for name, stage in run.stages.items()}}
    if run.metrics:
        last = {row.get("kind"): row for row in run.metrics}
        found["training"] = {"last": last.get("train"), "evaluation": last.get("eval"), "result": run.result or None}
    return found


def read_json(path: Path) -> Any:
    """A JSON file's value; None where it is absent or being written."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSON-lines file that are whole."""
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


def read_sample(folder: Path, columns: list[str], limit: int = ROW_GROUPS) -> Sample:
    """A sample of a folder's parquet files, or of one file, with those of `columns` that exist."""
    import pyarrow as pa

    groups, total = sample_groups(folder, limit)
    tables = [read_group(path, number, columns) for path, number in groups]
    return Sample(pa.concat_tables(tables, promote_options="default") if tables else pa.table({}), total)


def sample_groups(folder: Path, limit: int = ROW_GROUPS) -> tuple[list[tuple[Path, int]], int]:
    """At most `limit` row groups (file, number), evenly spaced over all of a folder's, and the rows of all of them."""
    import pyarrow.parquet as pq

    found: list[tuple[Path, int]] = []
    total = 0
    for path in [folder] if folder.is_file() else sorted(folder.glob("*.parquet")):
        footer = pq.read_metadata(path)
        total += footer.num_rows
        found += [(path, number) for number in range(footer.num_row_groups) if footer.row_group(number).num_rows]
    if len(found) > limit:
        found = [found[i * len(found) // limit] for i in range(limit)]
    return found, total


def read_group(path: Path, number: int, columns: list[str]) -> pa.Table:
    """One row group, with those of `columns` that exist."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        return file.read_row_group(number, columns=present)


def find_rows(folder: Path, column: str, wanted: set[str], columns: list[str], most: int) -> list[Row]:
    """Sampled rows whose `column` is among `wanted`, at most `most` of each; texts are read group by group."""
    left = dict.fromkeys(wanted, most)
    rows: list[Row] = []
    for path, number in sample_groups(folder)[0]:
        if not any(left.values()):
            break
        table = read_group(path, number, [column])
        if not table.num_columns:
            break
        chosen = []
        for index, value in enumerate(table[column].to_pylist()):
            if left.get(value):
                left[value] -= 1
                chosen.append(index)
        if chosen:
            rows += read_group(path, number, columns).take(chosen).to_pylist()
    return rows
