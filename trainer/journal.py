"""What a run writes and says while it goes: rows, warnings, and the clock between two rows.

What the recipe decides goes into metrics.jsonl, the same bytes in every run; what a clock or an interruption makes
differ goes into log.jsonl. The trackers and the observer get both.

metrics.jsonl: one JSON row per event, exact across interruptions.

Each checkpoint records how long the file was; a resumed run cuts it back to there and writes the same rows again.
So no row is missing or repeated, and a row torn by a kill disappears with its tail.

A run's numbers in TensorBoard, Weights & Biases or MLflow, behind one small interface.

metrics.jsonl and log.jsonl are always written; these are for whoever has one of the three open anyway. Each is an
optional library, imported when `track:` names it. Where they send things is their own environment's business
(WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, ...); TensorBoard writes into `tensorboard/` in the run's folder.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from common.errors import TrainerError
from common.observe import Observer


@dataclass
class Clock:
    """Seconds since the last row: of training in all, of it waiting for data and for checkpoints; tokens trained."""

    seconds: float = 0.0
    data_wait: float = 0.0
    checkpoint_wait: float = 0.0
    tokens: int = 0

    def rates(self, flops_per_token: int, peak_flops: float) -> dict[str, float]:
        """Tokens per second, share of the peak FLOP/s, shares of the time; zeros where no step was timed."""
        seconds, per_second = self.seconds or 1.0, self.tokens / (self.seconds or 1.0)
        return {
            "tokens_per_second": per_second,
            "utilisation": per_second * flops_per_token / peak_flops,
            "data_wait": self.data_wait / seconds,
            "checkpoint_wait": self.checkpoint_wait / seconds,
        }


class Journal:
    """The rows of a run."""

    def __init__(self, output: Path, observer: Observer, kept: int | None) -> None:
        """kept: bytes of metrics.jsonl that the checkpoint knows of, behind which it goes on; None keeps all."""
        self.observer = observer
        self.metrics = Metrics(output / "metrics.jsonl", kept)
        self.log = Metrics(output / "log.jsonl")
        self.trackers = Trackers([], output, {})

    def trained(self, row: dict[str, Any], speed: dict[str, float]) -> None:
        """A row of losses, and what the clock said meanwhile."""
        self.metrics.write({"kind": "train"} | row)
        self.log.write({"kind": "speed", "step": row["step"]} | speed)
        self.trackers.log({"kind": "train"} | row | speed)
        self.observer.step({"kind": "train"} | row | speed)

    def evaluated(self, row: dict[str, Any]) -> None:
        """A row of held-out scores."""
        self.metrics.write({"kind": "eval"} | row)
        self.trackers.log({"kind": "eval"} | row)
        self.observer.evaluated({"kind": "eval"} | row)

    def sampled(self, step: int, samples: list[dict[str, str]]) -> None:
        """What the model made of the prompts."""
        self.metrics.write({"kind": "samples", "step": step, "samples": samples})

    def skipped(self, step: int, policy: str, reason: str) -> None:
        """A step was left out."""
        self.metrics.write({"kind": "skipped", "step": step, "policy": policy, "reason": reason})
        self.observer.warning(f"step {step} is left out ({policy}): {reason}")

    def warn(self, step: int, message: str) -> None:
        """Something that the user should know."""
        self.log.write({"kind": "warning", "step": step, "message": message})
        self.observer.warning(message)

    def close(self) -> None:
        """Close the files."""
        self.trackers.close()
        self.metrics.close()
        self.log.close()


class Metrics:
    """An append-only log that can be cut back."""

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open for appending after the first `size` bytes, where given; the rest is dropped."""
        self.file = path.open("ab")
        if size is not None and self.file.tell() > size:
            self.file.truncate(size)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self.file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.file.flush()

    def sync(self) -> int:
        """Bring every row to the disk and return the file's length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Tracker(Protocol):
    """Receives numbers by name."""

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, output: Path, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(output / "tensorboard"))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """One run, named after the folder above; its id follows from the path, so that a resumed run goes on in it."""

    def __init__(self, output: Path, config: dict[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        identity = hashlib.blake2b(str(output.resolve()).encode(), digest_size=8).hexdigest()
        self.run = wandb.init(id=identity, name=output.parent.name, dir=output, config=config, resume="allow")

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """One run of the active experiment."""

    def __init__(self, output: Path, config: dict[str, Any]) -> None:
        self.mlflow: Any = importlib.import_module("mlflow")
        self.mlflow.start_run(run_name=output.parent.name)
        self.mlflow.log_dict(config, "train.json")

    def log(self, step: int, values: dict[str, float]) -> None:
        self.mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


TRACKERS: dict[str, type[TensorBoard | WeightsAndBiases | MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


class Trackers:
    """All that a run was asked to feed."""

    def __init__(self, names: Sequence[str], output: Path, config: dict[str, Any]) -> None:
        """Raises TrainerError where a library is missing."""
        self.trackers: list[Tracker] = []
        for name in names:
            try:
                self.trackers.append(TRACKERS[name](output, config))
            except ModuleNotFoundError as error:
                raise TrainerError(f"track: {name} needs the library `{error.name}`: pip install {name}") from error

    def log(self, row: dict[str, Any]) -> None:
        """Hand on a row's numbers, nested ones by path: `streams/web/loss`; an evaluation's under `validation/`."""
        prefix = "validation/" if row["kind"] == "eval" else "train/"
        values = {prefix + name: value for name, value in _numbers(row, "").items() if name != "step"}
        for tracker in self.trackers:
            tracker.log(row["step"], values)

    def close(self) -> None:
        """Finish all."""
        for tracker in self.trackers:
            tracker.close()


def _numbers(row: dict[str, Any], path: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{path}{name}/")
        elif isinstance(value, int | float):
            numbers[path + name] = value
    return numbers
