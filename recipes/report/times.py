"""What a run took: seconds, workers and cost of each stage."""

from __future__ import annotations

from typing import Any

from recipes.report.blocks import Block, Section, Table
from recipes.report.runfolder import Row, RunFolder, rows_of
from recipes.terminal import duration


def section(run: RunFolder) -> Section:
    """Times."""
    return Section("times", "Times and cost", "", times(run))


def stage_times(run: RunFolder) -> dict[str, Row]:
    """The newest log entry of each stage."""
    return {row["stage"]: row for row in run.log if row.get("event") == "stage"}


def times(run: RunFolder) -> list[Block]:
    """Seconds, workers and core-hours of each stage, per document and per billion tokens of the result."""
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
    return [Table("Times and cost by stage", columns, rows, note)] if rows else []
