"""The ledger: faults, skips, resumptions and warnings of training and of the corpus.

Every row of metrics.jsonl and log.jsonl (docs/format.md) that is no point of a curve is an event, told as it is.
"""

from __future__ import annotations

from typing import Any

from recipes.report.blocks import Block, Section, Table, thin
from recipes.report.runfolder import Row, RunFolder, read_json
from recipes.terminal import clean

_CURVE_ROWS = ("train", "eval", "speed", "samples")
_FAULTS = ("unreadable", "timeout", "crashed", "fault", "too_large", "truncated")


def section(run: RunFolder) -> Section:
    """Events."""
    return Section("ledger", "Ledger", "Faults, skips, resumptions and warnings.", ledger(run))


def ledger(run: RunFolder) -> list[Block]:
    """Events of training, and of the run's log."""
    rows: list[list[Any]] = [
        [row.get("step"), row["kind"], _facts(row, ("kind", "step"))]
        for row in run.metrics
        if row.get("kind") not in (*_CURVE_ROWS, None)
    ]
    rows += [
        [entry.get("first"), f"ledger: {entry.get('policy')}", _facts(entry, ("first", "policy"))]
        for entry in read_json(run.train / "ledger.json") or []
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(Table("Events of training", ["step", "event", "what"], thin(rows, 200)))
    faults = [
        [stage.name, rule, count]
        for stage in run.stages.values()
        for rule, count in sorted(stage.stats.get("dropped", {}).items())
        if rule in _FAULTS
    ]
    faults += [
        [row.get("stage"), row["event"], _facts(row, ("time", "host", "event", "stage"))]
        for row in run.log
        if row.get("event") not in ("stage", None)
    ]
    if faults:
        blocks.append(Table("Faults and events of the corpus", ["stage", "event", "documents, or what"], faults))
    if not blocks and (run.metrics or run.stages):
        blocks.append(Table("Events", ["event"], [["nothing was skipped, repeated or warned of"]]))
    return blocks


def _facts(row: Row, without: tuple[str, ...]) -> str:
    return clean("; ".join(f"{key} {value}" for key, value in row.items() if key not in without), 400)
