"""Means and variances of classes of prompts, added up block by block, and the t tests that follow from them.

Formulas: Chan, Golub and LeVeque 1983 (merging); Welch 1947 with the degrees of freedom of Satterthwaite 1946.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope.kernels import kernel
from stratoscope.trace.arrays import Floats

_TILE = 2**17  # numbers that are turned into float64 at a time: they stay in the cache


class Moments:
    """Count, mean and sum of squared deviations of each column, over the rows added so far.

    Any split and order of the rows gives the same answer, up to the rounding of float64. NaN is left out.

    Parameters
    ----------
    width
        Number of columns.
    """

    def __init__(self, width: int) -> None:
        self.count = np.zeros(width)
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)

    def add(
        self,
        rows: NDArray[np.floating],
        chosen: NDArray[np.int64] | None = None,
        *,
        minus: NDArray[np.floating] | None = None,
    ) -> Moments:
        """Add rows.

        Parameters
        ----------
        rows
            Shape (n, width).
        chosen
            Which of them, by index; None = all.
        minus
            Rows of the same shape that are taken off first, in double precision.
        """
        if chosen is None:
            chosen = np.arange(len(rows))
        if not len(chosen):
            return self
        if not self._add_compiled(rows, chosen, minus):
            step = max(1, _TILE // len(chosen))
            for start in range(0, rows.shape[1], step):
                columns = slice(start, start + step)
                tile = rows[chosen, columns].astype(np.float64)
                if minus is not None:
                    tile -= minus[chosen, columns]
                self._merge(columns, *_of_tile(tile))
        return self

    def _add_compiled(
        self, rows: NDArray[np.floating], chosen: NDArray[np.int64], minus: NDArray[np.floating] | None
    ) -> bool:
        """Add rows in one pass over memory; False, and nothing is added, where that cannot be done."""
        compiled = kernel("moments_f32")
        if compiled is None or not all(one.dtype == np.float32 for one in (rows, minus) if one is not None):
            return False
        if rows.strides[1] != 4 or rows.strides[0] % 4 or (minus is not None and minus.strides != rows.strides):
            return False
        mean, squares = np.empty(rows.shape[1]), np.empty(rows.shape[1])
        chosen = np.ascontiguousarray(chosen, dtype=np.int64)
        addresses = (rows.ctypes.data, None if minus is None else minus.ctypes.data, chosen.ctypes.data)
        sizes = (len(chosen), rows.strides[0] // 4, rows.shape[1])
        compiled(*addresses, *sizes, mean.ctypes.data, squares.ctypes.data)
        if not np.isfinite(mean).all():
            return False
        self._merge(slice(None), float(len(chosen)), mean, squares)
        return True

    def merge(self, other: Moments) -> Moments:
        """Add what another one has seen."""
        self._merge(slice(None), other.count, other.mean, other.squares)
        return self

    def variance(self) -> Floats:
        """Unbiased variance of each column; NaN below two rows."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.count > 1, self.squares / (self.count - 1), np.nan)

    def _merge(self, columns: slice, count: Floats | float, mean: Floats, squares: Floats) -> None:
        before = self.count[columns]
        total = before + count
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(total > 0, count / total, 0.0)
        apart = mean - self.mean[columns]
        self.mean[columns] += apart * share
        self.squares[columns] += squares + apart * apart * before * share
        self.count[columns] = total


@dataclass(frozen=True)
class TTest:
    """A t test of each column: `t`, its degrees of freedom and its two-sided p-value; NaN where it is undefined."""

    t: Floats
    df: Floats
    p: Floats


def welch(a: Moments, b: Moments) -> TTest:
    """Welch's test of the means of two classes, a − b."""
    with np.errstate(divide="ignore", invalid="ignore"):
        of_a, of_b = a.variance() / a.count, b.variance() / b.count
        error = of_a + of_b
        t = (a.mean - b.mean) / np.sqrt(error)
        df = error**2 / (of_a**2 / (a.count - 1) + of_b**2 / (b.count - 1))
    return _tested(t, df)


def paired(differences: Moments) -> TTest:
    """Student's test of the mean of differences within pairs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = differences.mean / np.sqrt(differences.variance() / differences.count)
    return _tested(t, np.maximum(differences.count - 1, 0))


def _tested(t: Floats, df: Floats) -> TTest:
    from scipy.special import stdtr

    known = np.isfinite(t)
    t = np.where(known, t, np.nan)
    return TTest(t, np.where(known, df, np.nan), 2 * stdtr(df, -np.abs(t)))


def _of_tile(rows: Floats) -> tuple[Floats | float, Floats, Floats]:
    """Count, mean and sum of squared deviations of the columns of a small block; it is used up."""
    mean = rows.mean(axis=0)
    count: Floats | float = float(len(rows))
    if not np.isfinite(mean).all():
        known = np.isfinite(rows)
        count = known.sum(axis=0).astype(np.float64)
        mean = np.where(known, rows, 0.0).sum(axis=0) / np.maximum(count, 1)
        rows = np.where(known, rows, mean)
    rows -= mean
    return count, mean, np.einsum("ij,ij->j", rows, rows)
