"""Infinite values: a trace may hold them, a statistic cannot. They are left out as if missing, counted, and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.notes import WARNING, Note

if TYPE_CHECKING:
    import xarray as xr

_LARGEST = {4: 1e18, 8: 1e100}  # bytes of a number -> the largest whose square, summed over a trace, it can hold
_LINE = "L05"
_PART = 2**22  # numbers counted together


def without_number(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values are infinite, or so large that nothing can be computed with them; not where they are missing."""
    if values.dtype.kind != "f":
        return np.zeros(values.shape, np.bool_)
    most = _LARGEST.get(values.dtype.itemsize, np.finfo(values.dtype).max)
    found: NDArray[np.bool_] = ~(np.abs(values) <= most) & ~np.isnan(values)
    return found


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """The same with NaN for what is infinite."""
    infinite = without_number(values)
    return np.where(infinite, values.dtype.type(np.nan), values) if infinite.any() else values


@dataclass(frozen=True)
class Finite:
    """A trace as statistics see it.

    Attributes
    ----------
    dataset
        The trace with NaN for what is infinite, lazily: what nobody reads is not looked at.
    given
        The trace itself.
    met
        Quantities in which something infinite was read.
    """

    dataset: xr.Dataset
    given: xr.Dataset
    met: set[str] = field(default_factory=set)

    def counts(self) -> dict[str, int]:
        """How many values of each quantity are left out, of those quantities in which one was met."""
        return {name: _count(self.given[name]) for name in self.given.data_vars if name in self.met}

    def with_note(self, result: xr.DataTree, whose: str = "") -> xr.DataTree:
        """The Result that was just made, with a note on what was left out of it."""
        if not self.met:
            return result
        said = infinite_note(self.counts(), "left out of every statistic, as if they were missing", whose)
        result.attrs["notes"].append(said.stored())
        return result


def infinite_note(counts: Mapping[str, int], what: str, whose: str = "") -> Note:
    """The note on infinite values: how many of which quantity, and what was done about them."""
    listed = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    of = f" of {whose}" if whose else ""
    return Note(_LINE, WARNING, f"Values{of} that are infinite or too large to compute with ({listed}): {what}.")


def finite_trace(dataset: xr.Dataset) -> Finite:
    """A trace as statistics see it."""
    met: set[str] = set()
    changed: dict[str, xr.Variable] = {}
    for name in map(str, dataset.data_vars):
        variable = dataset.variables[name]
        if name not in names.QUANTITIES or variable.dtype.kind != "f":
            continue
        changed[name] = _lazily(variable, name, met)
    masked = dataset.assign(changed)
    masked.encoding = dict(dataset.encoding)
    return Finite(masked, dataset, met)


def _lazily(variable: xr.Variable, name: str, met: set[str]) -> xr.Variable:
    import xarray as xr
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class FiniteArray(BackendArray):
        """The array of a variable that is masked as it is read."""

        shape, dtype = variable.shape, variable.dtype

        def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
            outer = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

        def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
            stored = np.asarray(variable[key].values)
            values = finite(stored)
            if values is not stored:
                met.add(name)
            return values

    return xr.Variable(variable.dims, indexing.LazilyIndexedArray(FiniteArray()), variable.attrs)


def _count(array: xr.DataArray) -> int:
    step = max(1, _PART // max(1, array[:1].size))
    parts = (array[start : start + step].values for start in range(0, len(array), step))
    return sum(int(without_number(part).sum()) for part in parts)
