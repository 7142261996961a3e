"""Sections on training: curves, loss by position, samples by checkpoint, ledger.

Everything is a row of metrics.jsonl or log.jsonl in the training folder (docs/format.md); a row of a kind that is no
point of a curve is an event and enters the ledger as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from recipes.report.blocks import Block, Figure, Section, Table, Text, Texts, thin
from recipes.report.runfolder import Row, RunFolder, read_json
from recipes.terminal import clean, printable

POINTS = 1000  # of a curve; longer ones are averaged
_CURVE_ROWS = ("train", "eval", "speed", "samples")
_CURVES = (
    ("Learning rate", "lr", ""),
    ("Gradient norm", "gradient_norm", ""),
    ("Tokens per second", "tokens_per_second", "tokens/s"),
    ("Utilisation", "utilisation", "share of the device's peak FLOP/s"),
    ("Waiting for data", "data_wait", "share of the time"),
    ("Waiting for checkpoints", "checkpoint_wait", "share of the time"),
    ("Memory", "memory", "bytes"),
)


def sections(run: RunFolder) -> list[Section]:
    """The sections on training, as far as it has come."""
    return [
        Section("training", "Training", "", [*losses(run), *curves(run), *in_context(run)]),
        Section("completions", "Samples", "What the model makes of the recipe's prompts.", completions(run)),
        Section("ledger", "Ledger", "Faults, skips, resumptions and warnings.", ledger(run)),
    ]


def rows_of(run: RunFolder, kind: str) -> list[Row]:
    """Rows of one kind by step, those of `train` with the speed measured then; a row written twice counts once."""
    kinds = (kind, "speed") if kind == "train" else (kind,)
    rows: dict[int, Row] = {}
    for wanted in kinds:
        for row in run.metrics:
            if row.get("kind") == wanted and "step" in row and (wanted == kind or row["step"] in rows):
                rows[row["step"]] = row if wanted == kind else row | rows[row["step"]]
    return [rows[step] for step in sorted(rows)]


def averaged(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: means of equal runs of the finite ones, at the last place of each."""
    finite = [(x, y) for x, y in points if isinstance(y, int | float) and math.isfinite(y)]
    size = max(1, math.ceil(len(finite) / limit))
    parts = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(part[-1][0], math.fsum(y for _, y in part) / len(part)) for part in parts]


def losses(run: RunFolder) -> list[Block]:
    """Training and validation loss; bits per byte by stream."""
    train, evaluations = rows_of(run, "train"), rows_of(run, "eval")
    if not train:
        return []
    series = {"training": _points(train, "loss"), "validation": _points(evaluations, "loss")}
    blocks: list[Block] = [lines("Loss", series, "nats per token")]
    streams = sorted({name for row in evaluations for name in row.get("streams", {})})
    bits = {"all": _points(evaluations, "bits_per_byte")}
    for name in streams if len(streams) > 1 else []:
        scores = [(row["step"], row["streams"][name]) for row in evaluations if name in row.get("streams", {})]
        bits[name] = averaged([(step, score["bits_per_byte"]) for step, score in scores if "bits_per_byte" in score])
    if bits["all"]:
        blocks.append(lines("Validation, bits per byte", bits, "bits per byte"))
    return blocks


def curves(run: RunFolder) -> list[Block]:
    """What else is logged at each step."""
    train = rows_of(run, "train")
    blocks: list[Block] = []
    for title, name, unit in _CURVES:
        points = _points(train, name)
        if points:
            blocks.append(lines(title, {name: points}, unit, wide=False))
    return blocks


def in_context(run: RunFolder) -> list[Block]:
    """Loss by position in the document, from the newest results of `pretrain eval` that are kept in the run folder."""
    for path in sorted(
        {*run.path.glob("eval*.json"), *run.train.glob("eval*.json")}, key=lambda path: path.stat().st_mtime
    ):
        scored = (read_json(path) or {}).get("checkpoints", [])
        sets = scored[-1].get("sets", {}) if scored else {}
        curves = {name: scores.get("in_context", {}).get("curve", []) for name, scores in sets.items()}
        series = {
            name: [(float(part["from"]), float(part["loss"])) for part in curve] for name, curve in curves.items()
        }
        if any(series.values()):
            return [lines("Loss by position in the document", series, "nats per token", "position")]
    return []


def completions(run: RunFolder) -> list[Block]:
    """Prompts and what was written after them, at the end and at each checkpoint that has some."""
    found: dict[int, list[Row]] = {}
    for row in run.metrics:
        if row.get("kind") in ("samples", "eval") and isinstance(row.get("samples"), list):
            found[row["step"]] = row["samples"]
    if run.result.get("samples"):
        found[run.result["step"]] = run.result["samples"]
    return [
        Texts(
            f"After step {step:,}",
            [
                Text(
                    clean(sample["prompt"], 120),
                    "",
                    [("", [(printable(sample["prompt"]), True), (printable(sample["text"]), False)])],
                )
                for sample in samples
            ],
            opened=step == max(found),
        )
        for step, samples in sorted(found.items(), reverse=True)
    ]


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
        if rule in ("unreadable", "timeout", "crashed", "fault", "too_large", "truncated")
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


def _points(rows: list[Row], name: str) -> list[tuple[float, float]]:
    return averaged([(row["step"], row[name]) for row in rows if row.get(name) is not None])


def lines(
    title: str,
    series: dict[str, list[tuple[float, float]]],
    unit: str,
    axis: str = "step",
    *,
    wide: bool = True,
) -> Figure:
    """Curves over steps, with a table that has a row for each place where any of them has a point."""
    series = {name: points for name, points in series.items() if points}
    places = sorted({x for points in series.values() for x, _ in points})
    known = {name: dict(points) for name, points in series.items()}
    rows = [[int(place), *(known[name].get(place) for name in series)] for place in places]
    return Figure(
        title,
        [
            {"type": "scatter", "mode": "lines+markers" if len(points) < 30 else "lines", "name": name}
            | {"x": [x for x, _ in points], "y": [float(f"{y:.6g}") for _, y in points]}
            for name, points in series.items()
        ],
        Table(title, [axis, *series], thin(rows), note="evenly spaced rows" if len(rows) > len(thin(rows)) else ""),
        {"xaxis": {"title": {"text": axis}}, "yaxis": {"title": {"text": unit}}, "hovermode": "x unified"},
        height=360 if wide else 260,
        wide=wide,
    )
