"""How values become colours: natural scale, limits, the share they clip, and the histogram of the legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.spec.buffers import Numbers

QUANTILES = (0.01, 0.99)  # robust limits never lie farther out …
INNERMOST = (0.10, 0.90)  # … nor farther in
FENCE = 1.5  # interquartile ranges beyond the quartiles (Tukey)
BINS = 48
_BEYOND = 0.25  # the histogram goes on beyond the limits for so much of their distance
_WIDEN = 0.05  # limits around a single value


Kind = Literal["linear", "log", "diverging"]
State = Literal["ok", "equal", "zero", "below", "infinite", "empty"]


@dataclass(frozen=True, eq=False)
class Limits:
    """Between which values colours run.

    Attributes
    ----------
    kind
        "linear", "log" or "diverging" (linear about zero).
    low, high
        Of shape (1,) or, when every row has its own, (rows,), float64.
    state
        "ok", "equal" (one value only), "zero" (nothing but zeros), "below" (nothing above zero, on a logarithmic
        scale), "infinite" (no finite value, but infinite ones) or "empty" (no value). Where every row has its own, the
        first of these that is true of a row.
    extremes
        Whether robust limits, or those of a row, are the smallest and largest value, since the quantiles fall together.
    by_row
        Whether every row has its own.
    """

    kind: Kind
    low: Numbers
    high: Numbers
    state: State = "ok"
    extremes: bool = False
    by_row: bool = False

    def unit(self, values: AnyFloats) -> AnyFloats:
        """Values of shape (tokens, rows) as 0..1 between the limits, beyond them less or more; NaN stays NaN."""
        low, high = forward(self.low, self.kind), forward(self.high, self.kind)
        unit: AnyFloats = (forward(np.asarray(values, float), self.kind) - low) / (high - low)
        return unit

    def strength(self, values: AnyFloats) -> AnyFloats:
        """How strong values are: `unit`, or where the scale is diverging the distance from zero, 1 at the limits."""
        unit = self.unit(values)
        return np.abs(2 * unit - 1) if self.kind == "diverging" else unit


def natural(*, signed: bool, log: bool, choice: names.Scale) -> Kind:
    """The kind of scale: zero-centred for signed quantities, else what was asked for, else the quantity's own.

    `robust` and `per-layer` say where the limits are, not what lies between them.
    """
    if signed and choice == "log":
        raise InputError(
            "a quantity with negative values has no logarithmic scale", where="scale", fix="Use robust or linear."
        )
    if signed:
        return "diverging"
    return choice if choice in ("linear", "log") else ("log" if log else "linear")


class Distribution:
    """The values that count for limits, sorted: all that limits, shares and histograms of any scale are made of.

    Parameters
    ----------
    tables
        Of shape (tokens, rows) each; NaN is ignored.
    """

    def __init__(self, tables: Sequence[AnyFloats]) -> None:
        self.by_row = np.ascontiguousarray(np.concatenate(tables, dtype=np.float64).T)
        self.by_row.sort(axis=1)  # NaN last
        self.whole = np.sort(self.by_row, axis=None)[None]

    def fit(self, kind: Kind, choice: names.Scale, *, lowest: float | None = None) -> Limits:
        """Limits shared by all tables; infinities are ignored.

        Parameters
        ----------
        kind
            "linear", "log" or "diverging".
        choice
            "robust" and "per-layer" (the same for each row by itself) put the limits at Tukey's fences, 1.5
            interquartile ranges beyond the quartiles, but no farther out than the 1 % and 99 % quantiles and no farther
            in than the 10 % and 90 % ones. All are taken along the scale, of |value| where it is diverging. So neither
            a token nor a whole layer owns the scale, and no more than about a tenth is clipped at either end. "linear"
            and "log" take the extremes.
        lowest
            A lower limit that means something, such as 1 where values are multiples of the noise; the upper one is then
            at least twice as large.
        """
        by_row = choice == "per-layer"
        if lowest is not None and (self.whole > 0).any():
            highest = _limits(self.whole, kind, robust=choice == "robust").high
            return Limits(kind, np.array([lowest]), np.maximum(highest, 2 * lowest))
        fitted = _limits(self._rows(by_row), kind, robust=by_row or choice == "robust")
        state = next(state for state in get_args(State) if state in fitted.states)
        return Limits(kind, fitted.low, fitted.high, state, bool(fitted.extremes.any()), by_row)

    def clipped(self, limits: Limits) -> tuple[float, float]:
        """Share of the finite values below the lower and above the upper limit."""
        rows = self._rows(limits.by_row)
        known = np.isfinite(rows)
        count = max(int(known.sum()), 1)
        below, above = (rows < limits.low[:, None]) & known, (rows > limits.high[:, None]) & known
        return int(below.sum()) / count, int(above.sum()) / count

    def histogram(self, limits: Limits) -> tuple[AnyFloats, NDArray[np.int64]]:
        """Counts over unit values, a little beyond the limits; what lies farther out is counted in the end bins.

        Returns
        -------
        edges, counts
            Unit values of shape (BINS + 1,), 0 and 1 being the limits, and the counts between them, of shape (BINS,).
        """
        units = limits.unit(self._rows(limits.by_row).T)
        units = np.sort(units, axis=None) if limits.by_row else units[:, 0]  # sorted as the values are
        units = units[~np.isnan(units)]
        first = max(min(units[:1].min(initial=0.0), 0.0), -_BEYOND)
        last = min(max(units[-1:].max(initial=1.0), 1.0), 1 + _BEYOND)
        edges = np.linspace(first, last, BINS + 1)
        return edges, np.diff(np.searchsorted(units, edges[1:-1]), prepend=0, append=len(units))

    def _rows(self, by_row: bool) -> NDArray[np.float64]:
        return self.by_row if by_row else self.whole


def rule(kind: Kind, choice: names.Scale) -> str:
    """How `Distribution.fit` finds limits, in words."""
    if choice in ("linear", "log"):
        return "smallest and largest cell" + (", symmetric about zero" if kind == "diverging" else "")
    (first, last), (tenth, ninetieth) = ([f"{100 * share:g}" for share in pair] for pair in (QUANTILES, INNERMOST))
    fences, each = (
        f"{FENCE:g} interquartile ranges beyond the",
        " of each layer by itself" if choice == "per-layer" else "",
    )
    if kind == "diverging":
        return f"symmetric, {fences} upper quartile of |value|{each}, kept within its {ninetieth}–{last} % quantiles"
    of = " of the logarithms" if kind == "log" else ""
    return f"{fences} quartiles{of}{each}, kept within the {first}–{tenth} % and the {ninetieth}–{last} % quantiles"


def ratio_to_limit(values: AnyFloats, limits: Limits) -> NDArray[np.float64]:
    """How many times the upper limit the largest value of each token is; NaN without a finite value.

    Parameters
    ----------
    values
        Shape (tokens, rows).
    """
    sizes = np.abs(values) if limits.kind == "diverging" else np.asarray(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = sizes / limits.high
    largest = np.where(np.isfinite(ratios), ratios, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(largest), largest, np.nan)


def beyond(values: AnyFloats, limits: Limits) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Which values, one of each row, lie below the limits and above them, and how many times the limit that is.

    Below, the ratio is that of the lower limit to the value. NaN where a ratio means nothing, since one of the two is
    not above zero.
    """
    sizes = np.abs(values) if limits.kind == "diverging" else np.asarray(values, float)
    above = sizes > limits.high
    below = sizes < limits.low
    upper, lower = np.where(below, limits.low, sizes), np.where(below, sizes, limits.high)
    ratios = np.full(sizes.shape, np.nan)
    np.divide(upper, lower, out=ratios, where=(lower > 0) & (upper > 0))
    return below, above, ratios


