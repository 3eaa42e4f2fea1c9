"""Every neuron tested, layer by layer, as one family; and which of them are worth showing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis import effects
from stratoscope.analysis.contrast.baseline import Baseline, linear_baseline
from stratoscope.analysis.contrast.columns import NAMES, compare_columns
from stratoscope.analysis.contrast.design import Design
from stratoscope.analysis.layers import by_layer
from stratoscope.analysis.multiplicity import q_values
from stratoscope.analysis.permutation import Arrangements, LargestStatistic, products
from stratoscope.progress import Progress

if TYPE_CHECKING:
    import xarray as xr

Floats: TypeAlias = NDArray[np.float64]
SHOWN = 20  # neurons listed
_COLUMNS = 2048  # neurons whose differences are held at a time
_FOR_LARGEST_G = 200  # arrangements from which the largest |g| of chance is told


@dataclass(frozen=True)
class Neurons:
    """All neurons of the chosen layers.

    Attributes
    ----------
    values
        Arrays of `columns.NAMES`, and `q` and `p_family`, each of shape (layer, neuron).
    baseline
        How well a direction found in one half of the units tells the classes apart in the other.
    largest_g
        The largest |g| of all neurons under arrangements of all units, the observed one left out; [arrangement].
    tested
        Neurons in the family.
    """

    values: dict[str, Floats]
    baseline: Baseline
    largest_g: Floats
    tested: int
    exact: bool
    arrangements: int


def compare_neurons(
    dataset: xr.Dataset,
    summary: str,
    design: Design,
    layers: Sequence[int],
    *,
    permutations: int,
    seed: int,
    progress: Progress,
) -> Neurons:
    """Test every neuron of some layers; no more than a layer of the array is in memory."""
    rows = len(layers)
    width = dataset[summary].shape[2]
    kept = {name: np.full((rows, width), np.nan) for name in NAMES}
    observed = np.full((rows, width), np.nan)
    family = LargestStatistic(design.arrangements(design.tested, permutations, seed))
    of_all = design.arrangements(design.units, min(permutations, _FOR_LARGEST_G), seed)
    largest = np.zeros(len(of_all))
    scores = []
    units = design.units
    for row, (_, values) in enumerate(by_layer(dataset, summary, units.prompts, layers)):
        progress("testing neurons", row, rows)
        a, b = units.average(values)
        del values
        found = compare_columns(design, a, b)
        for name in NAMES:
            kept[name][row] = getattr(found, name)
        whole = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0) & np.isfinite(found.p)
        some_a, some_b = (a, b) if whole.all() else (a[:, whole], b[:, whole])
        rows_a, rows_b = design.rows(design.tested)
        observed[row, whole] = _add(family, design, some_a, some_b, rows_a, rows_b)
        largest = np.maximum(largest, _largest_g(of_all, design, some_a, some_b))
        scores.append(linear_baseline(some_a, some_b, paired=design.paired, seed=seed))
    progress("testing neurons", rows, rows)
    kept["q"] = q_values(kept["p"])
    kept["p_family"] = np.where(np.isfinite(observed), family.p(np.nan_to_num(observed)), np.nan)
    tested = int(np.isfinite(kept["p"]).sum())
    exact = family.arrangements.exact
    return Neurons(kept, Baseline.stack(scores), largest[1:], tested, exact, len(family.arrangements))


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
    exploratory
        Whether nothing was held out to measure them, or nothing was discovered: a ranking of noise would look alike.
    discoveries
        How many there are in all.
    """

    row: NDArray[np.int64]
    neuron: NDArray[np.int64]
    g: Floats
    low: Floats
    high: Floats
    level: float
    exploratory: bool
    discoveries: int


