"""What workers share: all stages imported, and the kernels loaded that the first document needs.

Other kernels are loaded by each worker when it first needs them, some 0.1 s a stage.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import pyarrow as pa

import pipeline.executors  # noqa: F401 - for the workers
from pipeline.extract.text import extract_text
from pipeline.stage import MODULES


class _Hidden:
    """Spares each worker 0.2 s: pyarrow's first conversion of a Python value imports pandas to see whether it is one.

    pyarrow looks again where a table becomes a data frame, or a data frame a table.
    """

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, _Hidden)
pa.scalar(0)
sys.meta_path.remove(_Hidden)
for _module in MODULES.values():
    import_module(_module)
extract_text(b"<html><body><p>A sentence, so that the kernels of the fast extractor are loaded.</p></body></html>")
gc.freeze()  # collections in the workers pass over what the server loaded, and leave its pages shared
