"""How much a trace is like published class profiles, measured by publishing it too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stratoscope.publish.profiles.profiles import class_profiles


@dataclass(frozen=True)
class Alike:
    """Of one quantity.

    Attributes
    ----------
    correlation
        Of the profiles of each class, the smallest.
    of_differences
        Correlation of the difference of the first two classes; NaN where there is one class.
    largest
        Largest difference in any layer, in powers of two where the scale is logarithmic.
    """

    correlation: float
    of_differences: float
    largest: float


def how_alike(published: xr.DataTree, trace: xr.Dataset) -> dict[str, Alike]:
    """Each published quantity that the trace holds."""
    there = [name for name in published["profiles"].children if name in trace]
    again = class_profiles(trace, quantities=there)
    found = {}
    for name in there:
        one, other = (result[f"profiles/{name}/mean"].values.astype(float) for result in (published, again))
        correlations = [_correlation(a, b) for a, b in zip(one, other, strict=True)]
        differ = [values[0] - values[1] for values in (one, other)] if len(one) > 1 else []
        of_differences = _correlation(*differ) if differ else np.nan
        found[name] = Alike(min(correlations), of_differences, float(np.nanmax(np.abs(one - other))))
    return found


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    known = np.isfinite(one) & np.isfinite(other)
    moves = known.sum() > 2 and min(np.ptp(one[known]), np.ptp(other[known])) > 0
    return float(np.corrcoef(one[known], other[known])[0, 1]) if moves else np.nan