def forward(values: AnyFloats, kind: str) -> AnyFloats:
    """Values on the axis along which colours are evenly spread; zero and less lie below every logarithmic limit."""
    if kind != "log":
        return values
    with np.errstate(divide="ignore"):
        result: AnyFloats = np.log10(np.maximum(values, 0))
    return result


def backward(values: AnyFloats, kind: str) -> AnyFloats:
    """Undo `forward`."""
    return 10.0**values if kind == "log" else values


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Limits of each row, what there is in it, and whether the limits are its extremes since the quantiles are one."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    states: NDArray[np.str_]
    extremes: NDArray[np.bool_]


def _limits(rows: NDArray[np.float64], kind: Kind, *, robust: bool) -> _Fitted:
    """Limits of each row of sorted values."""
    if kind == "diverging":
        rows = np.sort(np.abs(rows), axis=1)
    known = np.isfinite(rows)
    start, stop = (rows == -np.inf).sum(axis=1), (rows < np.inf).sum(axis=1)
    without, zero = start >= stop, ~((rows != 0) & known).any(axis=1)
    if kind == "log":
        start = (rows <= 0).sum(axis=1)
    nothing, empty = zero | (start >= stop), np.isnan(rows).all(axis=1)
    rows = np.where(known & ((rows > 0) | (kind != "log")), rows, 1.0)  # those that no limit is fitted on
    least, most = _at(rows, start), _at(rows, stop - 1)
    low, high = _fences(rows, start, stop, kind) if robust else (least, most)
    if kind == "diverging":
        least, low = -most, -high
    apart, vary = high > low, least < most
    states = np.select([empty, without, zero, nothing, vary], ["empty", "infinite", "zero", "below", "ok"], "equal")
    tiny = np.finfo(float).tiny
    if kind == "log":
        near_zero = low < 2 * tiny  # too near to be widened
        around = np.where(near_zero, tiny, low * (1 - _WIDEN)), np.where(near_zero, 4 * tiny, high * (1 + _WIDEN))
    else:
        widen = np.maximum(np.abs(low) * _WIDEN, tiny)
        around = low - widen, high + widen
    cases = [nothing, apart, vary]
    return _Fitted(
        np.select(cases, [np.full_like(low, _EMPTY[kind][0]), low, least], around[0]),
        np.select(cases, [np.full_like(low, _EMPTY[kind][1]), high, most], around[1]),
        states,
        ~nothing & ~apart & vary,
    )


