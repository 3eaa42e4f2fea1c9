"""One table of units × columns tested: effect, test, and what the held-out units say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis import effects
from stratoscope.analysis.contrast.design import RANK_SUM, Design
from stratoscope.analysis.moments import Moments, paired, welch
from stratoscope.analysis.ranks import ranks
from stratoscope.analysis.units import Units

Floats: TypeAlias = NDArray[np.float64]
Table: TypeAlias = NDArray[np.floating]
_TILE = 2**22  # numbers


@dataclass(frozen=True)
class Tested:
    """Statistics of columns, each of shape (column,); of the tested units unless said otherwise.

    Attributes
    ----------
    mean_a, mean_b
        Means over all units.
    difference
        Mean difference, a − b.
    t, df, p
        The test; of a rank sum t and df are NaN.
    g, g_all, g_held_out
        Hedges' g (of pairs g_av), a − b: of the tested, of all, and of the held-out units (NaN without).
    d_z
        Of pairs the mean difference in standard deviations of the differences, else NaN.
    auc
        Chance that a unit of a is above one of b, over all units.
    t_held_out
        Of the held-out units, for the interval of g.
    count_a, count_b
        All units that have a value.
    """

    mean_a: Floats
    mean_b: Floats
    difference: Floats
    t: Floats
    df: Floats
    p: Floats
    g: Floats
    g_all: Floats
    g_held_out: Floats
    d_z: Floats
    auc: Floats
    t_held_out: Floats
    t_all: Floats
    count_a: Floats
    count_b: Floats


NAMES = tuple(field.name for field in fields(Tested))


class Part:
    """Moments of some of the units."""

    def __init__(self, design: Design, units: Units, a: Table, b: Table) -> None:
        rows_a, rows_b = design.rows(units)
        self.a = Moments(a.shape[1]).add(a, rows_a)
        self.b = Moments(b.shape[1]).add(b, rows_b)
        self.differences = Moments(a.shape[1])
        self.paired = design.paired
        if design.paired:
            self.differences.add(a, rows_a, minus=b)  # row i of both is one pair

    def merge(self, other: Part) -> Part:
        """Add the units of another part."""
        for mine, its in ((self.a, other.a), (self.b, other.b), (self.differences, other.differences)):
            mine.merge(its)
        return self

    @property
    def g(self) -> Floats:
        """The effect, a − b."""
        return effects.hedges_g_av(self.a, self.b) if self.paired else effects.hedges_g(self.a, self.b)

    @property
    def t(self) -> Floats:
        """Of pairs their t, of classes Welch's."""
        return (paired(self.differences) if self.paired else welch(self.a, self.b)).t


def compare_columns(design: Design, a: Table, b: Table) -> Tested:
    """Test every column.

    Parameters
    ----------
    design
        What is tested on which units.
    a, b
        Values of the units in either class, as `Units.average` gives them; NaN where there is none.
    """
    width = a.shape[1]
    nothing = np.full(width, np.nan)
    part = Part(design, design.tested, a, b)
    found = paired(part.differences) if design.paired else welch(part.a, part.b)
    difference, g = part.a.mean - part.b.mean, part.g
    d_z = effects.d_z(part.differences) if design.paired else nothing
    t, df, p = found.t, found.df, found.p
    if design.test == RANK_SUM:
        rows_a, rows_b = design.rows(design.tested)
        of_tested = ranks(np.concatenate([a[rows_a], b[rows_b]]), np.arange(len(rows_a) + len(rows_b)) < len(rows_a))
        t, df, p = nothing, nothing, of_tested.p
    g_held_out, t_held_out = nothing, nothing
    if design.held_out is not None:
        rest = Part(design, design.held_out, a, b)
        g_held_out, t_held_out = rest.g, rest.t
        part.merge(rest)
    return Tested(
        part.a.mean, part.b.mean, difference, t, df, p, g, part.g, g_held_out, d_z, _auc(a, b), t_held_out, part.t,
        part.a.count, part.b.count,
    )  # fmt: skip


def _auc(a: Table, b: Table) -> Floats:
    """Chance that a unit of a is above one of b, some columns at a time: no second copy of both."""
    in_a = np.arange(len(a) + len(b)) < len(a)
    step = max(16, _TILE // max(len(in_a), 1))
    tiles = (slice(start, start + step) for start in range(0, a.shape[1], step))
    parts = [ranks(np.concatenate([a[:, tile], b[:, tile]]), in_a).auc for tile in tiles]
    return np.concatenate(parts) if parts else np.empty(0)
