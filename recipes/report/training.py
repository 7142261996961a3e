"""Training: loss, bits per byte, learning rate, gradient norm, speed, waiting, and loss by position in the context."""

from __future__ import annotations

from recipes.report.blocks import Block, Section
from recipes.report.charts import averaged, lines
from recipes.report.runfolder import Row, RunFolder, read_json, rows_of

_CURVES = (  # title, name in the log, unit, how many of what is logged make one
    ("Learning rate", "lr", "", 1),
    ("Gradient norm", "gradient_norm", "", 1),
    ("Tokens per second", "tokens_per_second", "tokens/s", 1),
    ("Utilisation", "utilisation", "share of peak FLOP/s", 1),
    ("Waiting for data", "data_wait", "share of the time", 1),
    ("Waiting for checkpoints", "checkpoint_wait", "share of the time", 1),
    ("Memory", "memory", "GB", 10**9),
)


def section(run: RunFolder) -> Section:
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
