"""What a difference is measured against: the noise floors of both traces that count here, and rounding.

A floor that was measured under another condition than the one compared hides real differences (L32): what another dtype
changes counts only between two dtypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import Floats

if TYPE_CHECKING:
    import xarray as xr

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # of one operation
_STORED = ROUNDING["float32"]  # of the numbers in a trace
_DTYPE = "dtype"
_UNLUCKY = 0.05  # of comparisons in which noise alone may leave more above the floor
FAR = 100.0  # times the floor: no noise that the floor is a sample of reaches that far
_MANY = 100_000  # cells of a layer: of more, the share that noise leaves above the floor is the same


@dataclass(frozen=True)
class Noise:
    """What two traces know about their noise.

    Attributes
    ----------
    a, b
        The traces.
    alike
        Whether both were recorded under the same conditions, so that equal numbers repeat to the last bit.
    """

    a: xr.Dataset
    b: xr.Dataset
    alike: bool = False

    @property
    def sides(self) -> dict[str, xr.Dataset]:
        """Both traces by what they are called."""
        return {"A": self.a, "B": self.b}

    @property
    def same_dtype(self) -> bool:
        """Whether both are known to be of one dtype."""
        return bool(dtype_of(self.a)) and dtype_of(self.a) == dtype_of(self.b)

    @property
    def same_weights(self) -> bool:
        """Whether both are known to be of the same weights."""
        return bool(weights_of(self.a)) and weights_of(self.a) == weights_of(self.b)

    @property
    def rounding(self) -> float:
        """Relative rounding error of the coarser of the two dtypes; 0 where neither is known."""
        return max(ROUNDING.get(dtype_of(one), 0.0) for one in (self.a, self.b))

    @property
    def least(self) -> float:
        """The least relative difference that is more than rounding; what was recorded alike is not rounded anew."""
        return _STORED if self.alike else self.rounding

    def counted(self, side: xr.Dataset) -> tuple[str, ...]:
        """The nuisances of a trace's floor that count between the two: another dtype only if it is the one compared."""
        wanted = {dtype_of(one) for one in (self.a, self.b)}
        said = facts_of(side).get("dtypes")
        measured = {str(one) for one in said} if isinstance(said, list) else set()
        dtype = not self.same_dtype and ("" in wanted or not measured or measured == wanted)
        return tuple(nuisance for nuisance in names.NUISANCES if nuisance != _DTYPE or dtype)

    def measured(self, quantity: str) -> bool:
        """Whether either trace has a floor of this quantity that counts here."""
        return any(np.isfinite(_floor(side, quantity, self.counted(side))).any() for side in self.sides.values())

    def undivided(self) -> list[str]:
        """The traces whose floors were stored by format 1: under another dtype as well, inseparably."""
        whole = {names.floor_name(name) for name in names.QUANTITIES}
        return [
            called
            for called, side in self.sides.items()
            if whole & {str(name) for name in side.data_vars} and not floors_of(side)
        ]

    def with_dtype(self) -> list[str]:
        """The traces whose floor holds the change of dtype that is compared, as far as they say it."""
        return [called for called, side in self.sides.items() if _DTYPE in self.counted(side) & floors_of(side).keys()]

    def floor(self, quantity: str, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]) -> Floats | None:
        """The larger floor of the two, of each row (positions on either layer or depth axis); None without any."""
        if not self.measured(quantity):
            return None
        found = [
            _floor(side, quantity, self.counted(side))[rows if side_has_it else []]
            for side, rows in ((self.a, rows_a), (self.b, rows_b))
            if (side_has_it := _floor(side, quantity, self.counted(side)).size > 0)
        ]
        larger: Floats = np.fmax.reduce(found)
        return larger

    def chance(self, quantity: str) -> float | None:
        """How often a cell of pure noise is above the floor: once in n + 1, the floor being the largest of n tokens."""
        tokens = self._tokens(quantity)
        return 1 / (tokens + 1) if tokens else None

    def most_by_chance(self, quantity: str, layers: int, cells: int) -> float:
        """The share of the cells of one layer that noise leaves above the floor at most, in 95 % of such comparisons.

        `layers`, all that are looked at, share the 5 % (Bonferroni). 0 where it is not known what the floor was
        measured on.
        """
        tokens = self._tokens(quantity)
        return _most_above(tokens, min(cells, _MANY), _UNLUCKY / max(layers, 1)) if tokens and cells else 0.0

    def exceeded(self, quantity: str, layers: int, share: Floats, cells: Floats) -> NDArray[np.bool_]:
        """Whether more cells of a row are above the floor than noise leaves there; `share` of `cells`, [row]."""
        most = [self.most_by_chance(quantity, layers, int(count)) for count in cells]
        exceeded: NDArray[np.bool_] = np.nan_to_num(share) > np.array(most)
        return exceeded

    def _tokens(self, quantity: str) -> int:
        """Of how many tokens the floor is the largest; 0 where nobody says."""
        counts = [
            max(1, count_in(facts, "tokens") - count_in(facts, "prompts"))
            for side in self.sides.values()
            if _floor(side, quantity, self.counted(side)).size and count_in(facts := facts_of(side), "tokens")
        ]
        return max(counts, default=0)

    def times(self, difference: Floats, a: Floats, b: Floats, floor: Floats) -> Floats:
        """|difference| / max(floor, least · max(|a|, |b|)); 0 where nothing differs, NaN where it is undefined."""
        size = np.abs(difference)
        noise = np.maximum(floor, self.least * np.maximum(np.abs(a), np.abs(b)))
        with np.errstate(divide="ignore", invalid="ignore"):
            times: Floats = np.where((size == 0) & ~np.isnan(noise), 0.0, size / noise)
        return times


