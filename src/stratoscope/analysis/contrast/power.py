"""What a contrast that finds nothing would have found: the smallest effect that 8 of 10 such studies discover.

Of pairs from the noncentral t distribution. Of Welch's test from the same, averaged over the variances that samples of
these sizes have (its degrees of freedom depend on them; taken for certain, as tables do, at 8 v. 8 among 46,080 neurons
a power of 0.68 would be called 0.8). Of the rank-sum test by simulating it on normal data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stratoscope.analysis.classes.design import PAIRED_T, RANK_SUM
from stratoscope.analysis.statistics.effects import noncentrality_at
from stratoscope.analysis.statistics.ranks import ranks
from stratoscope.words import number

POWER = 0.8
_QUANTILES = 200  # of either class's variance
_STUDIES = 4_000  # that are simulated
_LARGEST = 1e3  # standard deviations: an effect beyond is none that anybody looks for


def would_be_found(effect: str) -> str:
    """What such studies make of an effect, for a reader."""
    return f"{effect} would have been found in {10 * POWER:.0f} of 10 such studies"


def size_in_words(would: Mapping[str, Any], what: str) -> str:
    """The smallest effect that would be found; "" where none would be, however large.

    Of pairs it is a d_z; which g that is depends on how alike twins are, so it is said of the middle one only.
    """
    least = would.get("d_z", would["g"])
    if least is None or not np.isfinite(least):
        return ""
    if "d_z" not in would:
        return f"|g| ≥ {number(least)}"
    in_g = f" (in the middle {what} |g| ≥ {number(would['g'])})" if would["g"] is not None else ""
    return f"|d_z| ≥ {number(least)}{in_g}"


def smallest_effect(test: str, count_a: int, count_b: int, tests: int, alpha: float) -> float:
    """The smallest true effect that is found in 8 of 10 studies at p ≤ alpha / tests.

    Parameters
    ----------
    test
        "paired t", "Welch's t" or "rank sum".
    count_a, count_b
        Units of either class; pairs have as many of both.
    tests
        In the family.
    alpha
        Level of the family.

    Returns
    -------
    In standard deviations: of pairs those of the differences (d_z), of classes the common one that g is in. Infinite
    where no effect, however large, could be found.
    """
    level = alpha / max(tests, 1)
    if test == PAIRED_T:
        return _of_pairs(count_a, level)
    return _smallest((_power_of_ranks if test == RANK_SUM else _power_of_welch)(count_a, count_b, level))


def _of_pairs(pairs: int, level: float) -> float:
    from scipy.special import stdtrit

    if pairs < 2:
        return float("inf")
    critical = stdtrit(pairs - 1, 1 - level / 2)
    return float(noncentrality_at(critical, pairs - 1, 1 - POWER) / np.sqrt(pairs))


def _power_of_welch(count_a: int, count_b: int, level: float) -> Callable[[float], float]:
    """Power against an effect, for normal values of equal variance; the other, wrong side is as good as never found."""
    from scipy.special import chdtri, ndtr, stdtrit

    if min(count_a, count_b) < 2:
        return lambda _: 0.0
    upper = 1 - (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    a, b = (chdtri(count - 1, upper) / (count - 1) / count for count in (count_a, count_b))
    error = a[:, None] + b
    df = error**2 / (a[:, None] ** 2 / (count_a - 1) + b**2 / (count_b - 1))
    needed = stdtrit(df, 1 - level / 2) * np.sqrt(error)
    true_error = np.sqrt(1 / count_a + 1 / count_b)
    return lambda effect: float(ndtr((effect - needed) / true_error).mean())


def _power_of_ranks(count_a: int, count_b: int, level: float) -> Callable[[float], float]:
    in_a = np.arange(count_a + count_b) < count_a
    noise = np.random.default_rng(0).normal(size=(count_a + count_b, _STUDIES)).astype(np.float32)
    of_class = in_a[:, None].astype(np.float32)
    return lambda effect: float((ranks(noise + np.float32(effect) * of_class, in_a).p <= level).mean())


def _smallest(power: Callable[[float], float]) -> float:
    """The effect at which a rising power reaches `POWER`."""
    if power(_LARGEST) < POWER:
        return float("inf")
    low, high = 0.0, 1.0
    while power(high) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
