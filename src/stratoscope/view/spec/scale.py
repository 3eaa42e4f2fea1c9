"""How values become colours: natural scale, limits, the share they clip, and the histogram of the legend."""

from __future__ import annotations

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


def fit(tables: list[AnyFloats], kind: Kind, choice: names.Scale, *, lowest: float | None = None) -> Limits:
    """Limits shared by all tables.

    Parameters
    ----------
    tables
        What counts for the limits, each of shape (tokens, rows); NaN and infinities are ignored.
    kind
        "linear", "log" or "diverging".
    choice
        "robust" and "per-layer" (the same for each row by itself) put the limits at Tukey's fences, 1.5 interquartile
        ranges beyond the quartiles, but no farther out than the 1 % and 99 % quantiles and no farther in than the 10 %
        and 90 % ones. All are taken along the scale, of |value| where it is diverging. So neither a token nor a whole
        layer owns the scale, and no more than about a tenth is clipped at either end. "linear" and "log" take the
        extremes.
    lowest
        A lower limit that means something, such as 1 where values are multiples of the noise; the upper one is then at
        least twice as large.
    """
    values = np.concatenate([np.asarray(table, np.float64) for table in tables])
    if lowest is not None and (values > 0).any():
        highest = _limits(values.ravel(), kind, robust=choice == "robust")[1]
        return Limits(kind, np.array([lowest]), np.array([max(highest, 2 * lowest)]))
    by_row = choice == "per-layer"
    each = [values[:, row] for row in range(values.shape[1])] if by_row else [values.ravel()]
    fitted = [_limits(one, kind, robust=by_row or choice == "robust") for one in each]
    states = {"ok" if state == _EXTREMES else state for _, _, state in fitted}
    return Limits(
        kind,
        np.array([low for low, _, _ in fitted]),
        np.array([high for _, high, _ in fitted]),
        next(state for state in get_args(State) if state in states),
        any(state == _EXTREMES for _, _, state in fitted),
        by_row,
    )


def clipped(tables: list[AnyFloats], limits: Limits) -> tuple[float, float]:
    """Share of the finite values below the lower and above the upper limit."""
    below = above = count = 0
    for table in tables:
        known = np.isfinite(table)
        count += int(known.sum())
        below += int(((table < limits.low) & known).sum())
        above += int(((table > limits.high) & known).sum())
    return below / max(count, 1), above / max(count, 1)


def histogram(tables: list[AnyFloats], limits: Limits) -> tuple[AnyFloats, NDArray[np.int64]]:
    """Counts over unit values, a little beyond the limits; what lies farther out is counted in the end bins.

    Returns
    -------
    edges, counts
        Unit values of shape (BINS + 1,), 0 and 1 being the limits, and the counts between them, of shape (BINS,).
    """
    units = np.concatenate([limits.unit(table).ravel() for table in tables])
    units = units[~np.isnan(units)]
    first = max(min(units.min(initial=0.0), 0.0), -_BEYOND)
    last = min(max(units.max(initial=1.0), 1.0), 1 + _BEYOND)
    counts, edges = np.histogram(units.clip(first, last), bins=BINS, range=(first, last))
    return edges, counts


def ratio_to_limit(values: AnyFloats, limits: Limits) -> float:
    """How many times the upper limit the largest of these values is; NaN without a finite value."""
    sizes = np.abs(values) if limits.kind == "diverging" else np.asarray(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = sizes / limits.high
    ratios = ratios[np.isfinite(ratios)]
    return float(ratios.max()) if ratios.size else float("nan")


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


def _limits(values: AnyFloats, kind: Kind, *, robust: bool) -> tuple[float, float, State | Literal["extremes"]]:
    given, values = values, values[np.isfinite(values)]
    if not values.size:
        return (*_EMPTY[kind], "empty" if np.isnan(given).all() else "infinite")
    if not values.any():
        return (*_EMPTY[kind], "zero")
    if kind == "log":
        values = values[values > 0]
    if kind == "diverging":
        return _centred(np.abs(values), robust=robust)
    if not values.size:
        return (*_EMPTY[kind], "below")
    low, high = _fences(values, kind) if robust else (values.min(), values.max())
    if high > low:
        return float(low), float(high), "ok"
    if values.min() < values.max():  # the quantiles fall together, the values do not
        return float(values.min()), float(values.max()), _EXTREMES
    if kind == "log":
        if low < 2 * np.finfo(float).tiny:  # too near zero to be widened
            return float(np.finfo(float).tiny), 4 * float(np.finfo(float).tiny), "equal"
        return float(low * (1 - _WIDEN)), float(high * (1 + _WIDEN)), "equal"
    around = max(abs(float(low)) * _WIDEN, np.finfo(float).tiny)
    return float(low) - around, float(high) + around, "equal"


def _centred(sizes: AnyFloats, *, robust: bool) -> tuple[float, float, State | Literal["extremes"]]:
    high = float(_fences(sizes, "linear")[1]) if robust else float(sizes.max())
    if high:
        return -high, high, "ok"
    return -float(sizes.max()), float(sizes.max()), _EXTREMES


def _fences(values: AnyFloats, kind: str) -> tuple[float, float]:
    """Robust limits of finite values; see `fit`."""
    shares = (QUANTILES[0], INNERMOST[0], 0.25, 0.75, INNERMOST[1], QUANTILES[1])
    first, tenth, lower, upper, ninetieth, last = np.quantile(forward(values, kind), shares)
    reach = FENCE * (upper - lower)
    low, high = np.clip(lower - reach, first, tenth), np.clip(upper + reach, ninetieth, last)
    return float(backward(low, kind)), float(backward(high, kind))


_EXTREMES: Literal["extremes"] = "extremes"  # as "ok", and `Limits.extremes`
_EMPTY = {"linear": (0.0, 1.0), "log": (0.1, 1.0), "diverging": (-1.0, 1.0)}  # limits where there is nothing to limit
