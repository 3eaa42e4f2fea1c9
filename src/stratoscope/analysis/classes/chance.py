"""How large the largest |g| of very many neurons is by chance alone: measured by exchanging labels, never assumed.

`contrast`, `lint` and the documentation all say the number that is made here. It knows the units (pairs exchange their
members, groups count once) and the data (twins that go together, neurons that do, skewed ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults
from stratoscope.analysis.classes.design import Design
from stratoscope.analysis.classes.units import Units
from stratoscope.analysis.statistics import effects
from stratoscope.analysis.statistics.permutation import Arrangements, products
from stratoscope.analysis.values.layers import by_layer
from stratoscope.trace.arrays import Floats
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

ARRANGEMENTS = 200  # random ones, where there are too many to take all
COLUMNS = 2048  # neurons whose differences are held at a time


@dataclass(frozen=True)
class Chance:
    """What arrangements of the labels give.

    Attributes
    ----------
    largest
        The largest |g| of all neurons under each arrangement but the observed one; of all there are, without mirrors.
    neurons
        How many neurons: those with a value in every unit.
    units
        Of what, in words.
    """

    largest: Floats
    neurons: int
    units: str

    def __bool__(self) -> bool:
        return self.neurons > 0 and len(self.largest) > 0

    @property
    def middle(self) -> float:
        """The |g| that half of the arrangements exceed somewhere."""
        return float(np.median(self.largest)) if self else float("nan")

    @property
    def most(self) -> float:
        """The |g| that one arrangement in twenty exceeds somewhere."""
        return float(np.quantile(self.largest, 0.95)) if self else float("nan")

    def sentence(self) -> str:
        """What it says to a reader."""
        return (
            f"By chance alone the largest |g| of {self.neurons:,} neurons in {self.units} is about "
            f"{number(self.middle)} (95 % of {len(self.largest):,} exchanges of labels: below {number(self.most)})."
        )


class LargestByChance:
    """The largest |g| of each arrangement, over as many blocks of neurons as are added.

    Parameters
    ----------
    design, units
        How units are compared, and those whose labels are exchanged.
    """

    def __init__(self, design: Design, units: Units) -> None:
        # always the same ones: whoever asks for other permutations is told the same number
        self._arrangements = design.arrangements(units, ARRANGEMENTS, defaults.SEED)
        self._largest = np.zeros(len(self._arrangements))
        self._paired, self._units, self._neurons = design.paired, units, 0

    def add(self, a: NDArray[np.floating], b: NDArray[np.floating]) -> None:
        """Add neurons: values of either class, (unit, neuron); those that vary and have every value are counted."""
        largest_g = _largest_g_of_pairs if self._paired else _largest_g_of_classes
        for start in range(0, a.shape[1], COLUMNS):
            one, other = a[:, start : start + COLUMNS], b[:, start : start + COLUMNS]
            arranged = one - other if self._paired else np.concatenate([one, other])
            usable = np.isfinite(arranged).all(axis=0) & (arranged.max(axis=0) > arranged.min(axis=0))
            if not usable.all():
                one, other = one[:, usable], other[:, usable]
            self._neurons += one.shape[1]
            np.maximum(self._largest, largest_g(self._arrangements, one, other), out=self._largest)

    def chance(self) -> Chance:
        """What the arrangements gave, without the observed one; of all there are, each without its mirror.

        In the mirror of an arrangement a and b change names: it gives the same |g|.
        """
        weights = self._arrangements.weights
        mirror = -weights[0] if self._paired else 1 - weights[0]
        by_chance = ~((weights == weights[0]).all(axis=1) | (weights == mirror).all(axis=1))
        if self._arrangements.exact and (weights == mirror).all(axis=1).any():
            by_chance &= weights[:, 0] == weights[0, 0]
        return Chance(self._largest[by_chance], self._neurons, self._units.in_words())


def chance_in(dataset: xr.Dataset, statistic: str, design: Design, layers: Sequence[int]) -> Chance:
    """The chance number of a trace: of the tested units of a design, over some layers."""
    largest = LargestByChance(design, design.tested)
    for _, values in by_layer(dataset, statistic, design.tested.prompts, layers):
        largest.add(*design.tested.average(values))
    return largest.chance()


def _largest_g_of_classes(arrangements: Arrangements, a: NDArray[np.floating], b: NDArray[np.floating]) -> Floats:
    """The largest |g| of any column under each arrangement.

    g follows from the correlation r of class and value: t = r √(df / (1 − r²)), g = J t √(1/n_a + 1/n_b).
    """
    df, per = len(a) + len(b) - 2, np.sqrt(1 / len(a) + 1 / len(b))
    largest = np.zeros(len(arrangements))
    for _, found in products(arrangements, np.concatenate([a, b])):
        r = np.minimum(np.abs(found).max(axis=1).astype(np.float64), 1 - 1e-12)
        largest = np.maximum(largest, effects.correction(df) * r * np.sqrt(df / (1 - r**2)) * per)
    return largest


def _largest_g_of_pairs(arrangements: Arrangements, a: NDArray[np.floating], b: NDArray[np.floating]) -> Floats:
    """The largest |g_av| of any column under each arrangement.

    An exchange changes both variances, but not Σ(a² + b²) nor the sum of the means: with the mean difference δ,
    s_a² + s_b² = (Σ(a² + b²) − n (2 m² + δ²/2)) / (n − 1), m the mean of both.
    """
    pairs = len(a)
    a, b = a.astype(np.float64), b.astype(np.float64)
    largest = np.zeros(len(arrangements))
    for columns, found in products(arrangements, a - b):
        one, other = a[:, columns], b[:, columns]
        length = np.sqrt(np.square(one - other).sum(axis=0))
        middle = (one.mean(axis=0) + other.mean(axis=0)) / 2
        squares = (one**2 + other**2).sum(axis=0)
        delta = found * (length / np.sqrt(pairs))
        spread = (squares - pairs * (2 * middle**2 + delta**2 / 2)) / (2 * (pairs - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes = np.where(spread > 1e-12 * squares, np.abs(delta) / np.sqrt(spread), 0.0)
        largest = np.maximum(largest, effects.correction(pairs - 1) * sizes.max(axis=1, initial=0.0))
    return largest
