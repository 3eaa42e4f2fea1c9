"""How many of so many units would lie as far out by chance: a tail extrapolated from the body of the units themselves.

What is looked for must not make the tail that it is measured by. So the largest tenth of the scores is taken for
exponentially distributed above its threshold (any distribution whose tail is no heavier gives fewer), and its mean is
estimated from its median: only when one in twenty of all units is an outlier does half of that tenth consist of them.
Where there are enough units, the same is done with the largest 2 % and 0.4 %, which follow a tail that falls faster;
outliers can only fatten these, and the smallest expectation counts. The predictive distribution allows for the error of
the mean (of an exponential sample of size k: Lomax with shape k, here with half as many, which is what a median is
worth).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.statistics.known import sorted_quantile

LEAST_UNITS = 16  # fewer say nothing about their own tail
_SHARES = (0.1, 0.02, 0.004)  # of the units that make a tail …
_LEAST, _ENOUGH = 20, 50  # … at least so many; the smaller shares only where they are so many
_WORTH = 0.5  # of a median against a mean, as an estimate of an exponential's scale (efficiency ln²2 ≈ 0.48)
_BODY = 0.9  # quantile up to which a row's own upper side widens its spread
_NORMAL_BODY = 1.2816  # and that quantile of a standard normal


def expected_beyond(scores: NDArray[np.floating], among: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """The expected number of units with a score at least as large, for each score.

    Parameters
    ----------
    scores
        Any shape; larger is stranger. NaN is not counted; infinity is beyond everything.
    among
        Scores whose tail counts instead of that of `scores` themselves.

    Returns
    -------
    ndarray, the shape of `scores`
        NaN where the score is, and everywhere below `LEAST_UNITS` scores.
    """
    given: NDArray[np.float64] = np.asarray(scores, np.float64)
    of = given if among is None else np.asarray(among, np.float64)
    known = np.sort(of[np.isfinite(of)])
    count = len(known)
    expected = np.full(given.shape, np.nan)
    if count < LEAST_UNITS:
        return expected
    units = int((~np.isnan(given)).sum())
    if not units:
        return expected
    tails = [int(share * count) for share in _SHARES]
    sizes = [min(max(tails[0], _LEAST), count // 2), *(size for size in tails[1:] if size >= _ENOUGH)]
    beyond = np.min([_beyond(given, known, size) for size in sizes], axis=0) * units / count
    threshold = known[-sizes[0] - 1]
    below = units / count * (count - np.searchsorted(known, given, side="left"))  # in the bulk: as there are
    return np.where(np.isnan(given), np.nan, np.where(given > threshold, beyond, below))


def least_beyond(among: NDArray[np.floating], units: int, most_expected: float) -> float:
    """The smallest score that so many expected units, of so many looked at, leave beyond; NaN where none does."""
    scores = np.geomspace(1, 1e3, 400)
    expected = expected_beyond(scores, among) * units / len(scores)
    beyond = np.flatnonzero(expected <= most_expected)
    return float(scores[beyond[0]]) if len(beyond) else float("nan")


def _beyond(scores: NDArray[np.float64], known: NDArray[np.float64], tail: int) -> NDArray[np.float64]:
    """Expected units with a score at least as large, by the exponential tail of so many of the known ones."""
    threshold = known[-tail - 1]
    excess = max(float(np.median(known[-tail:] - threshold)) / np.log(2), np.finfo(float).tiny)
    worth = _WORTH * tail
    above = np.maximum(scores - threshold, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = tail * (1 + above / (excess * worth)) ** -worth
    # at its threshold a tail says how many of the units there are, whatever lies below
    beyond = np.where(scores > threshold, beyond, np.inf)
    found: NDArray[np.float64] = np.where(np.isposinf(scores), 0.0, beyond)
    return found


def expected_beyond_few(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The same for a handful of standardised units, such as layers: by Student's t, whose tail is heavier than normal.

    Its degrees of freedom are a quarter of the units, at least 4: about what a robust spread of them is worth.
    """
    from scipy.special import stdtr

    scores = np.asarray(scores, np.float64)
    count = int(np.isfinite(scores).sum())
    expected: NDArray[np.float64] = 2 * count * stdtr(max(count / 4, 4.0), -np.abs(scores))
    return expected


def standardised(
    values: NDArray[np.floating], axis: int, reference: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Distance from the median in robust standard deviations, along an axis.

    A row's spread is the median absolute deviation, or its upper side up to the 90 % quantile where that is wider (a
    head that one prompt in five uses otherwise is no anomaly in each of them). Each spread is averaged with the typical
    one of all rows, so that a row of few values is not all tail.

    Parameters
    ----------
    values
        NaN is left out.
    axis
        Along which a distribution lies.
    reference
        Values of the same shape but for that axis, whose median and spread count instead.
    """
    numbers: NDArray[np.float64] = np.asarray(values, np.float64)
    middle, spread = spreads(numbers if reference is None else reference, axis)
    standard: NDArray[np.float64] = np.broadcast_to((numbers - middle) / spread, numbers.shape)
    return standard


def spreads(values: NDArray[np.floating], axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Medians and robust standard deviations along an axis, which is kept; see `standardised`."""
    of = np.where(np.isfinite(values), np.asarray(values, np.float64), np.nan)
    if not of.shape[axis]:
        nothing = np.full([1 if place == axis else size for place, size in enumerate(of.shape)], np.nan)
        return nothing, nothing
    ordered = np.sort(of, axis=axis)
    middle = sorted_quantile(ordered, 0.5, axis)
    spread = 1.4826 * sorted_quantile(np.sort(np.abs(of - middle), axis=axis), 0.5, axis)
    spread = np.fmax(spread, (sorted_quantile(ordered, _BODY, axis, between=False) - middle) / _NORMAL_BODY)
    positive = spread[np.isfinite(spread) & (spread > 0)]
    if not positive.size:
        return middle, np.full(middle.shape, np.nan)
    typical = float(np.median(positive))
    return middle, np.sqrt((spread**2 + typical**2) / 2)
