"""Learning rate and batch size as pure functions of the step, so that no schedule has state to save.

`rate` returns the factor on every peak rate: linear warm-up, then

- `wsd` (warm-up, stable, decay; MiniCPM, arXiv:2404.06395): constant, then linear down to the floor over the
  last `decay` share of the steps;
- `cosine` (arXiv:1608.03983): half a cosine from the peak to the floor.
"""

from __future__ import annotations

import math

from trainer.config import ScheduleConfig


def rate(config: ScheduleConfig, step: int, steps: int) -> float:
    """Factor in (0, 1] on the peak learning rate of update `step` (0-based) out of `steps`.

    The last warm-up step reaches the peak and update `steps - 1` the floor. A run shorter than its warm-up
    never leaves it.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.name == "cosine":
        done = _share(step, config.warmup, steps)
        return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * done))
    start = max(config.warmup, steps - round(config.decay * steps))
    return 1.0 - (1.0 - config.floor) * _share(step, start, steps) if step >= start else 1.0


def _share(step: int, start: int, steps: int) -> float:
    """Share, in (0, 1], of the updates from `start` to the end that are done with update `step`."""
    return (step - start + 1) / (steps - start)


def ramped_sizes(steps: int, full: int) -> list[int]:
    """Batch sizes of the first `steps` updates: an eighth of `full`, two eighths, ... each for as many steps."""
    return [max(1, full * (1 + 8 * step // steps) // 8) for step in range(steps)]