@cache
def _most_above(tokens: int, cells: int, unlikely: float) -> float:
    """The share of m cells of noise that is above the largest of n tokens of noise at most, but in unlikely cases.

    All are alike, so k or more of them are above it where the k largest of the m + n are all among the m:
    P = Π (m − i) / (m + n − i) over i < k. Of many cells that is P(share > s) = (1 − s)ⁿ, a Beta(1, n).
    """
    before = np.arange(cells)
    chances = np.cumprod((cells - before) / (cells + tokens - before))
    return float((chances > unlikely).sum() / cells)


def floors_of(dataset: xr.Dataset) -> dict[str, list[str]]:
    """The nuisances that a trace has floors of, each with the quantities."""
    found: dict[str, list[str]] = {}
    for nuisance in names.NUISANCES:
        there = [name for name in names.QUANTITIES if names.floor_name(name, nuisance) in dataset]
        if there:
            found[nuisance] = there
    return found


def facts_of(dataset: xr.Dataset) -> Mapping[str, Any]:
    """What the receipt says of the floor; a stranger's may hold anything."""
    receipt = dataset.attrs.get("receipt")
    facts = receipt.get("noise_floor") if isinstance(receipt, Mapping) else None
    return facts if isinstance(facts, Mapping) else {}


def count_in(facts: Mapping[str, Any], name: str) -> int:
    """A count of the receipt, 0 where it is none."""
    value = facts.get(name)
    return len(value) if isinstance(value, list) else value if isinstance(value, int) else 0


def dtype_of(dataset: xr.Dataset) -> str:
    """The dtype a trace's model computed in, "" where it is not known."""
    return str((dataset.attrs.get("model") or {}).get("dtype") or "")


def weights_of(dataset: xr.Dataset) -> str:
    """The hash of the model's weights, "" where it is not known."""
    if dataset.attrs.get("source") != names.REAL:
        return ""
    return str((dataset.attrs.get("model") or {}).get("weights_sha256") or "")


def _floor(dataset: xr.Dataset, quantity: str, nuisances: tuple[str, ...]) -> Floats:
    """The largest of a trace's floors under these nuisances, else its undivided one, [row]; empty where there is none.

    What is no size (negative, infinite) is NaN: nothing is measured against it.
    """
    there = [name for nuisance in nuisances if (name := names.floor_name(quantity, nuisance)) in dataset]
    if not there and names.floor_name(quantity) in dataset:
        there = [names.floor_name(quantity)]
    if not there:
        return np.empty(0)
    values = [np.asarray(dataset[name].values, np.float64) for name in there]
    largest: Floats = np.fmax.reduce([np.where(np.isfinite(one) & (one >= 0), one, np.nan) for one in values])
    return largest