def strongest(neurons: Neurons, design: Design) -> Listed:
    """Discoveries ranked by the effect in the held-out units; without either, by the effect in all units.

    The level of the intervals allows for the choice of the neurons shown (Benjamini and Yekutieli 2005).
    """
    values = neurons.values
    found = values["q"] <= design.alpha
    discoveries = int(found.sum())
    held_out = design.held_out is not None and discoveries > 0
    effect, t, part = ("g_held_out", "t_held_out", design.held_out) if held_out else ("g_all", "t_all", design.units)
    assert part is not None
    among = found if discoveries else np.isfinite(values["p"])
    size = np.where(among & np.isfinite(values[effect]), np.abs(values[effect]), -1.0)
    order = np.argsort(size, axis=None, kind="stable")[::-1][:SHOWN]
    order = order[size.ravel()[order] >= 0]
    row, neuron = np.unravel_index(order, size.shape)
    candidates = discoveries if held_out else neurons.tested
    level = effects.selected_level(design.alpha, len(order), candidates)
    g = values[effect][row, neuron]
    if design.paired:
        low, high = effects.interval_of_g_av(g, values[t][row, neuron], part.sizes[0], level)
    else:
        low, high = effects.interval_of_g(g, *part.sizes, level)
    return Listed(row, neuron, g, low, high, level, not held_out, discoveries)


def _add(
    family: LargestStatistic,
    design: Design,
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    rows_a: NDArray[np.int64],
    rows_b: NDArray[np.int64],
) -> Floats:
    """Add the tested units to the family, some columns at a time; their observed statistics."""
    observed = np.empty(a.shape[1])
    for start in range(0, a.shape[1], _COLUMNS):
        tile = slice(start, start + _COLUMNS)
        observed[tile] = family.add(_as_arranged(design, a[rows_a, tile], b[rows_b, tile]))
    return observed


def _arranged(
    arrangements: Arrangements, design: Design, a: NDArray[np.floating], b: NDArray[np.floating]
) -> Iterator[tuple[slice, NDArray[np.floating], NDArray[np.float32]]]:
    """Some columns at a time: which, what arrangements weigh, and the statistic of every arrangement."""
    for start in range(0, a.shape[1], _COLUMNS):
        values = _as_arranged(design, a[:, start : start + _COLUMNS], b[:, start : start + _COLUMNS])
        for columns, found in products(arrangements, values):
            yield slice(start + columns.start, start + min(columns.stop, values.shape[1])), values[:, columns], found


def _as_arranged(design: Design, a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """What arrangements weigh: differences of pairs, or the units of both classes."""
    return a.astype(np.float64) - b if design.paired else np.concatenate([a, b])


def _largest_g(arrangements: Arrangements, design: Design, a: NDArray[np.floating], b: NDArray[np.floating]) -> Floats:
    """The largest |g| of any column under each arrangement.

    Of classes g follows from the correlation r: t = r √(df / (1 − r²)), g = J t √(1/n_a + 1/n_b). Of pairs an exchange
    changes both variances, but not Σ(a² + b²) nor the sum of the means: with the mean difference δ,
    s_a² + s_b² = (Σ(a² + b²) − n (2 m² + δ²/2)) / (n − 1), m the mean of both.
    """
    largest = np.zeros(len(arrangements))
    units = len(a)
    for columns, values, found in _arranged(arrangements, design, a, b):
        if not design.paired:
            r = np.minimum(np.abs(found).max(axis=1).astype(np.float64), 1 - 1e-12)
            t = r * np.sqrt((units + len(b) - 2) / (1 - r**2))
            g = effects.correction(units + len(b) - 2) * t * np.sqrt(1 / units + 1 / len(b))
        else:
            one, other = a[:, columns].astype(np.float64), b[:, columns].astype(np.float64)
            length = np.sqrt(np.square(values).sum(axis=0))
            middle = (one.mean(axis=0) + other.mean(axis=0)) / 2
            squares = (one**2 + other**2).sum(axis=0)
            delta = found * (length / np.sqrt(units))
            spread = (squares - units * (2 * middle**2 + delta**2 / 2)) / (2 * (units - 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                sizes = np.where(spread > 1e-12 * squares, np.abs(delta) / np.sqrt(spread), 0.0)
            g = effects.correction(units - 1) * sizes.max(axis=1)
        largest = np.maximum(largest, g)
    return largest
