"""Training: loss, bits per byte, learning rate, gradient norm, speed, waiting, and loss by position in the context.

Samples by checkpoint: what the model made of each of the recipe's prompts as it learnt.

The ledger: faults, skips, resumptions and warnings of training and of the corpus.

Every row of metrics.jsonl and log.jsonl (docs/format.md) that is no point of a curve is an event, told as it is.

What a run took: seconds, workers and cost of each stage.

Where a run ran, as it recorded it: hosts, libraries, device, model; and its recipe.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from cli.report.charts import averaged, lines
from cli.report.page import Block, Code, Section, Table, Text, Texts, thin
from cli.terminal import clean, duration, printable
from common.runfolder import Row, RunFolder, read_json, rows_of

_CURVES = (  # title, name in the log, unit, how many of what is logged make one
    ("Learning rate", "lr", "", 1),
    ("Gradient norm", "gradient_norm", "", 1),
    ("Tokens per second", "tokens_per_second", "tokens/s", 1),
    ("Utilisation", "utilisation", "share of peak FLOP/s", 1),
    ("Waiting for data", "data_wait", "share of the time", 1),
    ("Waiting for checkpoints", "checkpoint_wait", "share of the time", 1),
    ("Memory", "memory", "GB", 10**9),
)


def training_section(run: RunFolder) -> Section:
    """Curves."""
    return Section("training", "Training", "", [*losses(run), *curves(run), *in_context(run)])


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
    for title, name, unit, size in _CURVES:
        points = [(step, value / size) for step, value in _points(train, name)]
        if points:
            blocks.append(lines(title, {name: points}, unit, wide=False))
    return blocks


def in_context(run: RunFolder) -> list[Block]:
    """The in-context-learning score by step, and loss by position in the document as `pretrain eval` left it."""
    scores = _points(rows_of(run, "eval"), "in_context")
    series = {"tokens 450 to 549 less tokens 40 to 59": scores}
    return [*([lines("In-context learning", series, "nats per token")] if scores else []), *by_position(run)]


def by_position(run: RunFolder) -> list[Block]:
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


def _points(rows: list[Row], name: str) -> list[tuple[float, float]]:
    return averaged([(row["step"], row[name]) for row in rows if row.get(name) is not None])


PROMPTS, STEPS = 10, 8  # shown at most, the steps evenly spaced


def completions_section(run: RunFolder) -> Section:
    """Completions."""
    lead = "What the model made of the recipe's prompts, the newest last." if run.metrics else ""
    return Section("completions", "Samples by checkpoint", lead, completions(run))


def completions(run: RunFolder) -> list[Block]:
    """For each prompt what was written after it, by step."""
    found: dict[str, dict[int, str]] = {}
    rows = [row for row in run.metrics if row.get("kind") == "samples"]
    for row in [*rows, run.result]:
        for sample in row.get("samples") or []:
            found.setdefault(sample["prompt"], {})[row["step"]] = sample["text"]
    return [
        Texts(
            clean(prompt, 120),
            [
                Text(f"step {step:,}", "", [("", [(printable(prompt), True), (printable(texts[step]), False)])])
                for (step,) in thin([[step] for step in sorted(texts)], STEPS)
            ],
            opened=number == 0,
        )
        for number, (prompt, texts) in enumerate(list(found.items())[:PROMPTS])
    ]


_CURVE_ROWS = ("train", "eval", "speed", "samples")
_FAULTS = ("unreadable", "timeout", "crashed", "fault", "too_large", "truncated")


def ledger_section(run: RunFolder) -> Section:
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


def environment_section(run: RunFolder) -> Section:
    """The environment and the recipe."""
    recipe = [Code("recipe.yaml", run.recipe_text)] if run.recipe_text else []
    return Section("environment", "Environment and recipe", "", [*environment(run), *recipe])


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
