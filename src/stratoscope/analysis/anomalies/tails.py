"""How many of so many units would lie as far out by chance: a tail fitted to the units themselves.

The largest few percent of the scores are taken for exponentially distributed above their threshold (any distribution
whose tail is no heavier gives fewer). Their mean is estimated from their median, which a few outliers do not move; the
predictive distribution allows for its error (of an exponential sample of size k: Lomax with shape k, here with half as
many, which is what a median is worth).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_UNITS = 16  # fewer say nothing about their own tail
_SHARE, _LEAST, _MOST = 0.02, 20, 400  # of the units that make the tail
_WORTH = 0.5  # of a median against a mean, as an estimate of an exponential's scale (efficiency ln²2 ≈ 0.48)


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
    scores = np.asarray(scores, np.float64)
    of = scores if among is None else np.asarray(among, np.float64)
    known = np.sort(of[np.isfinite(of)])
    count = len(known)
    expected = np.full(scores.shape, np.nan)
    if count < LEAST_UNITS:
        return expected
    units = int((~np.isnan(scores)).sum())
    tail = int(np.clip(_SHARE * count, _LEAST, min(_MOST, count // 2)))
    threshold = known[-tail - 1]
    excess = np.median(known[-tail:] - threshold) / np.log(2)
    excess = max(float(excess), np.finfo(float).tiny)
    worth = _WORTH * tail
    above = np.maximum(scores - threshold, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = units / count * tail * (1 + above / (excess * worth)) ** -worth
    beyond = np.where(np.isposinf(scores), 0.0, beyond)
    below = units / count * (count - np.searchsorted(known, scores, side="left"))  # in the bulk: as there are
    return np.where(np.isnan(scores), np.nan, np.where(scores > threshold, beyond, below))


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

    Each spread is averaged with the typical one of all rows, so that a row of few values is not all tail.

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
    of: NDArray[np.float64] = numbers if reference is None else np.asarray(reference, np.float64)
    of = np.where(np.isfinite(of), of, np.nan)
    with np.errstate(invalid="ignore"):
        middle = _nanmedian(of, axis)
        spread = 1.4826 * _nanmedian(np.abs(of - middle), axis)
    positive = spread[np.isfinite(spread) & (spread > 0)]
    if not positive.size:
        return np.full(values.shape, np.nan)
    typical = float(np.median(positive))
    standard: NDArray[np.float64] = (numbers - middle) / np.sqrt((spread**2 + typical**2) / 2)
    return standard


def _nanmedian(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    empty = np.isnan(values).all(axis=axis, keepdims=True)
    filled = np.where(empty, 0.0, values)
    return np.where(empty, np.nan, np.nanmedian(filled, axis=axis, keepdims=True))
