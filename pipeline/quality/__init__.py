"""Quality: signals once, rules after."""

from pipeline.quality.rules import keep
from pipeline.signals import signals

__all__ = ["keep", "signals"]
