"""What a run must share with its checkpoint to be resumed, and what it may change with a warning.

Data, tokenizer, model shape, batch and seed decide what every step means: other values are refused. Learning rates,
schedule, length or precision may be changed by whoever knows why; the change is named, for the run is then no longer
the one that an uninterrupted run of either recipe would have been.
"""

from __future__ import annotations

from typing import Any

from trainer.config import ModelConfig, TrainConfig
from trainer.errors import TrainerError
from trainer.shards import Shards

Fields = dict[str, Any]
SETTINGS = ("steps", "optimizer", "schedule", "z_loss", "precision", "document_mask", "compile")


def identity(config: TrainConfig, shards: Shards, model: ModelConfig) -> Fields:
    """The fields that must not change, by the name under which a user finds them."""
    return {
        "shards": shards.fingerprint,
        "tokenizer": shards.tokenizer_sha256,
        **{f"model.{name}": value for name, value in model.model_dump().items()},
        "global_batch_tokens": config.global_batch_tokens,
        "seed": config.seed,
        "data.shuffle_block": config.data.shuffle_block,
        "optimizer.name": config.optimizer.name,
    }


def settings(config: TrainConfig, environment: Fields) -> Fields:
    """The fields that may change with a warning, flat; `environment` says what computes."""
    return _flat(config.model_dump(mode="json", include=set(SETTINGS)), "") | _flat(environment, "environment.")


def check_identity(saved: Fields, now: Fields, checkpoint: str) -> None:
    """Raise TrainerError naming every field that differs, both values, and the way out."""
    lines = _differences(saved, now)
    if lines:
        raise TrainerError(
            f"cannot resume {checkpoint}: it was trained with other settings, and going on would give a model that "
            "belongs to neither:\n  "
            + "\n  ".join(lines)
            + "\nSet the fields back, or train into another output folder"
        )


def changed_settings(saved: Fields, now: Fields) -> str | None:
    """A warning that names what changed, or None."""
    lines = _differences(saved, now)
    if not lines:
        return None
    return "resumed with changed settings, so not bit for bit the uninterrupted run: " + "; ".join(lines)


def _differences(saved: Fields, now: Fields) -> list[str]:
    return [
        f"{field}: checkpoint {saved.get(field)!r}, now {now.get(field)!r}"
        for field in sorted(saved.keys() | now.keys())
        if saved.get(field) != now.get(field)
    ]


def _flat(fields: Fields, prefix: str) -> Fields:
    flat: Fields = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
