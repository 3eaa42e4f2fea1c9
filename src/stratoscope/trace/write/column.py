"""One growing array on its way to disk: turns pieces of values into whole chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr


class Column:
    """Writes the values of one array, a commit at a time.

    The values since the last whole chunk stay in memory, so that a growing chunk is rewritten without reading it.

    Parameters
    ----------
    array
        The array, with its committed shape; its first dimension grows.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        length = array.shape[0]
        self._start = length - length % array.chunks[0]
        self._tail = np.asarray(array[self._start : length])

    def stage(self, pieces: Sequence[np.ndarray]) -> None:
        """Add values: writes every chunk that they touch to the array's store."""
        values = np.concatenate([self._tail, *pieces])
        if len(values) == len(self._tail):
            return
        self._array.resize((self._start + len(values), *self._array.shape[1:]))
        self._array[self._start :] = values
        whole = len(values) - len(values) % self._array.chunks[0]
        self._start += whole
        self._tail = values[whole:].copy()  # a view would keep all of `values` in memory
