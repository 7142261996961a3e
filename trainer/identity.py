"""What a run must share with its checkpoint to be resumed, and what it may change with a warning.

Data, tokenizer, batch and seed decide what every step means: other values are refused, unless the field is named in
`checkpoint.accept`. Other model shapes and optimizers cannot take the tensors over at all. Learning rates, schedule,
length, precision or micro-batch may be changed by whoever knows why; the change is named, for the run is then no
longer bit for bit the one that an uninterrupted run would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.config import ModelConfig, TrainConfig
from trainer.errors import TrainerError
from trainer.shards import Shards

Fields = dict[str, Any]
SETTINGS = (
    "steps", "optimizer", "schedule", "z_loss", "precision", "document_mask", "compile", "micro_batch",
    "deterministic", "anomalies",
)  # fmt: skip
ORDER = "the order of the data would change: some samples would be seen twice in this epoch, others not at all"
CONSEQUENCES = {
    "shards": "these are other samples; what was read of the old ones says nothing about what is left of these",
    "tokenizer": "token ids would mean other text than the one that the embeddings were trained on",
    "global_batch_tokens": f"{ORDER}, and the learning rates were chosen for the old batch",
    "batch_ramp": ORDER,
    "seed": ORDER,
    "data.shuffle_block": ORDER,
    "initial": "the run started from other weights, and these would not be used",
}
UNFIT = "the checkpoint's tensors do not fit"


def identity(config: TrainConfig, shards: Shards, model: ModelConfig, initial: str | None) -> Fields:
    """The fields that must not change, by the name under which a user finds them; `initial`: hash of given weights."""
    return {
        "shards": shards.fingerprint,
        "tokenizer": shards.tokenizer_sha256,
        **{f"model.{name}": value for name, value in model.model_dump().items()},
        "global_batch_tokens": config.global_batch_tokens,
        "batch_ramp": config.batch_ramp,
        "seed": config.seed,
        "data.shuffle_block": config.data.shuffle_block,
        "optimizer.name": config.optimizer.name,
        "initial": initial,
    }


def settings(config: TrainConfig, environment: Fields) -> Fields:
    """The fields that may change with a warning, flat; `environment` says what computes."""
    return _flat(config.model_dump(mode="json", include=set(SETTINGS)), "") | _flat(environment, "environment.")


def check_identity(saved: Fields, now: Fields, checkpoint: str, accepted: Sequence[str]) -> list[str]:
    """Warnings about accepted differences.

    Raises TrainerError that names every other field that differs, both values, the consequence and the way out.
    """
    fields = _changed(saved, now)
    refused = [field for field in fields if field not in accepted]
    if refused:
        lines = [f"{_difference(field, saved, now)}: {CONSEQUENCES.get(field, UNFIT)}" for field in refused]
        way = "Set the fields back, or train into another output folder"
        if all(field in CONSEQUENCES for field in refused):
            way += f"; to go on all the same, `--set 'train.checkpoint.accept=[{', '.join(refused)}]'`"
        raise TrainerError(
            f"cannot resume {checkpoint}: it was trained with other settings\n  " + "\n  ".join(lines) + f"\n{way}"
        )
    return [f"accepted on resuming: {_difference(field, saved, now)}" for field in fields]


def changed_settings(saved: Fields, now: Fields) -> str | None:
    """A warning that names what changed, or None."""
    fields = _changed(saved, now)
    if not fields:
        return None
    return "resumed with changed settings, so not bit for bit the uninterrupted run: " + "; ".join(
        _difference(field, saved, now) for field in fields
    )


def _changed(saved: Fields, now: Fields) -> list[str]:
    return [field for field in sorted(saved.keys() | now.keys()) if saved.get(field) != now.get(field)]


def _difference(field: str, saved: Fields, now: Fields) -> str:
    return f"{field}: checkpoint {saved.get(field)!r}, now {now.get(field)!r}"


def _flat(fields: Fields, prefix: str) -> Fields:
    flat: Fields = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
