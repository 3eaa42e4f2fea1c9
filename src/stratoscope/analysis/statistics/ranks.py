"""How often a prompt of one class is above one of the other: the exact AUC, ties counting half, and its rank-sum test.

AUC = U / (n_a n_b), U = pairs (a, b) in which a is larger (Mann and Whitney 1947). The p-value is exact where nothing
is tied and the classes are small, otherwise normal with corrections for ties and continuity.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from stratoscope.kernels import kernel
from stratoscope.trace.arrays import Floats

_MOST_PAIRS = 10_000  # of prompts: up to so many the distribution of U is counted, not approximated
_STRIP = 2**17  # numbers that are sorted at a time
_COLUMNS_AT_A_TIME = 16  # of the compiled loop


class Ranks:
    """What ranks say of each column.

    Attributes
    ----------
    auc
        Chance that a prompt of class a is above one of class b, ties counting half; NaN where a class is empty.
    p
        Two-sided p-value of the rank-sum test.
    """

    def __init__(self, wins: Floats, ties: Floats, count_a: Floats, count_b: Floats) -> None:
        self._wins, self._ties, self._count_a, self._count_b = wins, ties, count_a, count_b  # wins: twice U
        with np.errstate(divide="ignore", invalid="ignore"):
            self.auc: Floats = wins / 2 / (count_a * count_b)

    @property
    def p(self) -> Floats:
        """Two-sided p-values."""
        p = np.full(len(self._wins), np.nan)
        for count_a, count_b in {*zip(self._count_a.tolist(), self._count_b.tolist(), strict=True)}:
            if count_a and count_b:
                here = (self._count_a == count_a) & (self._count_b == count_b)
                p[here] = _rank_sum_p(self._wins[here] / 2, self._ties[here], int(count_a), int(count_b))
        return p


def ranks(values: NDArray[np.floating], in_a: NDArray[np.bool_]) -> Ranks:
    """Compare two classes by ranks, column by column.

    Parameters
    ----------
    values
        Shape (rows, columns); NaN is left out.
    in_a
        Whether a row is of class a, shape (rows,); all others are of class b.
    """
    values = np.ascontiguousarray(values, dtype=np.float32 if values.dtype != np.float64 else np.float64)
    compiled = kernel("ranks_f32") if values.dtype == np.float32 else None
    if compiled is None or not values.size:
        return _with_numpy(values, in_a)
    rows, width = values.shape
    labels = np.ascontiguousarray(in_a, dtype=np.uint8)
    room = np.empty((2 + _COLUMNS_AT_A_TIME) * rows, np.uint32)
    wins, ties, counts = np.empty(width), np.empty(width), np.empty((width, 2))
    outputs = (room, wins, ties, counts)
    compiled(values.ctypes.data, rows, width, width, labels.ctypes.data, *(one.ctypes.data for one in outputs))
    return Ranks(wins, ties, counts[:, 0], counts[:, 1])


def _with_numpy(values: NDArray[np.floating], in_a: NDArray[np.bool_]) -> Ranks:
    rows, width = values.shape
    step = max(1, _STRIP // max(rows, 1))
    found = [_strip(values[:, start : start + step].T, in_a) for start in range(0, width, step)]
    parts = [np.concatenate(part) for part in zip(*found, strict=True)] if found else [np.empty(0)] * 4
    return Ranks(*parts)


def _strip(values: NDArray[np.floating], in_a: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats]:
    """Twice U, tie terms and counts of some columns, given as rows."""
    if values.dtype != np.float32 or np.isnan(values).any():
        found = [_column(column[known], in_a[known]) for column in values for known in [~np.isnan(column)]]
        wins, ties, count_a, count_b = np.array(found).T
        return wins, ties, count_a, count_b
    bits = (values + np.float32(0)).view(np.uint32)  # −0 becomes 0
    bits ^= np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))  # integers that sort alike
    keys = bits.astype(np.uint64)  # number and class in one key: a plain sort is several times as fast as argsort
    keys <<= np.uint64(1)
    keys |= in_a
    keys.sort(axis=1)
    count_a, count_b = float(in_a.sum()), float((~in_a).sum())
    places = (keys & np.uint64(1)).astype(np.float64) @ np.arange(len(in_a), dtype=np.float64)
    wins = 2 * places - count_a * (count_a - 1)
    ties = np.zeros(len(values))
    for row in np.flatnonzero(((keys[:, 1:] ^ keys[:, :-1]) <= 1).any(axis=1)):
        wins[row], ties[row], _, _ = _column(values[row], in_a)
    return wins, ties, np.full(len(values), count_a), np.full(len(values), count_b)


def _column(values: NDArray[np.floating], in_a: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Twice U, tie term and counts of one column."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    count_a = np.bincount(group[in_a], minlength=len(size)).astype(np.float64)
    count_b = size - count_a
    wins = count_a @ (2 * (np.cumsum(count_b) - count_b) + count_b)
    return float(wins), float((size.astype(np.float64) ** 3 - size).sum()), count_a.sum(), count_b.sum()


def _rank_sum_p(u: Floats, ties: Floats, count_a: int, count_b: int) -> Floats:
    from scipy.special import ndtr

    pairs, total = count_a * count_b, count_a + count_b
    larger = np.maximum(u, pairs - u)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(pairs / 12 * (total + 1 - ties / (total * (total - 1))))
        p = np.where(spread > 0, 2 * ndtr(-(larger - pairs / 2 - 0.5) / spread), 1.0)
    exact = (ties == 0) & (pairs <= _MOST_PAIRS)
    if exact.any():
        p[exact] = 2 * _tail_of_u(min(count_a, count_b), max(count_a, count_b))[np.rint(larger[exact]).astype(int)]
    return np.clip(p, 0.0, 1.0)


@cache
def _tail_of_u(fewer: int, more: int) -> Floats:
    """P(U ≥ u) for u = 0 … fewer·more, from the generating function Π (1 − x^(more + i)) / (1 − x^i)."""
    counts = np.zeros(fewer * more + 1)
    counts[0] = 1.0
    for i in range(1, fewer + 1):
        if more + i <= fewer * more:
            counts[more + i :] -= counts[: -(more + i)].copy()
        for start in range(i):
            counts[start::i] = np.cumsum(counts[start::i])
        counts *= i / (more + i)  # so that they stay probabilities
    return np.cumsum(counts[::-1])[::-1]
