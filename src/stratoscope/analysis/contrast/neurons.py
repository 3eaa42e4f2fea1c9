"""Every neuron tested, layer by layer, as one family; and which of them are worth showing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults
from stratoscope.analysis.classes.chance import COLUMNS, Chance, LargestByChance
from stratoscope.analysis.classes.design import Design, can_be_held_out
from stratoscope.analysis.contrast.baseline import Baseline, linear_baseline
from stratoscope.analysis.contrast.column_tests import NAMES, compare_columns
from stratoscope.analysis.statistics import effects
from stratoscope.analysis.statistics.multiplicity import q_values
from stratoscope.analysis.statistics.permutation import LargestStatistic
from stratoscope.analysis.values.layers import by_layer
from stratoscope.progress import Progress
from stratoscope.trace.arrays import Floats

if TYPE_CHECKING:
    import xarray as xr

SHOWN = 20  # neurons listed
SELECTED = "selected, so likely too large; `--held-out 0.5` measures those that half of the units find"
SELECTED_OF_FEW = "selected, so likely too large; more prompts would measure them"
MEASURED = "measured in units that took no part in finding them"


@dataclass(frozen=True)
class NeuronTests:
    """All neurons of the chosen layers.

    Attributes
    ----------
    values
        Arrays of `columns.NAMES`, and `q` and `p_family`, each of shape (layer, neuron), of the tested units.
    held_out
        Arrays of `columns.NAMES` of the held-out units; empty without.
    baseline
        How well a direction found in one half of all units tells the classes apart in the other.
    chance
        The largest |g| of the tested units by chance alone.
    tested
        Neurons in the family.
    """

    values: dict[str, Floats]
    held_out: dict[str, Floats]
    baseline: Baseline
    chance: Chance
    tested: int
    exact: bool
    arrangements: int


def compare_neurons(
    dataset: xr.Dataset,
    statistic: str,
    design: Design,
    layers: Sequence[int],
    *,
    permutations: int,
    seed: int,
    progress: Progress,
) -> NeuronTests:
    """Test every neuron of some layers; no more than a layer of the array is in memory."""
    shape = (len(layers), dataset[statistic].shape[2])
    kept = {name: np.full(shape, np.nan) for name in NAMES}
    held_out = {name: np.full(shape, np.nan) for name in NAMES if design.held_out is not None}
    observed = np.full(shape, np.nan)
    family = LargestStatistic(design.arrangements(design.tested, permutations, seed))
    largest = LargestByChance(design, design.tested)
    rows_a, rows_b = design.rows(design.tested)
    scores = []
    units = design.units
    for row, (_, values) in enumerate(by_layer(dataset, statistic, units.prompts, layers)):
        progress("testing neurons", row, len(layers))
        a, b = units.average(values)
        del values
        for part, into in ((design.tested, kept), (design.held_out, held_out)):
            if part is not None:
                found = compare_columns(design, part, a, b)
                for name in NAMES:
                    into[name][row] = getattr(found, name)
        whole = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0) & np.isfinite(kept["p"][row])
        some_a, some_b = (a, b) if whole.all() else (a[:, whole], b[:, whole])
        scores.append(linear_baseline(some_a, some_b, paired=design.paired, seed=seed))
        if design.held_out is not None:
            some_a, some_b, a, b = some_a[rows_a], some_b[rows_b], a[rows_a], b[rows_b]
        observed[row, whole] = _add(family, design, some_a, some_b)
        largest.add(a, b)
    progress("testing neurons", len(layers), len(layers))
    kept["q"] = q_values(kept["p"])
    kept["p_family"] = np.where(np.isfinite(observed), family.p(np.nan_to_num(observed)), np.nan)
    tested = int(np.isfinite(kept["p"]).sum())
    exact = family.arrangements.exact
    baseline = Baseline.stack(scores)
    return NeuronTests(kept, held_out, baseline, largest.chance(), tested, exact, len(family.arrangements))


@dataclass(frozen=True)
class Listed:
    """The neurons that are shown, strongest first.

    Attributes
    ----------
    row, neuron
        Their places.
    g, low, high
        The effect that they are ranked by, and its interval.
    level
        Confidence of each interval.
    measured
        Whether the effect is of units that took no part in finding them; else it was selected and is likely too large.
    discoveries
        How many there are in all.
    halves
        Whether half of the units could be tested, and the other half measure.
    """

    row: NDArray[np.int64]
    neuron: NDArray[np.int64]
    g: Floats
    low: Floats
    high: Floats
    level: float
    measured: bool
    discoveries: int
    halves: bool

    @property
    def estimates(self) -> str:
        """What the effects are, in words."""
        if self.measured:
            return MEASURED
        return SELECTED if self.halves else SELECTED_OF_FEW


def strongest(neurons: NeuronTests, design: Design) -> Listed:
    """Discoveries, else the neurons of largest |g|, ranked by the effect in the held-out units where there are any.

    The level of the intervals allows for the choice of the neurons shown (Benjamini and Yekutieli 2005).
    """
    values, measured = neurons.values, bool(neurons.held_out)
    found = values["q"] <= design.alpha
    discoveries = int(found.sum())
    if not discoveries:
        found = np.zeros(found.shape, bool)
        found.ravel()[_largest(np.abs(values["g"]))] = True
    effects_of = neurons.held_out if measured else values
    size = np.where(found, np.abs(effects_of["g"]), np.nan)
    order = _largest(size)
    row, neuron = np.unravel_index(order, size.shape)
    candidates = int(found.sum()) if measured else neurons.tested
    chosen = len(order) if discoveries or not measured else 0  # those of a ranking were not chosen by what is shown
    level = effects.selected_level(design.alpha, max(chosen, 1), candidates) if chosen else 1 - design.alpha
    low, high = intervals(effects_of, design, row, neuron, level)
    halves = can_be_held_out(*design.units.halves(0.5, defaults.SEED), design.alpha)
    return Listed(row, neuron, effects_of["g"][row, neuron], low, high, level, measured, discoveries, halves)


def intervals(
    values: dict[str, Floats], design: Design, row: NDArray[np.int64], neuron: NDArray[np.int64], level: float
) -> tuple[Floats, Floats]:
    """Intervals of g of some neurons."""
    g, t, count_a, count_b = (values[name][row, neuron] for name in ("g", "t", "count_a", "count_b"))
    if design.paired:
        return effects.interval_of_g_av(g, t, count_a, level)
    return effects.interval_of_g(g, count_a, count_b, level)


def _largest(size: Floats) -> NDArray[np.int64]:
    """Places of the `SHOWN` largest, NaN left out, the largest first."""
    known = np.where(np.isfinite(size), size, -1.0).ravel()
    order = np.argsort(known, kind="stable")[::-1][:SHOWN]
    return order[known[order] >= 0]


def _add(family: LargestStatistic, design: Design, a: NDArray[np.floating], b: NDArray[np.floating]) -> Floats:
    """Add the tested units to the family, some columns at a time; their observed statistics."""
    observed = np.empty(a.shape[1])
    for start in range(0, a.shape[1], COLUMNS):
        tile = slice(start, start + COLUMNS)
        one, other = a[:, tile], b[:, tile]
        arranged = one.astype(np.float64) - other if design.paired else np.concatenate([one, other])
        observed[tile] = family.add(arranged)
    return observed
