"""One table of units × columns tested: effect, test, AUC and counts, all of the same units."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.classes.design import RANK_SUM, Design
from stratoscope.analysis.classes.units import Units
from stratoscope.analysis.statistics import effects
from stratoscope.analysis.statistics.moments import Moments, paired, welch
from stratoscope.analysis.statistics.ranks import Ranks, ranks
from stratoscope.trace.arrays import Floats

UnitTable: TypeAlias = NDArray[np.floating]
_TILE = 2**22  # numbers


@dataclass(frozen=True)
class Tested:
    """Statistics of columns, each of shape (column,) and of the same units.

    Attributes
    ----------
    mean_a, mean_b
        Means of either class; of pairs, of those that have both sides.
    difference
        Mean difference, a − b.
    t, df, p
        The test; of a rank sum t and df are NaN.
    g
        Hedges' g (of pairs g_av), a − b.
    d_z
        Of pairs the mean difference in standard deviations of the differences, else NaN.
    auc
        Chance that a unit of a is above one of b.
    count_a, count_b
        Units that have a value.
    """

    mean_a: Floats
    mean_b: Floats
    difference: Floats
    t: Floats
    df: Floats
    p: Floats
    g: Floats
    d_z: Floats
    auc: Floats
    count_a: Floats
    count_b: Floats


NAMES = tuple(field.name for field in fields(Tested))


def compare_columns(design: Design, units: Units, a: UnitTable, b: UnitTable) -> Tested:
    """Test every column on some of the units.

    Parameters
    ----------
    design
        How.
    units
        Those that are tested: all of the design's, or a part of them.
    a, b
        Values of all units of the design in either class, as `Units.average` gives them; NaN where there is none.
    """
    width = a.shape[1]
    nothing = np.full(width, np.nan)
    rows_a, rows_b = design.rows(units)
    if design.paired:
        a, b = complete_pairs(a, b)
    moments_a, moments_b = Moments(width).add(a, rows_a), Moments(width).add(b, rows_b)
    if design.paired:
        differences = Moments(width).add(a, rows_a, minus=b)  # row i of both is one pair
        found, g, d_z = paired(differences), effects.hedges_g_av(moments_a, moments_b), effects.d_z(differences)
    else:
        found, g, d_z = welch(moments_a, moments_b), effects.hedges_g(moments_a, moments_b), nothing
    ranked = _ranked(a, b, rows_a, rows_b)
    auc = np.concatenate([one.auc for one in ranked]) if ranked else np.empty(0)
    t, df, p = found.t, found.df, found.p
    if design.test == RANK_SUM:
        t, df, p = nothing, nothing, np.concatenate([one.p for one in ranked]) if ranked else np.empty(0)
    return Tested(
        moments_a.mean,
        moments_b.mean,
        moments_a.mean - moments_b.mean,
        t,
        df,
        p,
        g,
        d_z,
        auc,
        moments_a.count.copy(),
        moments_b.count.copy(),
    )


def complete_pairs(a: UnitTable, b: UnitTable) -> tuple[UnitTable, UnitTable]:
    """Pairs of which one side has no value have none: all that is said of a column is of the same pairs."""
    missing = ~(np.isfinite(a) & np.isfinite(b))
    if not missing.any():
        return a, b
    return np.where(missing, np.nan, a), np.where(missing, np.nan, b)


def _ranked(a: UnitTable, b: UnitTable, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]) -> list[Ranks]:
    """Ranks of some rows, some columns at a time: no second copy of both classes."""
    in_a = np.arange(len(rows_a) + len(rows_b)) < len(rows_a)
    step = max(16, _TILE // max(len(in_a), 1))
    tiles = (slice(start, start + step) for start in range(0, a.shape[1], step))
    return [ranks(np.concatenate([a[rows_a, tile], b[rows_b, tile]]), in_a) for tile in tiles]
