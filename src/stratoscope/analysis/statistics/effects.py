"""How large a difference is, in standard deviations, with an interval: Hedges' g for classes, g_av and d_z for pairs.

Sources: Hedges 1981 (correction for few prompts); Cumming 2012 (d_av); Algina and Keselman 2003 (its interval);
Steiger and Fouladi 1997 (intervals by inverting the noncentral t distribution); Benjamini and Yekutieli 2005 (intervals
of what was selected).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stratoscope.analysis.statistics.moments import Moments
from stratoscope.trace.arrays import Floats

_MOST_STEPS = 50
_HUGE = 300  # t, in roots of 2 df
_SMALL_STEP = 1e-8  # of a noncentrality parameter, relative to the spread of its estimate: rounding


def correction(df: ArrayLike) -> Floats:
    """Hedges' correction of the bias of d: 1 − 3 / (4 df − 1)."""
    df = np.asarray(df, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor: Floats = np.where(df > 0, 1 - 3 / (4 * df - 1), np.nan)
    return factor


def hedges_g(a: Moments, b: Moments) -> Floats:
    """Hedges' g of each column, a − b, in pooled standard deviations."""
    df = a.count + b.count - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = np.sqrt((a.squares + b.squares) / df)
        g: Floats = correction(df) * (a.mean - b.mean) / pooled
    return np.where(np.isfinite(g), g, np.nan)


def hedges_g_av(a: Moments, b: Moments) -> Floats:
    """Hedges' g_av of pairs, a − b: in the root mean square of the two classes' standard deviations.

    `a` and `b` hold the same pairs, each the member of one class.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        average = np.sqrt((a.variance() + b.variance()) / 2)
        g: Floats = correction(a.count - 1) * (a.mean - b.mean) / average
    return np.where(np.isfinite(g), g, np.nan)


def d_z(differences: Moments) -> Floats:
    """Mean difference in standard deviations of the differences: how reliable, not how large."""
    with np.errstate(divide="ignore", invalid="ignore"):
        d: Floats = differences.mean / np.sqrt(differences.variance())
    return np.where(np.isfinite(d), d, np.nan)


def interval_of_g(g: ArrayLike, count_a: ArrayLike, count_b: ArrayLike, level: float) -> tuple[Floats, Floats]:
    """Confidence interval of Hedges' g of two classes; exact for normal data of equal variance.

    Parameters
    ----------
    g
        Hedges' g of shape (n,).
    count_a, count_b
        Prompts of each class.
    level
        Confidence, such as 0.95.
    """
    count_a, count_b = np.asarray(count_a, np.float64), np.asarray(count_b, np.float64)
    df = count_a + count_b - 2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of two prompts there is no interval
        to_t = np.where(df > 0, np.sqrt(count_a * count_b / (count_a + count_b)) / correction(df), np.nan)
        low, high = noncentrality(np.asarray(g) * to_t, df, level)
        return low / to_t, high / to_t


def interval_of_g_av(g: ArrayLike, t: ArrayLike, count: ArrayLike, level: float) -> tuple[Floats, Floats]:
    """Confidence interval of g_av of pairs, from the paired t of the same columns."""
    g, t = np.asarray(g, np.float64), np.asarray(t, np.float64)
    low, high = noncentrality(t, np.asarray(count, np.float64) - 1, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(t == 0, np.nan, g / t)
    return low * scale, high * scale


def noncentrality(t: ArrayLike, df: ArrayLike, level: float) -> tuple[Floats, Floats]:
    """The noncentrality parameters under which t is just not too large, and just not too small."""
    tail = (1 - level) / 2
    return noncentrality_at(t, df, 1 - tail), noncentrality_at(t, df, tail)


def noncentrality_at(t: ArrayLike, df: ArrayLike, p: float) -> Floats:
    """The noncentrality parameter under which a t as small as this, or smaller, has the probability p.

    `scipy.special.nctdtrinc` stops early where p is small, as it is after selection. The normal quantile of the
    distribution function is nearly a straight line in the parameter: secants find its root in a few steps.
    """
    from scipy.special import chdtri, nctdtr, ndtri

    t, df = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(df, np.float64))
    huge = np.abs(t) > _HUGE * np.sqrt(2 * df)  # only the error of the spread counts, and nctdtr would take minutes
    of_spread = t * np.sqrt(chdtri(df, np.where(t > 0, p, 1 - p)) / df)
    t = np.where(huge | np.isnan(df), np.nan, t)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(1 + t**2 / (2 * df))
        found, slope, wanted = t, -1 / spread, ndtri(p)
        off = ndtri(nctdtr(df, found, t)) - wanted
        for _ in range(_MOST_STEPS):
            step = -off / slope
            then = ndtri(nctdtr(df, found + step, t)) - wanted
            known = np.isfinite(then)
            secant = (then - off) / step
            slope = np.where(known, np.where(secant < 0, secant, slope), 2 * slope)  # too far out: half the step
            found, off = np.where(known, found + step, found), np.where(known, then, off)
            if not (np.abs(step) > _SMALL_STEP * spread).any():
                break
    found = np.where(huge, of_spread, found)
    return np.where(np.isfinite(found), found, np.nan)


def selected_level(alpha: float, selected: int, tested: int) -> float:
    """Confidence of each interval so that of the intervals of what was selected, alpha miss on average (FCR)."""
    return 1 - alpha * selected / max(tested, 1)
