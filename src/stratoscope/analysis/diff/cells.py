"""Token by token and layer by layer: what the two traces hold, their difference, their ratio, and how far it exceeds noise."""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.diff.floor import Noise
from stratoscope.analysis.diff.prompts import Columns
from stratoscope.analysis.values.align import GAP
from stratoscope.analysis.values.quantities import drawn_by
from stratoscope.analysis.values.tables import has_cells, table
from stratoscope.errors import InputError
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.numbers import LayerChoice, choose_layers
from stratoscope.trace.quantity_names import quantity_named
from stratoscope.trace.targets import has_targets
from stratoscope.words import number_ranges

if TYPE_CHECKING:
    import xarray as xr

_BYTES = 96 * 2**20  # of one side: rows are read together as long as they fit
KEPT = ("a", "b", "difference", "ratio", "times_floor")
PROFILE = ("size_median", "size_95", "size_mean", "size_largest", "times_median", "times_95", "times_largest",
           "share_above", "share_changed", "relative_median", "floor_relative")  # fmt: skip


@dataclass(frozen=True)
class SharedLayers:
    """The layers, or depths, that both traces have: their numbers, and where they are in either."""

    kind: str
    numbers: Ints
    a: Ints
    b: Ints


@dataclass(frozen=True)
class Compared:
    """One quantity in both traces.

    Attributes
    ----------
    quantity, rows
        What, and of which layers or depths.
    cells
        `KEPT` of the columns that are kept, [column, row]; without a floor no "times_floor".
    profile
        `PROFILE` of all equal tokens of all pairs but the first, [row]: |difference|, how many times the floor, the
        share of cells above it, the share that differs at all, |difference| / max(|a|, |b|).
    before
        The largest times the floor and the largest relative difference of tokens before any edit; NaN where there is
        none.
    early
        The same as `times_largest`, `share_above` and the count of cells, but only of tokens before any edit; [row].
    counted
        How many cells that summaries are of have a floor, [row].
    exact
        Of tokens that have seen the same tokens in both traces, first ones included: how many `numbers` there are,
        and how many of them `changed`; [row].
    identical
        Whether every compared cell is the same number.
    """

    quantity: str
    rows: SharedLayers
    cells: dict[str, Floats]
    profile: dict[str, Floats]
    before: tuple[float, float]
    early: dict[str, Floats]
    counted: Floats
    exact: dict[str, Ints]
    identical: bool


def quantities_in_both(a: xr.Dataset, b: xr.Dataset, wanted: str | Sequence[str] | None) -> list[str]:
    """The quantities to compare: those asked for, else every one with a value for each token and layer.

    Raises
    ------
    InputError
        One that is asked for is not in both.
    """
    both = [name for name, row in names.QUANTITIES.items() if name in a and name in b and has_cells(row)]
    there = [name for name in both if not has_targets(name)]
    usual = sorted(there, key=lambda name: name != defaults.QUANTITY)  # that one first: it is what is drawn
    given = [wanted] if isinstance(wanted, str) else wanted or usual
    asked = list(dict.fromkeys(quantity_named(name, there) for name in given))
    for name in asked:
        if name in both and name not in there:
            fix = "Leave --quantity out: the table of contributions and that of effects compare them row by row."
            raise InputError(f"{name} stands under two final norms or answers", where="quantity", fix=fix)
        if name not in there:
            fix = f"{drawn_by(name)}Both have: {', '.join(there) or 'nothing'}."
            raise InputError(f"{name!r} cannot be compared token by token", where="quantity", fix=fix)
    return asked


def rows_of(a: xr.Dataset, b: xr.Dataset, kind: str, layers: LayerChoice) -> SharedLayers:
    """The layers or depths of both traces, paired by their number."""
    numbers = [np.asarray(one[kind].values).astype(np.int64) for one in (a, b)]
    common = np.intersect1d(numbers[0], numbers[1])
    if not len(common):
        there = " and ".join(number_ranges(one.tolist()) for one in numbers)
        raise InputError(f"the two traces have no {kind} in common", where=f"{kind}s", fix=f"They have: {there}.")
    chosen = common[choose_layers(common, layers, kind=kind)]
    return SharedLayers(kind, chosen, np.searchsorted(numbers[0], chosen), np.searchsorted(numbers[1], chosen))


