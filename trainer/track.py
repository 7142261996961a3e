"""A run's numbers in TensorBoard, Weights & Biases or MLflow, behind one small interface.

metrics.jsonl and log.jsonl are always written; these are for whoever has one of the three open anyway. Each is an
optional library, imported when `track:` names it. Where they send things is their own environment's business
(WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, ...); TensorBoard writes into `tensorboard/` in the run's folder.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import TrainerError


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
