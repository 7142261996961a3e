"""A run's rows, warnings and speed: metrics.jsonl, log.jsonl, trackers and observer.

metrics.jsonl holds what the recipe decides: the same bytes in every run. A checkpoint records its length; a resumed
run cuts the file back to that and writes the same rows again, so that no row is missing, repeated or torn. log.jsonl
holds what depends on a clock or an interruption. Trackers and observer get both. A tracker that fails is left out: it
must not end a training.

Trackers (TensorBoard, Weights & Biases, MLflow) are optional libraries, imported when `track:` names them. Their own
environment variables say where they send (WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, ...); TensorBoard writes to
`tensorboard/` in the run's folder.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import TrainerError
from common.files import write_atomically
from common.observe import Observer

Row = dict[str, Any]


@dataclass
class Clock:
    """Since the last row: seconds of training, of waiting for data and for checkpoints within it, tokens trained."""

    seconds: float = 0.0
    data_wait: float = 0.0
    checkpoint_wait: float = 0.0
    tokens: int = 0

    def rates(self, flops_per_token: int, peak_flops: float) -> dict[str, float]:
        """Tokens per second, share of the peak FLOP/s, shares of waiting; zeros where no step was timed."""
        seconds, per_second = self.seconds or 1.0, self.tokens / (self.seconds or 1.0)
        return {
            "tokens_per_second": per_second,
            "utilisation": per_second * flops_per_token / peak_flops,
            "data_wait": self.data_wait / seconds,
            "checkpoint_wait": self.checkpoint_wait / seconds,
        }


class Journal:
    def __init__(self, output: Path, observer: Observer, kept: int | None) -> None:
        """kept: length in bytes to which metrics.jsonl is cut back; None keeps all of it."""
        self.output, self.observer = output, observer
        self.sent = _last_steps(output / "metrics.jsonl")
        self.metrics = RowFile(output / "metrics.jsonl", kept)
        self.log = RowFile(output / "log.jsonl")
        self.trackers: dict[str, Tracker] = {}

    def track(self, names: Sequence[str], config: Row, step: int) -> None:
        """Start the trackers of these names, after `step`; one that fails is left out.

        Raises TrainerError where a library is missing.
        """
        for name in names:
            try:
                self.trackers[name] = TRACKERS[name](self.output, config, step, self.sent)
            except ModuleNotFoundError as error:
                raise TrainerError(f"track: {name} needs the library `{error.name}`: pip install {name}") from error
            except Exception as error:  # noqa: BLE001 - each library has its own, and none may end a training
                self._leave_out(name, step, error)

    def trained(self, row: Row, speed: dict[str, float]) -> None:
        """Write a row of training, and its speed to the log."""
        row = {"kind": "train"} | row
        self.metrics.write(row)
        self._note({"kind": "speed", "step": row["step"]} | speed)
        self._send("train/", row | speed)
        self.observer.step(row | speed)

    def evaluated(self, row: Row) -> None:
        row = {"kind": "eval"} | row
        self.metrics.write(row)
        self._send("validation/", row)
        self.observer.evaluated(row)

    def sampled(self, step: int, samples: list[dict[str, str]]) -> None:
        self.metrics.write({"kind": "samples", "step": step, "samples": samples})

    def skipped(self, step: int, policy: str, reason: str) -> None:
        self.metrics.write({"kind": "skipped", "step": step, "policy": policy, "reason": reason})
        self.observer.warning(f"step {step} is skipped ({policy}): {reason}")

    def warn(self, step: int, message: str) -> None:
        self._note({"kind": "warning", "step": step, "message": message})
        self.observer.warning(message)

    def close(self) -> None:
        for name in list(self.trackers):
            try:
                self.trackers[name].close()
            except Exception as error:  # noqa: BLE001 - as above
                self._leave_out(name, 0, error)
        self.metrics.close()
        with suppress(OSError):
            self.log.close()

    def _leave_out(self, name: str, step: int, error: Exception) -> None:
        self.trackers.pop(name, None)
        lines = str(error).strip().splitlines() or [""]
        self.warn(
            step, f"track: {name} failed and is left out ({type(error).__name__}: {lines[0]}); training continues"
        )

    def _note(self, row: Row) -> None:
        """Write to log.jsonl, without which a training can go on."""
        with suppress(OSError):
            self.log.write(row)

    def _send(self, prefix: str, row: Row) -> None:
        """Give the trackers a row's numbers, nested ones by path, e.g. `validation/streams/web/loss`."""
        values = {prefix + name: value for name, value in _numbers(row, "").items() if name != "step"}
        for name, tracker in list(self.trackers.items()):
            if row["step"] <= tracker.known.get(row["kind"], -1):
                continue
            try:
                tracker.log(row["step"], values)
            except Exception as error:  # noqa: BLE001 - as above
                self._leave_out(name, row["step"], error)


