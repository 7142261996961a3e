"""Decorators for compiled code with a cache that notices every change, and what numba does not offer officially.

numba keeps a compiled kernel until the file that defines it changes, whatever that kernel calls. Here a kernel's cache
lies in a folder named after a hash of all sources of its unit (its folder below `pipeline/kernels`, and this folder's
own modules), so a changed callee or constant compiles anew by itself. The cache lies beside the code, below
NUMBA_CACHE_DIR where that is set, or in the user's cache folder where the code is read-only. Hashing the sources costs
a millisecond a process; the first call of a kernel in a fresh checkout compiles it, seconds each, about a minute for
all (`make install` does that). Tables of Unicode's characters are kept there, too: building them takes some 0.2 s.

Three things here are not part of numba's public interface, and are used nowhere else: the option `_nrt`, the LLVM
intrinsics at the end, and `_skip_scipy`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import xxhash
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = np.ndarray[Any, Any]
_KERNELS = Path(__file__).parent


def _skip_scipy() -> None:
    """Spare each process 0.2 s: numba's first kernel imports scipy.linalg only to see whether np.dot can be compiled.

    numba asks again when it compiles a kernel with np.dot.
    """
    if not {"scipy.linalg", "numba.np.arraymath"} & sys.modules.keys():
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # makes importing it fail
        try:
            arraymath = importlib.import_module("numba.np.arraymath")
        finally:
            del sys.modules["scipy.linalg"]
        arraymath._HAVE_BLAS = True  # type: ignore[attr-defined]


_skip_scipy()

# `_nrt` switches off reference counts, which are atomic: a quarter of the word rule's time. Only for functions that
# allocate nothing and keep no array.
UNCOUNTED = {"_nrt": False}
inner = numba.njit(**UNCOUNTED, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
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
    config.CACHE_DIR = str(_folder(unit))
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _folder(unit: Path) -> Path:
    root = Path(config.CACHE_DIR) if config.CACHE_DIR else unit / "__pycache__"
    if not config.CACHE_DIR and not os.access(root if root.exists() else unit, os.W_OK):
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pretrain"
    return root / f"kernels-{source_hash(unit)}"


def kept_table(version: str) -> Callable[[Callable[[], Array]], Callable[[], Array]]:
    """Build a table once for all processes: it is kept with the compiled kernels, for one version of what it is of."""

    def decorate(build: Callable[[], Array]) -> Callable[[], Array]:
        @cache
        def load() -> Array:
            unit = Path(build.__code__.co_filename).parent
            path = _folder(unit) / f"{build.__name__}-{sys.implementation.cache_tag}-{version}.npy"
            try:
                table: Array = np.load(path)
            except (OSError, ValueError, EOFError):
                table = build()
                with suppress(OSError):  # no place to write
                    path.parent.mkdir(parents=True, exist_ok=True)
                    unfinished = path.with_suffix(f".{os.getpid()}.npy")
                    np.save(unfinished, table)
                    unfinished.replace(path)
            return table

        return load

    return decorate


@cache
def source_hash(unit: Path) -> str:
    """Hash of the sources that decide a unit's compiled code, 16 hexadecimal digits."""
    digest = xxhash.xxh3_64()
    for path in sorted({*unit.glob("*.py"), *_KERNELS.glob("*.py")}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


PADDING = 16  # bytes that must be readable behind a text that `word_at` reads


@intrinsic
def item(typing_context: Any, array: Any, index: Any) -> Any:
    """array[index] of a one-dimensional contiguous array, without checks: the index must lie inside."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments))

    return array.dtype(array, types.intp), generate


@intrinsic
def word_at(typing_context: Any, array: Any, index: Any) -> Any:
    """The eight bytes of a uint8 array from any index on, as one little-endian word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature, arguments)
        return builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.intp), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Load the cache line of array[index] of a one-dimensional contiguous array ahead of its use."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(_address(context, builder, signature, arguments), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Number of zero bits below the lowest one, 64 for the word 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])
