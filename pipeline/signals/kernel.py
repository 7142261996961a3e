"""How the kernels of signals are compiled: without counting references, without checks of divisors.

Kernels allocate nothing and own nothing: callers hand them arrays. So numba need not count references to arrays, which
took a quarter of the word rule's time. Only what Python calls (`kernel`) is kept on disk and can be called from Python:
the rest (`inner`) becomes part of it, which shortens compilation. numba keeps a compiled kernel until the file that
defines it changes, whatever it calls: so each file of kernels states hashes of the files whose code or constants it
takes in (`BUILT_ON`), which a test compares.
"""

from __future__ import annotations

import numpy as np
from numba import njit

kernel = njit(cache=True, _nrt=False, error_model="numpy")
inner = njit(_nrt=False, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

SEED = np.uint64(0x9E3779B97F4A7C15)  # of FNV-like hashes: value = (value ^ item) * PRIME
PRIME = np.uint64(0x100000001B3)
