"""How well predicted numbers agree with measured ones: by rank, by sign and by slope, each with an interval.

Intervals are percentiles of a bootstrap in two stages: clusters are drawn, then the items of each (Davison and Hinkley
1997, §3.8). A draw is kept as how often it holds each item, so that all draws are reckoned at once. The interval of a
share is never narrower than Wilson's (1927), since a bootstrap of eight equal signs has no width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import Bools, Floats
from stratoscope.trace.calibration import Agreement, Bounded

LEVEL = 0.95  # of all intervals
DRAWS = 1000
_AT_ONCE = 2**22  # weights of pairs that are held at a time


def agreement(
    predicted: NDArray[np.floating],
    measured: NDArray[np.floating],
    cluster: NDArray[np.integer],
    floor: float,
    seed: int,
) -> Agreement:
    """How well predictions agree with measurements.

    Parameters
    ----------
    predicted, measured
        One number an item, finite.
    cluster
        What each item belongs to, such as its prompt: items of one cluster may resemble each other.
    floor
        Measured numbers no larger than this may be noise: their sign is undecided.
    seed
        Of the bootstrap.

    Returns
    -------
    Agreement
        Spearman's rank correlation, the share of equal signs among the decided, and the Theil–Sen slope of what was
        measured on what was predicted; NaN where there is nothing to tell.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    decided = np.abs(y) > floor
    once, drawn = np.ones((1, len(x))), resampled(cluster, DRAWS, seed)
    rank = _bounded(spearman(x, y, once), spearman(x, y, drawn))
    sign = _bounded(equal_signs(x, y, decided, once), equal_signs(x, y, decided, drawn))
    slope = _bounded(slopes(x, y, once), slopes(x, y, drawn))
    low, high = wilson(sign.value, int(decided.sum()))
    sign = Bounded(sign.value, min(sign.low, low), max(sign.high, high))
    return Agreement(len(x), int(decided.sum()), rank, sign, slope)


def resampled(cluster: NDArray[np.integer], draws: int, seed: int) -> Floats:
    """How often each draw holds each item, [draw, item]: clusters are drawn with replacement, then items of each."""
    random = np.random.default_rng(seed)
    names, of = np.unique(cluster, return_inverse=True)
    counts = np.zeros((draws, len(of)))
    if not len(names):
        return counts
    times = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    for number in range(len(names)):
        items = np.flatnonzero(of == number)
        counts[:, items] = random.multinomial(times[:, number] * len(items), np.full(len(items), 1 / len(items)))
    return counts


def spearman(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Spearman's rank correlation of each draw, ties sharing their middle rank; NaN where one of both does not vary."""
    a, b = _ranks(x, counts), _ranks(y, counts)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    a, b = (ranks - (counts * ranks).sum(axis=1, keepdims=True) / total for ranks in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        of_both = (counts * a * b).sum(axis=1)
        rho: Floats = of_both / np.sqrt((counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1))
    return np.clip(rho, -1, 1)


def equal_signs(x: Floats, y: Floats, decided: Bools, counts: Floats) -> Floats:
    """The share of decided items whose x has the sign of y, in each draw; NaN where none is decided."""
    of_decided = counts * decided
    with np.errstate(divide="ignore", invalid="ignore"):
        share: Floats = (of_decided * (np.sign(x) == np.sign(y))).sum(axis=1) / of_decided.sum(axis=1)
    return share


def slopes(x: Floats, y: Floats, counts: Floats) -> Floats:
    """The Theil–Sen slope of y on x in each draw: the median over pairs of items; NaN where x does not vary."""
    first, second = np.triu_indices(len(x), 1)
    apart = x[first] != x[second]
    first, second = first[apart], second[apart]
    if not len(first):
        return np.full(len(counts), np.nan)
    of_pairs = (y[second] - y[first]) / (x[second] - x[first])
    order = np.argsort(of_pairs)
    of_pairs, first, second = of_pairs[order], first[order], second[order]
    step = max(1, _AT_ONCE // len(first))
    parts = [counts[start : start + step] for start in range(0, len(counts), step)]
    return np.concatenate([_weighted_median(of_pairs, part[:, first] * part[:, second]) for part in parts])


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share of so many; NaN of none."""
    if not count:
        return float("nan"), float("nan")
    from scipy.special import ndtri

    z = float(ndtri((1 + LEVEL) / 2))
    middle, spread = share + z * z / (2 * count), z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + side * spread) / (1 + z * z / count) for side in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def _ranks(values: Floats, counts: Floats) -> Floats:
    """The middle rank that each value has in each draw, [draw, item]."""
    kinds, of = np.unique(values, return_inverse=True)
    sizes = np.zeros((len(counts), len(kinds)))
    np.add.at(sizes.T, of, counts.T)
    ranks: Floats = (np.cumsum(sizes, axis=1) - sizes / 2 + 0.5)[:, of]
    return ranks


def _weighted_median(ordered: Floats, weights: Floats) -> Floats:
    """Medians of sorted numbers of which row by row so many are there; NaN where there are none."""
    passed = np.cumsum(weights, axis=1)
    total = passed[:, -1]
    found = np.full(len(weights), np.nan)
    for row in np.flatnonzero(total > 0):
        middle = [(total[row] - 1) // 2, total[row] // 2]
        found[row] = ordered[np.searchsorted(passed[row], middle, side="right")].mean()
    return found


def _bounded(value: Floats, drawn: Floats) -> Bounded:
    """A number with the percentiles of its draws; draws in which it is undefined are left out."""
    known = drawn[np.isfinite(drawn)]
    if not (len(known) and np.isfinite(value[0])):
        return Bounded(float(value[0]), float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Bounded(float(value[0]), float(low), float(high))
