"""Medians, quantiles and extremes of what is known: NaN is left out, and where nothing is known the answer is NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def medians(values: NDArray[np.floating], axis: int = 0) -> NDArray[np.float64]:
    """Medians along an axis without NaN; NaN where there is nothing else."""
    ordered = np.sort(np.asarray(values, np.float64), axis=axis)
    if not ordered.shape[axis]:
        return np.full(np.delete(ordered.shape, axis), np.nan)
    found: NDArray[np.float64] = np.take(sorted_quantile(ordered, 0.5, axis), 0, axis=axis)
    return found


def sorted_quantile(
    ordered: NDArray[np.float64], share: float, axis: int, *, between: bool = True
) -> NDArray[np.float64]:
    """A quantile of sorted rows whose NaNs stand last; not `between` two values but the lower one, if so wished."""
    count = np.isfinite(ordered).sum(axis=axis, keepdims=True)
    place = share * np.maximum(count - 1, 0)
    lower = np.take_along_axis(ordered, np.floor(place).astype(np.int64), axis)
    if not between:
        return lower
    upper = np.take_along_axis(ordered, np.ceil(place).astype(np.int64), axis)
    with np.errstate(invalid="ignore"):  # between two infinite values there is no step
        step = np.where(upper == lower, 0.0, upper - lower)
        found: NDArray[np.float64] = lower + step * (place - np.floor(place))
    return found


def columnwise(reduce: Callable[..., NDArray[np.float64]], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A reduction over rows, such as `np.nanmean`, of the columns in which something is known; NaN elsewhere."""
    known = np.isfinite(values).any(axis=0)
    result = np.full(values.shape[1], np.nan)
    result[known] = reduce(values[:, known], axis=0)
    return result


def quantile(values: NDArray[np.floating], share: float) -> float:
    """A quantile of all known values."""
    known = _known(values)
    return float(np.quantile(known, share)) if known.size else float("nan")


def mean(values: NDArray[np.floating]) -> float:
    """The mean of all known values."""
    known = _known(values)
    return float(known.mean()) if known.size else float("nan")


def largest(values: NDArray[np.floating]) -> float:
    """The largest known value."""
    known = _known(values)
    return float(known.max()) if known.size else float("nan")


def _known(values: NDArray[np.floating]) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = np.asarray(values, np.float64)
    return numbers[np.isfinite(numbers)]
