"""What a run took: seconds, workers and cost of each stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipes.report.blocks import Block, Section, Table
from recipes.report.runfolder import Row, RunFolder, rows_of
from recipes.terminal import duration


@dataclass(frozen=True)
class Prices:
    """What an hour costs, in any currency: of a worker of the corpus (a core), and of a training process (a GPU)."""

    core: float | None = None
    gpu: float | None = None


def section(run: RunFolder, prices: Prices) -> Section:
    """Times."""
    return Section("times", "Times and cost", "", times(run, prices))


def stage_times(run: RunFolder) -> dict[str, Row]:
    """The newest log entry of each stage."""
    return {row["stage"]: row for row in run.log if row.get("event") == "stage"}


def times(run: RunFolder, prices: Prices) -> list[Block]:
    """Seconds, workers and worker-hours of each stage, per document and per billion tokens of the result; cost."""
    tokens = next((stage.stats.get("tokens") for stage in run.stages.values() if stage.stats.get("tokens")), None)
    rows: list[list[Any]] = []
    for name, entry in stage_times(run).items():
        stage = run.stages.get(name)
        seconds, workers = entry["seconds"], entry.get("workers", 1)
        cores = seconds * workers / 3600
        read = stage.stats.get("documents_in") if stage else None
        rate = read / (seconds * workers) if read and seconds else None
        per_tokens = cores / tokens * 1e9 if tokens else None
        rows.append([name, duration(seconds), entry.get("tasks"), workers, cores, rate, per_tokens])
    trained = rows_of(run, "train")
    if trained:
        before = 0
        seconds = 0.0
        for row in trained:
            if row.get("tokens_per_second"):
                seconds += (row["tokens"] - before) / row["tokens_per_second"]
            before = row["tokens"]
        rows.append(["train", duration(seconds), None, 1, seconds / 3600, None, seconds / 3600 / before * 1e9])
    columns = ["stage", "time", "tasks", "workers", "worker-hours", "documents/s a worker"]
    columns.append("worker-hours per 10^9 tokens")
    note = "newest run of each stage; worker = one process, for training one process with its device"
    if prices != Prices():
        columns.append("cost")
        for line in rows:
            price = prices.gpu if line[0] == "train" else prices.core
            line.append(None if price is None else line[4] * price)
        rows.append(["all", *[None] * (len(columns) - 2), sum(line[-1] or 0.0 for line in rows)])
        note += f"; an hour of a core at {prices.core or 0:g}, of a GPU at {prices.gpu or 0:g}"
    return [Table("Times and cost by stage", columns, rows, note)] if rows else []
