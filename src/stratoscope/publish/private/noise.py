"""Clipped means with Gaussian noise: OpenDP draws it, and says how private it is.

Floating-point sums and noise leak in their last bits. So each prompt is clipped and put on a grid of integers, on which
its norm is checked exactly; integers are added exactly, and OpenDP adds a discrete Gaussian to the sums. Whatever is
computed of them afterwards tells nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from stratoscope.errors import InputError, UsageError
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.words import number

GRID = 2**30  # the clip bound in integers: what rounding takes is a millionth of the noise of a million prompts
_SLACK = 1 - 1e-9  # rounding errors of the norm are smaller
_SCALES = (0.1, 1e6)  # among which the scale of the noise is looked for, in sensitivities
_MOST_EPSILON = 10.0


@dataclass(frozen=True)
class Mechanism:
    """What turns the rows of a class, a prompt each, into one noisy mean.

    Attributes
    ----------
    prompts
        How many there are. Replacing a prompt leaves it as it is, so that it is no secret.
    bound
        The largest norm of a row; longer ones are clipped.
    scale
        Standard deviation of the noise that is added to the sums, on the grid.
    delta
        The share of cases in which ε need not hold.
    """

    prompts: int
    bound: float
    scale: float
    delta: float

    @property
    def sensitivity(self) -> float:
        """Δ: how far replacing one prompt may move the mean."""
        return 2 * self.bound / self.prompts

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise of each number of the mean."""
        return self.scale / GRID * self.bound / self.prompts

    @property
    def epsilon(self) -> float:
        """ε of the mean, by OpenDP's accountant, when one prompt is replaced by any other."""
        return _epsilon(self.scale, self.delta)

    def signal_to_noise(self, numbers: int) -> float:
        """The largest norm that a mean of so many numbers can have, over the norm that its noise has."""
        return float(self.bound / (self.sigma * np.sqrt(numbers)))

    @property
    def most_numbers(self) -> int:
        """How many numbers a row may have before the noise is larger than whatever it could hide."""
        return int((self.bound / self.sigma) ** 2)

    def means(self, rows: Floats) -> Floats:
        """The noisy mean of rows of shape (prompt, number); other noise each time, which no seed repeats."""
        if len(rows) != self.prompts:
            raise ValueError(f"{len(rows)} rows, {self.prompts} prompts")
        return self.released(on_grid(rows, self.bound).sum(axis=0))

    def released(self, sums: Ints) -> Floats:
        """Sums of rows on the grid, as they may be told: with noise, as means."""
        noisy: Floats = np.array(_gaussian(self.scale)(sums.tolist()), np.float64)
        return noisy / GRID * (self.bound / self.prompts)


def calibrated(prompts: int, bound: float, epsilon: float, delta: float) -> Mechanism:
    """The mechanism with the least noise that spends no more than (ε, δ) of a prompt.

    Raises
    ------
    InputError
        OpenDP is not installed, or (ε, δ) promises nothing.
    """
    if not 0 < epsilon <= _MOST_EPSILON:
        fix = f"Give a number above 0, at most {number(_MOST_EPSILON)}; 1 is usual."
        raise UsageError(f"{epsilon} is out of range", where="epsilon", fix=fix)
    if not 0 < delta < 1 / prompts:
        fix = f"Give less than 1 / {prompts}, better 1e-5: a larger one would allow to show a whole prompt."
        raise UsageError(f"{delta} is out of range", where="delta", fix=fix)
    if not (np.isfinite(bound) and bound > 0):
        raise UsageError(f"{bound} is out of range", where="clip", fix="Give a number above 0.")
    return Mechanism(prompts, bound, _least_scale(epsilon, delta), delta)


def on_grid(rows: Floats, bound: float) -> Ints:
    """Rows, clipped to a norm of `bound`, as integers whose norm is at most `GRID`, exactly; what is no number is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        parts = np.asarray(rows, np.float64) / bound
        parts = np.where(np.isfinite(parts), parts, 0.0)
        largest = np.abs(parts).max(axis=1, initial=1.0, keepdims=True)  # the square of a large number may be none
        norms = np.linalg.norm(parts / largest, axis=1, keepdims=True) * largest
        grid: Ints = np.trunc(parts / np.maximum(1.0, norms) * (GRID * _SLACK)).astype(np.int64)
    grid[np.square(grid).sum(axis=1) > GRID**2] = 0  # there is none; the promise rests on that, not on rounding errors
    return grid


@cache
def _least_scale(epsilon: float, delta: float) -> float:
    """The least standard deviation of the noise on the grid that keeps (ε, δ); it is that of any class and bound."""
    low, high = (2.0 * GRID * scale for scale in _SCALES)
    return float(_opendp().binary_search(lambda scale: _epsilon(scale, delta) <= epsilon, bounds=(low, high)))


def _epsilon(scale: float, delta: float) -> float:
    """ε at δ of a Gaussian on the grid, when a row is replaced: it moves the sums by at most 2 `GRID`."""
    dp = _opendp()
    approximate = dp.c.make_fix_delta(dp.c.make_zCDP_to_approxDP(_gaussian(scale)), delta=delta)
    return float(approximate.map(2.0 * GRID)[0])


def _gaussian(scale: float) -> Any:
    """OpenDP's measurement: sums, whole numbers, with a discrete Gaussian added to each."""
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    return dp.m.make_gaussian(*space, scale=scale)


def _opendp() -> Any:
    try:
        import opendp.prelude as dp
    except ImportError:
        fix = "Install it: `pip install 'stratoscope[privacy]'`."
        raise InputError("the noise of the level private is drawn by OpenDP, which is not here", fix=fix) from None
    dp.enable_features("contrib")
    return dp
