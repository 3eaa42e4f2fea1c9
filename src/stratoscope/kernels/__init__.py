"""Small compiled loops for what NumPy and torch can only do in several passes. Optional: each has a fallback.

A kernel is a C function that takes addresses and sizes; it neither allocates nor keeps anything, and runs without
Python's global lock. Whoever calls one asks `library()` and does the work otherwise where that is None: where no
compiler was found when Stratoscope was installed, or `STRATOSCOPE_KERNELS=0` is set.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("kernels.so")
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_int64
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "squares_f32": (_ADDRESS, _COUNT, _COUNT, _COUNT, _ADDRESS),
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, None where there are none."""
    if os.environ.get("STRATOSCOPE_KERNELS") == "0" or not _FILE.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(_FILE))
        for name, arguments in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, None
    except (OSError, AttributeError):  # of another machine, or of another version
        return None
    return loaded
