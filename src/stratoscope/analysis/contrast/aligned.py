"""Twins token by token: aligned on equal tokens, so that what is compared is the same word in two contexts.

Before the first edit both twins have seen the same tokens, and a causal model must treat them alike: that is checked.
After it, the k-th equal token of every pair is one observation of how far the edit reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.classes.units import Units
from stratoscope.analysis.contrast.profiles import on_scale
from stratoscope.analysis.statistics.moments import Moments, paired
from stratoscope.analysis.statistics.multiplicity import q_values
from stratoscope.analysis.statistics.permutation import smallest_p
from stratoscope.analysis.values.align import GAP, Alignment, align, token_keys
from stratoscope.analysis.values.tables import table
from stratoscope.trace.arrays import Floats
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

MOST_PLACES = 24  # equal tokens after the first edit that are compared


@dataclass(frozen=True)
class Twins:
    """One pair.

    Attributes
    ----------
    name
        Of the pair.
    a, b
        Indices of the two prompts.
    tokens_a, tokens_b
        Where the prompts' tokens begin on the token axis.
    columns
        How their tokens are aligned.
    """

    name: str
    a: int
    b: int
    tokens_a: int
    tokens_b: int
    columns: Alignment


@dataclass(frozen=True)
class Aligned:
    """What the pairs have in common, on the k-th equal token after the first edit.

    Attributes
    ----------
    difference, t, p, q
        Mean over units (log2 ratio where the quantity has a logarithmic scale), paired t, its p-value, and BH over all
        cells; [row, place]. NaN where too few units reach.
    units
        How many units reach each place.
    fewest, most
        Units behind a tested cell.
    before
        The largest |difference| before the first edit, relative to the value; NaN where there is none.
    where
        Name of the pair in which that is.
    unequal
        Pairs of unequal length.
    """

    quantity: str
    difference: Floats
    t: Floats
    p: Floats
    q: Floats
    units: NDArray[np.int64]
    fewest: int
    most: int
    before: float
    where: str
    unequal: int


def find_twins(dataset: xr.Dataset, units: Units) -> list[Twins]:
    """Pairs of the units: the first prompts of either class with the same `pair`, else of the same unit."""
    prompts = Prompts(dataset)
    keys = token_keys(dataset, slice(None))
    sides: dict[str, dict[bool, int]] = {}
    for prompt, unit, in_a in zip(units.prompts.tolist(), units.unit.tolist(), units.in_a.tolist(), strict=True):
        sides.setdefault(prompts.pairs[prompt] or units.names[unit], {}).setdefault(in_a, prompt)
    found = []
    for name, side in sides.items():
        if len(side) == 2:
            a, b = side[True], side[False]
            columns = align(keys[prompts.tokens(a)], keys[prompts.tokens(b)])
            found.append(Twins(name, a, b, int(prompts.starts[a]), int(prompts.starts[b]), columns))
    return found


def twin_tables(dataset: xr.Dataset, quantity: str, twins: Twins, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Values of both prompts on their aligned columns, of shape (column, row); NaN in gaps."""
    sides = []
    for start, places in ((twins.tokens_a, twins.columns.a), (twins.tokens_b, twins.columns.b)):
        values = np.full((len(places), len(rows)), np.nan)
        there = places != GAP
        values[there] = table(dataset, quantity, start + places[there], rows)
        sides.append(values)
    return sides[0], sides[1]


def compare_aligned(
    dataset: xr.Dataset,
    quantity: str,
    units: Units,
    twins: list[Twins],
    rows: NDArray[np.int64],
    counted: NDArray[np.bool_],
    alpha: float,
) -> Aligned:
    """Compare the k-th equal token after the first edit over all pairs; pairs of a unit are averaged first."""
    number = dict(zip(units.prompts.tolist(), units.unit.tolist(), strict=True))
    total = np.zeros((len(units), MOST_PLACES, len(rows)))
    count = np.zeros((len(units), MOST_PLACES, len(rows)))
    before, where = np.nan, ""
    for pair in twins:
        a, b = twin_tables(dataset, quantity, pair, rows)
        columns = pair.columns
        early = a[: columns.before], b[: columns.before]
        worst = _relative(*early)
        if np.isfinite(worst) and not worst <= before:
            before, where = worst, pair.name
        after = np.flatnonzero(columns.equal[columns.before :]) + columns.before
        after = after[counted[pair.tokens_a + columns.a[after]]][:MOST_PLACES]
        delta = on_scale(a[after], quantity) - on_scale(b[after], quantity)
        known = np.isfinite(delta)
        total[number[pair.a], : len(after)] += np.where(known, delta, 0.0)
        count[number[pair.a], : len(after)] += known
    with np.errstate(invalid="ignore"):
        deltas = np.where(count > 0, total / count, np.nan)
    moments = Moments(MOST_PLACES * len(rows)).add(deltas.reshape(len(units), -1))
    tested = paired(moments)
    enough = np.array([smallest_p(int(reach)) <= alpha for reach in moments.count])
    shape = (MOST_PLACES, len(rows))
    mean, t, p = (np.where(enough, one, np.nan).reshape(shape).T for one in (moments.mean, tested.t, tested.p))
    reaching = np.isfinite(deltas).any(axis=2).sum(axis=0)
    unequal = sum((pair.columns.a == GAP).sum() != (pair.columns.b == GAP).sum() for pair in twins)
    behind = moments.count[np.isfinite(p.T.ravel())].astype(int)
    fewest, most = (int(behind.min()), int(behind.max())) if len(behind) else (0, 0)
    return Aligned(quantity, mean, t, p, q_values(p), reaching, fewest, most, float(before), where, int(unequal))


def _relative(a: Floats, b: Floats) -> float:
    size = np.maximum(np.abs(a), np.abs(b))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(size > 0, np.abs(a - b) / size, 0.0)
    apart = apart[np.isfinite(apart)]
    return float(apart.max()) if apart.size else np.nan
