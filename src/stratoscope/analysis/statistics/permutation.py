"""What chance alone would give: signs of pairs flipped, or labels of prompts exchanged, all columns together.

The largest statistic of each arrangement bounds the whole family at once (Westfall and Young 1993; Winkler et al.
2014). Where there are few arrangements all of them are taken, so that p-values are exact; otherwise seeded random ones,
and the observed one counts as one of them (Phipson and Smyth 2010).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import Floats

MOST_EXACT = 2**12  # arrangements that are all taken
_TILE = 2**22  # products, or values, that are held at a time
_SAME = 1e-5  # statistics this close, relatively, are the same one: they come from float32 products


@dataclass(frozen=True)
class Arrangements:
    """Ways to assign the units to the classes, the observed one first.

    Attributes
    ----------
    weights
        float32 [arrangement, unit]: for pairs ±1; for two classes 1 where a unit is of class a, else 0.
    exact
        Whether these are all there are.
    pairs
        Whether units are pairs.
    """

    weights: NDArray[np.float32]
    exact: bool
    pairs: bool

    def __len__(self) -> int:
        return len(self.weights)


def smallest_p(count_a: int, count_b: int | None = None) -> float:
    """The smallest two-sided p-value that so many units can ever give; `count_b` None: they are pairs."""
    if count_b is None:
        return float(min(1.0, 2.0 ** (1 - count_a))) if count_a else 1.0
    return min(1.0, (2 if count_a == count_b else 1) / comb(count_a + count_b, count_a))


def sign_flips(pairs: int, count: int, seed: int) -> Arrangements:
    """Arrangements of pairs whose members may be exchanged: all 2^pairs, or `count` besides the observed one."""
    if 2**pairs <= MOST_EXACT:
        bits = np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
        return Arrangements((1 - 2 * bits).astype(np.float32), exact=True, pairs=True)
    random = np.random.default_rng(seed)
    weights = random.choice(np.array([-1, 1], np.float32), size=(count + 1, pairs))
    weights[0] = 1
    return Arrangements(weights, exact=False, pairs=True)


def label_permutations(in_a: NDArray[np.bool_], count: int, seed: int) -> Arrangements:
    """Arrangements of units of two classes of unchanged sizes."""
    units, count_a = len(in_a), int(in_a.sum())
    if comb(units, count_a) <= MOST_EXACT:
        chosen = np.array([*combinations(range(units), count_a)], dtype=np.int64).reshape(-1, count_a)
        weights = np.zeros((len(chosen), units), np.float32)
        np.put_along_axis(weights, chosen, 1, axis=1)
        observed = int(np.flatnonzero((weights == in_a).all(axis=1))[0])
        weights[[0, observed]] = weights[[observed, 0]]
        return Arrangements(weights, exact=True, pairs=False)
    random = np.random.default_rng(seed)
    order = random.permuted(np.broadcast_to(in_a, (count + 1, units)), axis=1)
    order[0] = in_a
    return Arrangements(order.astype(np.float32), exact=False, pairs=False)


def products(arrangements: Arrangements, values: NDArray[np.floating]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The statistic of every arrangement, some columns at a time.

    Parameters
    ----------
    values
        Shape (unit, column), without NaN: differences within pairs, or values of units.

    Yields
    ------
    columns, statistic
        float32 [arrangement, column], |statistic| ≤ 1: of pairs mean · √n / root of the sum of squares; of classes the
        correlation of class and value. Both rise strictly with Student's t. A column that does not vary gives 0.
    """
    step = max(1, _TILE // max(len(arrangements), values.shape[0]))
    weights = arrangements.weights
    if not arrangements.pairs:  # centred and of length 1, so that a product is a correlation
        weights = weights - weights.mean(axis=1, keepdims=True)
    weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    for start in range(0, values.shape[1], step):
        columns = slice(start, start + step)
        some = values[:, columns].astype(np.float64)
        if not arrangements.pairs:
            some -= some.mean(axis=0)
        length = np.sqrt(np.einsum("ij,ij->j", some, some))
        some /= np.where(length > 0, length, 1.0)
        yield columns, weights @ some.astype(np.float32)


class LargestStatistic:
    """The largest |statistic| of each arrangement, over as many blocks of columns as are added.

    Attributes
    ----------
    largest
        float32 [arrangement].
    """

    def __init__(self, arrangements: Arrangements) -> None:
        self.arrangements = arrangements
        self.largest = np.zeros(len(arrangements), np.float32)

    def add(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Add columns; returns the observed statistic of each."""
        observed = np.zeros(values.shape[1], np.float32)
        for columns, found in products(self.arrangements, values):
            for extreme in (found.max(axis=1), -found.min(axis=1)):
                np.maximum(self.largest, extreme, out=self.largest)
            observed[columns] = found[0]
        return observed

    def p(self, observed: NDArray[np.floating]) -> Floats:
        """Family-wise p-values: the share of arrangements whose largest is no smaller."""
        ordered = np.sort(self.largest)
        smaller = np.searchsorted(ordered, np.abs(observed) * (1 - _SAME), side="left")
        share: Floats = (len(ordered) - smaller) / len(ordered)
        return share


def p_alone(arrangements: Arrangements, values: NDArray[np.floating]) -> Floats:
    """The p-value of each column by itself: the share of arrangements in which its statistic is no smaller."""
    p = np.ones(values.shape[1])
    for columns, found in products(arrangements, values):
        size = np.abs(found)
        p[columns] = (size >= size[0] * (1 - _SAME)).mean(axis=0)
    return p
