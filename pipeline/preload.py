"""What workers share: all stages imported, and the kernels loaded that the first document needs.

Other kernels are loaded by each worker when it first needs them, some 0.1 s a stage.
"""

from __future__ import annotations

from importlib import import_module

import pipeline.executors  # noqa: F401 - for the workers
from pipeline.extract.text import extract_text
from pipeline.stage import MODULES

for _module in MODULES.values():
    import_module(_module)
extract_text(b"<html><body><p>A sentence, so that the kernels of the fast extractor are loaded.</p></body></html>")
