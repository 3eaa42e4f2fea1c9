"""How well one direction tells the classes apart: the difference of means in one half of the units, tried on the other.

Only how well it tells them apart is kept, never the direction. Beside it the same with labels exchanged at random: the
same halves, the same mean over them, members exchanged within their pair where units are pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import Floats

SPLITS = 20  # into halves
CONTROLS = 200  # random labellings
BAND = 0.95  # of them drawn
MOST_UNITS = (
    250  # of each class, a random choice: more do not make a mean much better, and the time grows with their square
)
_LEAST_UNITS = 4
_SCORES = 2**21  # that are held at a time


@dataclass(frozen=True)
class Baseline:
    """Areas under the ROC curve.

    Attributes
    ----------
    auc
        Mean over the splits; [layer].
    controls
        The same of each random labelling, in every layer the same one; [layer, labelling].
    """

    auc: Floats
    controls: Floats

    @classmethod
    def stack(cls, layers: Sequence[tuple[float, Floats]]) -> Baseline:
        """Several layers."""
        return cls(np.array([auc for auc, _ in layers]), np.array([controls for _, controls in layers]))

    @property
    def band(self) -> tuple[Floats, Floats]:
        """Between which 95 % of the random labellings lie, in each layer."""
        low, high = np.quantile(self.controls, ((1 - BAND) / 2, (1 + BAND) / 2), axis=1)
        return low, high

    @property
    def largest(self) -> Floats:
        """The largest of all layers under each random labelling."""
        known = np.isfinite(self.controls).all(axis=1)
        return self.controls[known].max(axis=0) if known.any() else np.empty(0)

    @property
    def p_family(self) -> Floats:
        """Of each layer, the share of labellings, the true one among them, whose largest is no smaller."""
        largest = self.largest
        if not len(largest):
            return np.full(len(self.auc), np.nan)
        beyond = (largest >= self.auc[:, None] - 1e-12).sum(axis=1)
        return np.where(np.isfinite(self.auc), (1 + beyond) / (1 + len(largest)), np.nan)


def linear_baseline(
    a: NDArray[np.floating], b: NDArray[np.floating], *, paired: bool, seed: int
) -> tuple[float, Floats]:
    """AUC on held-out units, and that of each random labelling.

    Parameters
    ----------
    a, b
        Units of either class, shape (unit, neuron), without NaN; of pairs row i of both is one unit.
    paired
        Whether a pair stays together in one half, and random labels exchange its members.
    seed
        Of the splits and labels: the same ones in every layer.
    """
    if min(len(a), len(b)) < _LEAST_UNITS or not a.shape[1]:
        return np.nan, np.full(CONTROLS, np.nan)
    random = np.random.default_rng(seed)
    chosen = [np.sort(random.permutation(len(side))[:MOST_UNITS]) for side in (a, b)]
    a, b = a[chosen[0]], b[chosen[0 if paired else 1]]
    rows = np.concatenate([a, b]).astype(np.float32)
    rows -= rows.mean(axis=0)
    likeness = rows @ rows.T
    halves = np.stack([_half(len(a), len(b), random, paired=paired) for _ in range(SPLITS)])
    places = np.arange(len(rows))
    orders = np.stack([places, *(_exchanged(len(a), len(b), random, paired=paired) for _ in range(CONTROLS))])
    at_a_time = max(1, _SCORES // (SPLITS * len(rows)))
    parts = [orders[start : start + at_a_time] for start in range(0, len(orders), at_a_time)]
    found = np.concatenate([_held_out_auc(likeness, part, places < len(a), halves) for part in parts])
    return float(found[0]), found[1:]


def _held_out_auc(
    likeness: NDArray[np.float32], orders: NDArray[np.int64], in_a: NDArray[np.bool_], halves: NDArray[np.bool_]
) -> Floats:
    """Mean over the splits of the AUC of the units outside each half, along the difference of the means inside it.

    Parameters
    ----------
    orders
        Which unit stands at each place, [order, place]; the labels and the halves [split, place] belong to the places.
    """
    count_a, count_b = halves & in_a, halves & ~in_a
    weights = count_a / count_a.sum(axis=1, keepdims=True) - count_b / count_b.sum(axis=1, keepdims=True)
    placed = np.empty((len(in_a), len(orders), len(halves)), np.float32)
    number = np.arange(len(orders))
    placed[orders.T, number] = weights.T[:, None]
    scores = (likeness @ placed.reshape(len(in_a), -1)).reshape(placed.shape)[orders.T, number]
    by_split = np.ascontiguousarray(scores.transpose(2, 1, 0))  # [split, order, place]
    found: Floats = _wins(*(_outside(by_split, ~halves & side) for side in (in_a, ~in_a))).mean(axis=0)
    return found


def _outside(scores: NDArray[np.float32], there: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scores of some places of each split, [split, order, place]; of every split as many."""
    return np.stack([one[:, here] for one, here in zip(scores, there, strict=True)])


def _wins(a: NDArray[np.float32], b: NDArray[np.float32]) -> Floats:
    """Over the last axis, how often a score of a is above one of b, ties counting half.

    Sorted twice, with ties in favour of either.
    """
    count_a, count_b = a.shape[-1], b.shape[-1]
    rank = np.arange(count_a + count_b, dtype=np.float64)
    first = np.argsort(np.concatenate([a, b], axis=-1), axis=-1, kind="stable") < count_a
    last = np.argsort(np.concatenate([b, a], axis=-1), axis=-1, kind="stable") >= count_b
    found: Floats = ((first @ rank + last @ rank) / 2 - count_a * (count_a - 1) / 2) / (count_a * count_b)
    return found


def _half(count_a: int, count_b: int, random: np.random.Generator, *, paired: bool) -> NDArray[np.bool_]:
    """Half of the pairs, or half of each class."""
    one = random.permutation(count_a) < count_a // 2
    return np.concatenate([one, one if paired else random.permutation(count_b) < count_b // 2])


def _exchanged(count_a: int, count_b: int, random: np.random.Generator, *, paired: bool) -> NDArray[np.int64]:
    """Which unit stands at each place: the members of a pair exchanged or not, or all units mixed."""
    if not paired:
        return random.permutation(count_a + count_b)
    place, flip = np.arange(count_a), random.random(count_a) < 0.5
    return np.concatenate([np.where(flip, place + count_a, place), np.where(flip, place, place + count_a)])
