"""The losses of a past step's documents at that moment, by training again up to it.

A step follows from the checkpoint before it, so the run is repeated from the newest one that is kept (or from the
start) in a temporary folder, with the settings that the checkpoints record, up to the forward pass of the step. On the
same machine and number of processes these are the numbers that the run saw. A step that the ledger skips is taken as if
it were not skipped. Costs the steps in between; nothing in the training folder changes.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from common.errors import TrainerError
from common.files import read_json, write_json
from common.observe import Observer
from common.runfolder import ACCOUNT, Row
from trainer.anomalies import Ledger
from trainer.checkpoint import list_checkpoints
from trainer.config import AnomalyConfig, CheckpointConfig, TrainConfig
from trainer.loop import train
from trainer.recorder import Reached
from trainer.trained import load_checkpoint


def replay(train_dir: Path, shards: Path | str, step: int, observer: Observer | None = None) -> Row:
    """The account of a step (trainer.pieces.account). Raises TrainerError where it cannot be repeated."""
    newest, _ = load_checkpoint(train_dir)
    if "config" not in newest.state:
        raise TrainerError(f"{newest.path} does not record its settings: an earlier version wrote it; train again")
    config = TrainConfig.model_validate(newest.state["config"])
    if not 1 <= step <= config.steps:
        raise TrainerError(f"step {step} is not one of the run's steps, 1 to {config.steps}")
    config = config.model_copy(
        update={
            "anomalies": AnomalyConfig(),
            "checkpoint": CheckpointConfig(every=config.steps, accept=config.checkpoint.accept),
            "evaluation": config.evaluation.model_copy(update={"every": config.steps}),
            "record_losses": False,
            "track": [],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "train"
        (again / "checkpoints").mkdir(parents=True)
        entries = Ledger(train_dir / "ledger.json").entries
        others = [asdict(entry) for entry in entries if not entry.first <= step <= entry.last]
        write_json(again / "ledger.json", others)
        for name in ("shards-cache", *(f"checkpoints/{path.name}" for path in _before(train_dir, step))):
            if (train_dir / name).exists():
                (again / name).symlink_to((train_dir / name).resolve())
        try:
            train(config, shards, again, observer, blame=step)
        except Reached:
            told: Row = read_json(again / ACCOUNT.format(step))
            return told
    raise TrainerError(f"step {step} was not reached: the ledger skips it, or the run ended before")


def _before(train_dir: Path, step: int) -> list[Path]:
    """The checkpoints from before a step."""
    return [path for number, path in list_checkpoints(train_dir / "checkpoints") if number < step]