def compare_cells(
    a: xr.Dataset,
    b: xr.Dataset,
    quantity: str,
    rows: SharedLayers,
    columns: Columns,
    kept: NDArray[np.bool_],
    noise: Noise,
) -> Compared:
    """Compare one quantity, a few rows at a time.

    Parameters
    ----------
    columns, kept
        The aligned tokens, and which of them are kept cell by cell.
    """
    floor = noise.floor(quantity, rows.a, rows.b)
    cells: dict[str, list[NDArray[Any]]] = {name: [] for name in KEPT}
    profile: dict[str, list[float]] = {name: [] for name in PROFILE}
    early: dict[str, list[float]] = {"times_largest": [], "share_above": [], "cells": []}
    exact: dict[str, list[Ints]] = {"numbers": [], "changed": []}
    with_floor: list[float] = []
    counted, before = columns.compared, columns.before & ~columns.first
    relative_before, identical = np.nan, True
    for block in _blocks(a, b, quantity, len(rows.numbers)):
        one, other = (
            _on_columns(dataset, quantity, places, at[block])
            for dataset, places, at in ((a, columns.a, rows.a), (b, columns.b, rows.b))
        )
        difference = np.where(columns.equal[:, None], other - one, np.nan)
        times = np.full_like(difference, np.nan)
        if floor is not None:
            times = noise.times(difference, one, other, floor[block])
            times[columns.first] = np.nan  # the floor was measured without first tokens
        size, relative = np.abs(difference), _relative(difference, one, other)
        identical &= not np.nan_to_num(difference).any() and np.array_equal(
            np.isnan(one[columns.equal]), np.isnan(other[columns.equal])
        )
        for name, count in _count_equal(one[columns.before], other[columns.before]).items():
            exact[name].append(count)
        relative_before = np.fmax(relative_before, _largest(relative[before]))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where((one != 0) & columns.equal[:, None], other / one, np.nan)
        for name, values in zip(KEPT, (one, other, difference, ratio, times), strict=True):
            cells[name].append(_stored(values[kept]))
        for row in range(size.shape[1]):
            level = np.nan if floor is None else floor[block][row]
            profile["floor_relative"].append(_floor_relative(level, one[counted, row], noise.least))
            _add_profile(profile, size[counted, row], times[counted, row], relative[counted, row])
            _add_early(early, times[before, row])
            with_floor.append(float(np.isfinite(times[counted, row]).sum()))
    found = {name: np.concatenate(parts, axis=1) for name, parts in cells.items()}
    if floor is None:
        del found["times_floor"]
    summaries = {name: np.array(values) for name, values in profile.items()}
    earlier = {name: np.array(values) for name, values in early.items()}
    largest = (_largest(earlier["times_largest"]), float(relative_before))
    counts = {name: np.concatenate(parts) for name, parts in exact.items()}
    return Compared(quantity, rows, found, summaries, largest, earlier, np.array(with_floor), counts, identical)


def _stored(values: Floats) -> NDArray[np.floating]:
    """In single precision, unless a number is too large for that."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return values if (np.isinf(single) & np.isfinite(values)).any() else single


def _blocks(a: xr.Dataset, b: xr.Dataset, quantity: str, rows: int) -> Iterator[slice]:
    tokens = max(one.sizes[names.TOKEN] for one in (a, b))
    heads = max(one.sizes.get(names.HEAD, 1) if names.HEAD in one[quantity].dims else 1 for one in (a, b))
    together = max(1, _BYTES // max(1, 8 * tokens * heads))
    return (slice(start, min(start + together, rows)) for start in range(0, rows, together))


def _on_columns(dataset: xr.Dataset, quantity: str, places: Ints, rows: Ints) -> Floats:
    """Values of a trace on the aligned columns, [column, row]; NaN in gaps."""
    every = np.asarray(table(dataset, quantity, np.arange(dataset.sizes[names.TOKEN]), rows), np.float64)
    values = np.full((len(places), len(rows)), np.nan)
    there = places != GAP
    values[there] = every[places[there]]
    return values


def _count_equal(a: Floats, b: Floats) -> dict[str, Ints]:
    """How many numbers either side has, and how many are not the same in both, [row]; NaN is like NaN."""
    either = ~(np.isnan(a) & np.isnan(b))
    return {"numbers": either.sum(axis=0), "changed": (either & (a != b)).sum(axis=0)}


def _relative(difference: Floats, a: Floats, b: Floats) -> Floats:
    size = np.maximum(np.abs(a), np.abs(b))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative: Floats = np.where(size > 0, np.abs(difference) / size, np.abs(difference))
    return relative


def _add_profile(profile: dict[str, list[float]], size: Floats, times: Floats, relative: Floats) -> None:
    size, times, relative = (one[np.isfinite(one)] for one in (size, times, relative))
    median, high = _quantiles(size)
    profile["size_median"].append(median)
    profile["size_95"].append(high)
    profile["size_mean"].append(float(size.mean()) if size.size else np.nan)
    profile["size_largest"].append(_largest(size))
    median, high = _quantiles(times)
    profile["times_median"].append(median)
    profile["times_95"].append(high)
    profile["times_largest"].append(_largest(times))
    profile["share_changed"].append(float((size > 0).mean()) if size.size else np.nan)
    profile["share_above"].append(float((times > 1).mean()) if times.size else np.nan)
    profile["relative_median"].append(_quantiles(relative)[0])


def _floor_relative(floor: float, values: Floats, least: float) -> float:
    """The floor as a share of a typical value of the layer: what a smaller change than that hides behind."""
    sizes = np.abs(values[np.isfinite(values)])
    typical = float(np.median(sizes)) if sizes.size else np.nan
    return max(floor / typical, least) if typical > 0 and np.isfinite(floor) else np.nan


def _add_early(early: dict[str, list[float]], times: Floats) -> None:
    times = times[np.isfinite(times)]
    early["times_largest"].append(_largest(times))
    early["share_above"].append(float((times > 1).mean()) if times.size else np.nan)
    early["cells"].append(float(times.size))


def _quantiles(values: Floats) -> tuple[float, float]:
    return tuple(np.quantile(values, (0.5, 0.95)).tolist()) if values.size else (np.nan, np.nan)


def _largest(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else np.nan
