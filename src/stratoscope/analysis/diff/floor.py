"""What a difference is measured against: the noise floor of either trace, and the rounding of the coarser dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names

if TYPE_CHECKING:
    import xarray as xr

Floats: TypeAlias = NDArray[np.float64]
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # of one operation


@dataclass(frozen=True)
class Noise:
    """What two traces know about their noise.

    Attributes
    ----------
    a, b
        The traces.
    rounding
        Relative rounding error of the coarser of the two dtypes; 0 where neither is known.
    """

    a: xr.Dataset
    b: xr.Dataset
    rounding: float

    @classmethod
    def of(cls, a: xr.Dataset, b: xr.Dataset) -> Noise:
        """Of two traces."""
        return cls(a, b, max(ROUNDING.get(dtype_of(one), 0.0) for one in (a, b)))

    def measured(self, quantity: str) -> bool:
        """Whether either trace has a floor of this quantity."""
        return any(names.floor_name(quantity) in one for one in (self.a, self.b))

    def floor(self, quantity: str, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]) -> Floats | None:
        """The larger floor of the two, of each row (positions on either layer or depth axis); None without any."""
        name = names.floor_name(quantity)
        found = [
            np.asarray(one[name].values, np.float64)[rows]
            for one, rows in ((self.a, rows_a), (self.b, rows_b))
            if name in one
        ]
        return np.fmax.reduce(found) if found else None

    def chance(self, quantity: str) -> float | None:
        """How often a cell of pure noise is above the floor: once in n + 1, the floor being the largest of n tokens."""
        counts = [
            int(facts["tokens"]) - len(facts.get("prompts") or ())
            for one in (self.a, self.b)
            if names.floor_name(quantity) in one
            and (facts := (one.attrs.get("receipt") or {}).get("noise_floor")) and facts.get("tokens")
        ]  # fmt: skip
        return 1 / (max(1, *counts, 1) + 1) if counts else None

    def times(self, difference: Floats, a: Floats, b: Floats, floor: Floats) -> Floats:
        """|difference| / max(floor, rounding · max(|a|, |b|)); 0 where nothing differs, NaN where it is undefined."""
        size = np.abs(difference)
        noise = np.maximum(floor, self.rounding * np.maximum(np.abs(a), np.abs(b)))
        with np.errstate(divide="ignore", invalid="ignore"):
            times: Floats = np.where((size == 0) & ~np.isnan(noise), 0.0, size / noise)
        return times


def dtype_of(dataset: xr.Dataset) -> str:
    """The dtype a trace's model computed in, "" where it is not known."""
    return str((dataset.attrs.get("model") or {}).get("dtype") or "")


def weights_of(dataset: xr.Dataset) -> str:
    """The hash of the model's weights, "" where it is not known."""
    if dataset.attrs.get("source") != names.REAL:
        return ""
    return str((dataset.attrs.get("model") or {}).get("weights_sha256") or "")
