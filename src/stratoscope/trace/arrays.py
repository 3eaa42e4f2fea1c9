"""What arrays hold, as types, and how they are indexed; here since it is the lowest package that stands on NumPy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
AnyFloats: TypeAlias = NDArray[np.floating[Any]]  # as recorded: mostly float32
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


def as_slice(index: NDArray[np.integer]) -> slice | NDArray[np.integer]:
    """A run of consecutive places as a slice, which a store reads without a copy; anything else as it is."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
