"""How well any direction could tell the classes apart: the difference of means in one half, tried on the other.

Only how well it tells them apart is kept, never the direction. Beside it the same with labels exchanged at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
SPLITS = 20  # into halves
CONTROLS = 200  # random labellings, each with a split of its own
_MOST_UNITS = 500  # of each class: more do not make a mean much better, and the time grows with their square
_BAND = (0.025, 0.975)


@dataclass(frozen=True)
class Baseline:
    """Areas under the ROC curve, each of shape (layer,).

    Attributes
    ----------
    auc
        Mean over the splits.
    low, high
        Between which 95 % of the random labellings lie.
    """

    auc: Floats
    low: Floats
    high: Floats

    @classmethod
    def stack(cls, layers: Sequence[tuple[float, float, float]]) -> Baseline:
        """Several layers."""
        return cls(*np.array(layers, dtype=np.float64).reshape(-1, 3).T)


def linear_baseline(
    a: NDArray[np.floating], b: NDArray[np.floating], *, paired: bool, seed: int
) -> tuple[float, float, float]:
    """AUC on held-out units, and the band of random labels.

    Parameters
    ----------
    a, b
        Units of either class, shape (unit, neuron), without NaN; of pairs row i of both is one unit.
    paired
        Whether a pair stays together in one half, and random labels exchange its members.
    seed
        Of the splits and labels.
    """
    a, b = a[:_MOST_UNITS], b[:_MOST_UNITS]
    if min(len(a), len(b)) < 4 or not a.shape[1]:
        return np.nan, np.nan, np.nan
    rows = np.concatenate([a, b]).astype(np.float32)
    rows -= rows.mean(axis=0)
    likeness = (rows @ rows.T).astype(np.float64)
    in_a = np.arange(len(rows)) < len(a)
    random = np.random.default_rng(seed)
    pair = np.concatenate([np.arange(len(a)), np.arange(len(b))]) if paired else None
    observed = [_held_out_auc(likeness, in_a, _half(in_a, pair, random)) for _ in range(SPLITS)]
    control = []
    for _ in range(CONTROLS):
        labels = _exchanged(in_a, pair, random)
        control.append(_held_out_auc(likeness, labels, _half(labels, pair, random)))
    low, high = np.quantile(control, _BAND)
    return float(np.mean(observed)), float(low), float(high)


def _held_out_auc(likeness: Floats, in_a: NDArray[np.bool_], train: NDArray[np.bool_]) -> float:
    """Scores of the units outside `train` along the difference of the means inside it."""
    weights = np.where(in_a, 1 / (in_a & train).sum(), -1 / (~in_a & train).sum()) * train
    scores = likeness @ weights
    of_a, of_b = scores[in_a & ~train], scores[~in_a & ~train]
    above = (of_a[:, None] > of_b).sum() + 0.5 * (of_a[:, None] == of_b).sum()
    return float(above / (len(of_a) * len(of_b)))


def _half(in_a: NDArray[np.bool_], pair: NDArray[np.int64] | None, random: np.random.Generator) -> NDArray[np.bool_]:
    """Half of the pairs, or half of each class."""
    if pair is not None:
        count = int(pair.max()) + 1
        chosen = random.permutation(count) < count // 2
        return np.asarray(chosen[pair])
    train = np.zeros(len(in_a), bool)
    for members in (np.flatnonzero(in_a), np.flatnonzero(~in_a)):
        train[random.permutation(members)[: len(members) // 2]] = True
    return train


def _exchanged(
    in_a: NDArray[np.bool_], pair: NDArray[np.int64] | None, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Random labels: the members of a pair exchanged or not, or all labels mixed."""
    if pair is None:
        return random.permutation(in_a)
    flip = random.random(int(pair.max()) + 1) < 0.5
    return np.asarray(in_a ^ flip[pair])
