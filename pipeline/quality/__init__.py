"""Quality: signals measured once, rules applied to them."""

from typing import TYPE_CHECKING

from pipeline import lazily

if TYPE_CHECKING:
    from pipeline.kernels.signals.measure import signals
    from pipeline.quality.rules import keep

__all__ = ["keep", "signals"]
__getattr__ = lazily(__name__, keep="pipeline.quality.rules", signals="pipeline.kernels.signals.measure")
