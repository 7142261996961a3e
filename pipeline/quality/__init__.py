"""Quality: signals once, rules after."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.kernels.signals.measure import signals
    from pipeline.quality.rules import keep

__all__ = ["keep", "signals"]


def __getattr__(name: str) -> Any:
    """Import the public functions when they are asked for: `pipeline.config` reads presets without numba."""
    if name == "keep":
        from pipeline.quality.rules import keep

        return keep
    if name == "signals":
        from pipeline.kernels.signals.measure import signals

        return signals
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