class RowFile:
    """An append-only file of JSON rows that can be cut back."""

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open for appending after the first `size` bytes, where given; the rest is dropped."""
        self.file = path.open("ab")
        if size is not None and self.file.tell() > size:
            self.file.truncate(size)

    def write(self, row: Row) -> None:
        self.file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.file.flush()

    def sync(self) -> int:
        """Flush all rows to the disk and return the file's length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


def _last_steps(path: Path) -> dict[str, int]:
    """The last step of each kind of row: what trackers have received of a run that is resumed."""
    steps: dict[str, int] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):  # a torn line
            row = json.loads(line)
            steps[row["kind"]] = max(steps.get(row["kind"], 0), row["step"])
    return steps


class Tracker(NamedTuple):
    """A service that receives numbers by name: `log(step, values)`.

    known: the last step that it has of each kind of row (train, eval); a resumed run sends later ones only.
    """

    log: Callable[[int, dict[str, float]], Any]
    close: Callable[[], Any]
    known: Mapping[str, int] = {}


def _tensorboard(output: Path, _config: Row, step: int, _sent: Row) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(output / "tensorboard"), purge_step=step + 1)  # later points of a killed run are hidden

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Tracker(log, writer.close)


def _wandb(output: Path, config: Row, _step: int, sent: Row) -> Tracker:
    """A run named after the folder above `output`; its id follows from the path, so that a resumed run continues it."""
    wandb: Any = importlib.import_module("wandb")
    identity = hashlib.blake2b(str(output.resolve()).encode(), digest_size=8).hexdigest()
    run = wandb.init(id=identity, name=output.parent.name, dir=output, config=config, resume="allow")
    known = sent if not run.step else dict.fromkeys(("train", "eval"), run.step - 1)  # offline, it does not know
    return Tracker(lambda step, values: run.log(values, step=step), run.finish, known)


def _mlflow(output: Path, config: Row, _step: int, _sent: Row) -> Tracker:
    """A run of the active experiment, named after the folder above `output`, which keeps its id."""
    for name, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "20")):  # training waits; the defaults try for many minutes
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    mlflow: Any = importlib.import_module("mlflow")
    kept = output / "mlflow-run"
    client, known = mlflow.MlflowClient(), {}
    if kept.is_file():
        identity = kept.read_text("utf-8")
        mlflow.start_run(run_id=identity)
        for kind, name in (("train", "train/loss"), ("eval", "validation/loss")):
            known[kind] = max((point.step for point in client.get_metric_history(identity, name)), default=-1)
    else:
        run = mlflow.start_run(run_name=output.parent.name)
        write_atomically(kept, run.info.run_id.encode())
        mlflow.log_dict(config, "train.json")
    return Tracker(lambda step, values: mlflow.log_metrics(values, step=step), mlflow.end_run, known)


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


def _numbers(row: Row, path: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{path}{name}/")
        elif isinstance(value, int | float):
            numbers[path + name] = value
    return numbers
