"""The arrays of a ViewSpec, as types: what they hold, in which data types, along which axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

DTYPES = ("<f4", "<f8", "<i4", "|u1")  # each is a typed array of JavaScript; nothing else is ever written or read
MOST_AXES = 2


@dataclass(frozen=True)
class Buffer:
    """What an array of a ViewSpec may be: one of these data types, along so many axes."""

    dtypes: tuple[str, ...]
    axes: int


_FLOATS = ("<f4", "<f8")
Numbers: TypeAlias = Annotated[NDArray[np.floating[Any]], Buffer(_FLOATS, 1)]
NumberTable: TypeAlias = Annotated[NDArray[np.floating[Any]], Buffer(_FLOATS, 2)]
Indices: TypeAlias = Annotated[NDArray[np.int32], Buffer(("<i4",), 1)]
IndexTable: TypeAlias = Annotated[NDArray[np.int32], Buffer(("<i4",), 2)]
Flags: TypeAlias = Annotated[NDArray[np.uint8], Buffer(("|u1",), 1)]


def indices(values: Any) -> NDArray[np.int32]:
    """Indices or counts as an array of a ViewSpec."""
    return np.asarray(values, np.int32)
