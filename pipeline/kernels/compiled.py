"""The decorators of compiled code, and a cache on disk that notices every change.

numba keeps a compiled kernel until the file that defines it changes, whatever that kernel calls. Here a kernel's cache
lies in a folder named after a hash of all sources of its unit (its folder below `pipeline/kernels`, and this folder's
own modules), so a changed callee or constant compiles anew by itself. The cache lies beside the code, or below
NUMBA_CACHE_DIR where that is set. Hashing the sources costs a millisecond a process; the first call of a kernel in a
fresh checkout compiles it, seconds each, about a minute for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
import xxhash
from numba import config

_KERNELS = Path(__file__).parent

# Without reference counts: for functions that allocate nothing and own no array, which callers hand them. Counting,
# which is atomic, took a quarter of the word rule's time.
UNCOUNTED = {"_nrt": False}
inner = numba.njit(**UNCOUNTED, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
helper = numba.njit(**UNCOUNTED)
njit = numba.njit


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that Python calls, and keep the result on disk. options: those of `numba.njit`."""

    def decorate(function: Callable[..., Any]) -> Any:
        with _cache_folder(Path(function.__code__.co_filename).parent):
            return numba.njit(cache=True, **options)(function)

    return decorate


@contextmanager
def _cache_folder(unit: Path) -> Iterator[None]:
    """Let numba choose this unit's cache folder for the functions decorated in the block."""
    before = config.CACHE_DIR
    root = Path(before) if before else unit / "__pycache__"
    config.CACHE_DIR = str(root / f"kernels-{source_hash(unit)}")
    try:
        yield
    finally:
        config.CACHE_DIR = before


@cache
def source_hash(unit: Path) -> str:
    """Hash of the sources that decide a unit's compiled code, 16 hexadecimal digits."""
    digest = xxhash.xxh3_64()
    for path in sorted({*unit.glob("*.py"), *_KERNELS.glob("*.py")}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
