"""What a run writes and says while it goes: rows, warnings, and the clock between two rows.

What the recipe decides goes into metrics.jsonl, the same bytes in every run; what a clock or an interruption makes
differ goes into log.jsonl. The trackers and the observer get both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.metrics import Metrics
from trainer.progress import Observer
from trainer.track import Trackers


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
