"""A family of columns compared between two classes: effects, tests, and what many tests at once leave of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.classes.design import Design
from stratoscope.analysis.classes.units import Units
from stratoscope.analysis.contrast.column_tests import Tested, UnitTable, compare_columns, complete_pairs
from stratoscope.analysis.statistics.multiplicity import q_values
from stratoscope.analysis.statistics.permutation import LargestStatistic, p_alone
from stratoscope.trace.arrays import Floats

BAND = 0.95  # of the means drawn


@dataclass(frozen=True)
class Family:
    """The comparison of the columns of one family.

    Attributes
    ----------
    found
        The comparison of each column.
    q, p_family, p_exchange
        BH over all columns; family-wise over all columns; and each column's p-value from exchanged signs or labels.
    band_a, band_b, band
        Half the width of the interval of either mean and, of pairs, of the mean difference, over the units.
    """

    found: Tested
    q: Floats
    p_family: Floats
    p_exchange: Floats
    band_a: Floats
    band_b: Floats
    band: Floats


def compare_family(design: Design, units: Units, a: UnitTable, b: UnitTable, *, permutations: int, seed: int) -> Family:
    """Compare all columns as one family.

    Parameters
    ----------
    design, units
        How, and the units, all of which are tested.
    a, b
        Their values in either class, as `Units.average` gives them; NaN where there is none.
    permutations, seed
        Random sign flips or exchanges of labels; all there are where they are few.
    """
    if design.paired:
        a, b = complete_pairs(a, b)
    tested = compare_columns(design, units, a, b)
    complete: NDArray[np.bool_] = np.asarray(np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0))
    values = a[:, complete] - b[:, complete] if design.paired else np.concatenate([a[:, complete], b[:, complete]])
    arrangements = design.arrangements(units, permutations, seed)
    largest = LargestStatistic(arrangements)
    p_family, p_exchange = np.full(len(complete), np.nan), np.full(len(complete), np.nan)
    observed = largest.add(values)
    p_family[complete], p_exchange[complete] = largest.p(observed), p_alone(arrangements, values)
    sides = (a, b, a - b) if design.paired else (a, b, np.full((1, a.shape[1]), np.nan))
    return Family(tested, q_values(tested.p), p_family, p_exchange, *map(half_width, sides))


def half_width(values: UnitTable) -> Floats:
    """Half of the t interval of each column's mean."""
    from scipy.special import stdtrit

    known = np.isfinite(values)
    count = known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(axis=0) / (count - 1) / count)
    return np.where(count > 1, stdtrit(np.maximum(count - 1, 1), (1 + BAND) / 2) * spread, np.nan)
