"""Small compiled loops for what NumPy and torch can only do in several passes. Optional: each has a fallback.

A kernel is a C function that takes addresses and sizes; it neither allocates nor keeps anything, and runs without
Python's global lock. Whoever calls one asks `kernel(name)` and does the work otherwise where that is None: where no
compiler was found when Stratoscope was installed, or `STRATOSCOPE_KERNELS=0` is set.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

SWITCH = "STRATOSCOPE_KERNELS"
_FILE = Path(__file__).with_name("kernels.so")
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_int64
_SIGNATURES = {  # function: what it takes, a an address, n a count
    **{f"norms_{kind}": "anna" for kind in ("f32", "bf16")},
    **{f"writes_{kind}": "aannaaa" for kind in ("f32", "bf16")},
    **{f"peaks_{kind}": "annanaaaaaa" for kind in ("f32", "bf16")},
    **{f"explained_{kind}": "annaanaaaaa" for kind in ("f32", "bf16")},
    "attention_f32": "aannnnnnaanannan",
    "edges_f32": "aaannnnnnnnnaaaaa",
    "moments_f32": "aaannnaa",
    "ranks_f32": "annnaaaaa",
}
MOST_PEAKS = _LANES = 64  # LANES and TEETH of rows.c
MOST_EDGES = 64  # LANES of edges.c
_TEETH = 8

Kernel = Callable[..., None]


def peaks_room(width: int) -> int:
    """Numbers of 4 bytes that the kernel `peaks` needs for rows of that width: 5 bytes for each comb."""
    return -(-width // (_LANES * _TEETH)) * _LANES * 5 // 4


@cache
def kernel(name: str) -> Kernel | None:
    """A compiled function by its name in C, None where there is none."""
    library = _library()
    return None if library is None else getattr(library, name, None)  # a library may be older than a kernel


def state() -> str:
    """ "compiled" where kernels are at hand; otherwise "none" and why."""
    if _library() is not None:
        return "compiled"
    if os.environ.get(SWITCH) == "0":
        return f"none ({SWITCH}=0)"
    return "none (not compiled when it was installed)" if not _FILE.exists() else "none (cannot be loaded here)"


@cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH) == "0" or not _FILE.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(_FILE))
    except OSError:  # of another machine
        return None
    for name, signature in _SIGNATURES.items():
        function = getattr(loaded, name, None)
        if function is not None:
            function.argtypes = [_ADDRESS if kind == "a" else _COUNT for kind in signature]
            function.restype = None
    return loaded