def _fences(
    rows: NDArray[np.float64], start: NDArray[np.int64], stop: NDArray[np.int64], kind: Kind
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Robust limits of the values from `start` to `stop` of each row; see `Distribution.fit`."""
    shares = (QUANTILES[0], INNERMOST[0], 0.25, 0.75, INNERMOST[1], QUANTILES[1])
    first, tenth, lower, upper, ninetieth, last = (_quantile(rows, start, stop, kind, share) for share in shares)
    reach = FENCE * (upper - lower)
    low, high = np.clip(lower - reach, first, tenth), np.clip(upper + reach, ninetieth, last)
    if kind == "log":  # one by one: NumPy's powers of arrays are less exact, and an extreme would lie beyond itself
        low, high = (np.array([10.0**one for one in ends.tolist()]) for ends in (low, high))
    return low, high


def _quantile(
    rows: NDArray[np.float64], start: NDArray[np.int64], stop: NDArray[np.int64], kind: Kind, share: float
) -> NDArray[np.float64]:
    """A quantile along the scale, between the two nearest values, as `numpy.quantile` has it."""
    place = (stop - start - 1) * share
    before = np.floor(place).astype(int)
    beyond = place - before
    lower = forward(_at(rows, start + before), kind)
    upper = forward(_at(rows, np.minimum(start + before + 1, stop - 1)), kind)
    found: NDArray[np.float64] = np.where(
        beyond < 0.5, lower + (upper - lower) * beyond, upper - (upper - lower) * (1 - beyond)
    )
    return found


def _at(rows: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """One value of each row; any where there is none at its place."""
    found: NDArray[np.float64] = rows[np.arange(len(rows)), places.clip(0, rows.shape[1] - 1)]
    return found


_EMPTY = {"linear": (0.0, 1.0), "log": (0.1, 1.0), "diverging": (-1.0, 1.0)}  # limits where there is nothing to limit
