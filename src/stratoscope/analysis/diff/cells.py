"""Token × layer: the difference, the ratio, and how many times the noise floor.

times = |b − a| / max(floor of that quantity in that layer, u · max(|a|, |b|)); the floor is the larger one that either
trace measured (`capture --floor`), u the unit roundoff of the coarser dtype of the two models. Where neither trace
measured a floor there is no times: rounding alone is not the noise of batches, padding and kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.align import GAP
from stratoscope.analysis.diff.prompts import Match
from stratoscope.analysis.tables import table

if TYPE_CHECKING:
    import xarray as xr

Floats: TypeAlias = NDArray[np.float64]
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_TOKENS = 2**15  # read at a time


@dataclass(frozen=True)
class Floor:
    """What differences of a quantity are held against.

    Attributes
    ----------
    measured
        [row], the larger of both traces'; None where neither measured any.
    roundoff
        Of the coarser dtype of the two models; 0 where none is known.
    """

    measured: Floats | None
    roundoff: float

    def times(self, a: Floats, b: Floats) -> Floats:
        """|b − a| over the floor of its cell; NaN without a measured one. Equal values are 0 times whatever floor."""
        if self.measured is None:
            return np.full(np.shape(a), np.nan)
        size = np.fmax(self.measured, self.roundoff * np.maximum(np.abs(a), np.abs(b)))
        apart = np.abs(b - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(apart == 0, 0.0, apart / size)


def floor_of(a: xr.Dataset, b: xr.Dataset, quantity: str) -> Floor:
    """The floor of a quantity of two traces."""
    name = names.floor_name(quantity)
    measured = [np.asarray(one[name].values, np.float64) for one in (a, b) if name in one]
    largest = np.fmax.reduce(measured) if measured else None
    return Floor(largest, max(_roundoff(a), _roundoff(b)))


def _roundoff(trace: xr.Dataset) -> float:
    return ROUNDOFF.get(str((trace.attrs.get("model") or {}).get("dtype", "")), 0.0)


def common_quantities(a: xr.Dataset, b: xr.Dataset) -> list[str]:
    """Quantities with a value for each token and layer that both traces hold, over the same layers."""
    found = []
    for name, row in names.QUANTITIES.items():
        by_layer = row.dims[0] == names.TOKEN and row.dims[1:2] in ((names.LAYER,), (names.DEPTH,))
        if name in a and name in b and by_layer and row.unit != "index" and row.dims[2:] in ((), (names.HEAD,)):
            dim = row.dims[1]
            if np.array_equal(a[dim].values, b[dim].values):
                found.append(name)
    return found


def columns_of(dataset: xr.Dataset, quantity: str, start: int, places: NDArray[np.int64]) -> Floats:
    """Values on aligned columns, [column, row]; NaN in gaps."""
    rows = np.arange(dataset[quantity].shape[1])
    values = np.full((len(places), len(rows)), np.nan)
    there = places != GAP
    values[there] = table(dataset, quantity, start + places[there], rows)
    return values


@dataclass
class Change:
    """The change of a quantity over all aligned tokens, first tokens left out, added up prompt by prompt.

    Attributes
    ----------
    total, largest
        Sum and maximum of |b − a|, [row].
    count, above
        Cells with a value, and those above their floor, [row].
    before
        The largest times of a cell before the first edit; NaN where there is none.
    """

    total: Floats
    largest: Floats
    count: Floats
    above: Floats
    most_times: Floats
    before: float = np.nan
    before_in: str = ""

    @classmethod
    def over(cls, a: xr.Dataset, b: xr.Dataset, quantity: str, matches: Sequence[Match], floor: Floor) -> Change:
        """Go through all prompts."""
        width = a[quantity].shape[1]
        total, largest, count, above, most = np.zeros((5, width))
        change = cls(total, largest, count, above, most)
        rows = np.arange(width)
        for match in matches:
            tokens_a, tokens_b = match.tokens()
            for first in range(0, len(tokens_a), _TOKENS):
                some = slice(first, first + _TOKENS)
                one = np.asarray(table(a, quantity, tokens_a[some], rows), np.float64)
                other = np.asarray(table(b, quantity, tokens_b[some], rows), np.float64)
                change._add(one, other, floor)
                early = tokens_a[some] - match.start_a < match.columns.before
                change._add_early(one[early], other[early], floor, match.name)
        return change

    def _add(self, a: Floats, b: Floats, floor: Floor) -> None:
        apart = np.abs(b - a)
        known = np.isfinite(apart)
        self.total += np.where(known, apart, 0.0).sum(axis=0)
        self.count += known.sum(axis=0)
        self.largest = np.maximum(self.largest, np.where(known, apart, 0.0).max(axis=0, initial=0.0))
        times = np.nan_to_num(floor.times(a, b))
        self.above += (times > 1).sum(axis=0)
        self.most_times = np.maximum(self.most_times, times.max(axis=0, initial=0.0))

    def _add_early(self, a: Floats, b: Floats, floor: Floor, name: str) -> None:
        if floor.measured is None:
            with np.errstate(divide="ignore", invalid="ignore"):
                size = np.maximum(np.abs(a), np.abs(b)) * max(floor.roundoff, ROUNDOFF["float32"]) * 2**10
                times = np.where(a == b, 0.0, np.abs(b - a) / size)
        else:
            times = floor.times(a, b)
        times = times[np.isfinite(times)]
        if times.size and not times.max() <= self.before:
            self.before, self.before_in = float(times.max()), name

    @property
    def mean(self) -> Floats:
        """Mean |b − a| of each row; NaN where nothing is known."""
        with np.errstate(invalid="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)

    @property
    def share_above(self) -> Floats:
        """Share of the cells of each row that exceed their floor."""
        with np.errstate(invalid="ignore"):
            return np.where(self.count > 0, self.above / self.count, np.nan)
