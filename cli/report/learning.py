"""Training curves, samples, events, times, and the environment, from metrics.jsonl, log.jsonl and state.json."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from cli.report.page import Block, Code, Table, Text, Texts, averaged, lines, thin
from cli.terminal import clean, duration, printable
from common.runfolder import Row, RunFolder

PROMPTS, STEPS = 10, 8  # shown at most; steps evenly spaced
EVENTS = 200  # shown at most
_CURVE_KINDS = ("train", "eval", "speed", "samples", None)  # of metrics; all other rows are events
_FAULTS = (
    "unreadable",
    "timeout",
    "crashed",
    "fault",
    "too_large",
    "truncated",
)  # rules for damaged documents, not bad ones
_CURVES = (  # title, name in the log, unit, divisor from the logged unit
    ("Learning rate", "lr", "", 1),
    ("Gradient norm", "gradient_norm", "", 1),
    ("Tokens per second", "tokens_per_second", "tokens/s", 1),
    ("Utilisation", "utilisation", "share of peak FLOP/s", 1),
    ("Waiting for data", "data_wait", "share of the time", 1),
    ("Waiting for checkpoints", "checkpoint_wait", "share of the time", 1),
    ("Memory", "memory", "GB", 10**9),
)


def loss_curves(run: RunFolder) -> list[Block]:
    """Training and validation loss; bits per byte by stream."""
    train, evaluations = run.records("train"), run.records("eval")
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


def step_curves(run: RunFolder) -> list[Block]:
    """All other values that are logged at each step."""
    train = run.records("train")
    blocks: list[Block] = []
    for title, name, unit, size in _CURVES:
        points = [(step, value / size) for step, value in _points(train, name)]
        if points:
            blocks.append(lines(title, {name: points}, unit, wide=False))
    return blocks


def in_context_learning(run: RunFolder) -> list[Block]:
    """Loss late in the context minus loss early, by step."""
    scores = _points(run.records("eval"), "in_context")
    series = {"tokens 450 to 549 less tokens 40 to 59": scores}
    return [lines("In-context learning", series, "nats per token")] if scores else []


def loss_by_position(run: RunFolder) -> list[Block]:
    """Loss by position in the document, from the newest results of `pretrain eval` in the run folder that have it."""
    for evaluation in reversed(run.evaluations):
        scored = evaluation.get("checkpoints", [])
        sets = scored[-1].get("sets", {}) if scored else {}
        curves = {name: scores.get("in_context", {}).get("curve", []) for name, scores in sets.items()}
        series = {
            name: [(float(part["from"]), float(part["loss"])) for part in curve] for name, curve in curves.items()
        }
        if any(series.values()):
            return [lines("Loss by position in the document", series, "nats per token", "position")]
    return []


def _points(rows: list[Row], name: str) -> list[tuple[float, float]]:
    return averaged([(row["step"], row[name]) for row in rows if row.get(name) is not None])


def prompt_completions(run: RunFolder) -> list[Block]:
    """The continuations of each of the recipe's prompts, by step."""
    prompts: dict[str, dict[int, str]] = {}
    for row in [*run.records("samples"), run.result]:
        for sample in row.get("samples") or []:
            prompts.setdefault(sample["prompt"], {})[row["step"]] = sample["text"]
    return [
        Texts(
            clean(prompt, 120),
            [
                Text(f"step {step:,}", "", [("", [(printable(prompt), True), (printable(texts[step]), False)])])
                for (step,) in thin([[step] for step in sorted(texts)], STEPS)
            ],
            opened=number == 0,
        )
        for number, (prompt, texts) in enumerate(list(prompts.items())[:PROMPTS])
    ]


def events(run: RunFolder) -> list[Block]:
    """Faults, skips, resumptions and warnings of training and of the corpus."""
    rows: list[list[Any]] = [
        [row.get("step"), row["kind"], _facts(row, ("kind", "step"))]
        for row in run.metrics
        if row.get("kind") not in _CURVE_KINDS
    ]
    rows += [
        [entry.get("first"), f"ledger: {entry.get('policy')}", _facts(entry, ("first", "policy"))]
        for entry in run.ledger
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(Table("Events of training", ["step", "event", "details"], thin(rows, EVENTS)))
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
        blocks.append(Table("Faults and events of the corpus", ["stage", "event", "documents or details"], faults))
    if not blocks and (run.metrics or run.stages):
        blocks.append(Table("Events", ["event"], [["none: nothing was skipped or repeated, no warnings"]]))
    return blocks


def _facts(row: Row, without: tuple[str, ...]) -> str:
    return clean("; ".join(f"{key} {value}" for key, value in row.items() if key not in without), 400)


@dataclass(frozen=True)
class Prices:
    """Prices of an hour in any currency: of a worker of the corpus (a core), of a training process (a GPU)."""

    core: float | None = None
    gpu: float | None = None


def training_seconds(run: RunFolder) -> float:
    """Seconds that training took, without evaluations, by the speed at each logged row."""
    seconds, before = 0.0, 0
    for row in run.records("train"):
        if row.get("tokens_per_second"):
            seconds += (row["tokens"] - before) / row["tokens_per_second"]
        before = row["tokens"]
    return seconds


def stage_times_and_cost(run: RunFolder, prices: Prices) -> list[Block]:
    """Time, workers, worker-hours and cost of each stage, by document and by billion tokens of the result."""
    tokens = next((stage.stats.get("tokens") for stage in run.stages.values() if stage.stats.get("tokens")), None)
    rows: list[list[Any]] = []
    for name, entry in run.built.items():
        stage = run.stages.get(name)
        seconds, workers = entry["seconds"], entry.get("workers", 1)
        cores = seconds * workers / 3600
        read = stage.stats.get("documents_in") if stage else None
        busy = entry.get("core_seconds", seconds * workers)
        rate = read / busy if read and busy else None
        per_tokens = cores / tokens * 1e9 if tokens else None
        rows.append([name, duration(seconds), entry.get("tasks"), workers, cores, rate, per_tokens])
    trained = run.records("train")
    if trained:
        seconds, before = training_seconds(run), trained[-1]["tokens"]
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


def environment(run: RunFolder) -> list[Block]:
    """Hosts, libraries, device and model, as the run recorded them."""
    rows: list[list[Any]] = []
    hosts = sorted({str(row["host"]) for row in run.log if row.get("host")})
    if hosts:
        rows.append(["hosts", ", ".join(hosts)])
    stamps = [row["time"] for row in run.log if isinstance(row.get("time"), int | float)]
    if stamps:
        rows.append(["last stage finished", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(stamps)))])
    settings = run.state.get("settings", {})
    for key, value in settings.items():
        if key.startswith("environment."):
            rows.append([key.removeprefix("environment."), clean(str(value), 200)])
    for row in run.log:
        for key, value in (row.get("environment") or row.get("versions") or {}).items():
            if [key, value] not in rows:
                rows.append([key, clean(str(value), 200)])
    rows += [[f"model {key}", value] for key, value in run.state.get("model", {}).items()]
    return [Table("Environment", ["", "value"], rows)] if rows else []


def recipe_text(run: RunFolder) -> list[Block]:
    """The resolved recipe."""
    return [Code("recipe.yaml", run.recipe.read_text("utf-8"))] if run.recipe.is_file() else []
