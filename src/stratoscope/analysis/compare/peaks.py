"""Neurons that are among the peaks of one prompt and not of the other, at the same token and layer.

A neuron that is not in a list is not zero (L08). Where the list of the other prompt is full, its write there is at most
that of the weakest in it: what it writes beyond that here it certainly writes more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.compare.prompts import Two
from stratoscope.analysis.diff.cells import SharedLayers
from stratoscope.analysis.diff.prompts import Columns
from stratoscope.trace.arrays import Floats, Ints, as_slice

if TYPE_CHECKING:
    import xarray as xr

_RANKED = ("peak_neuron", "peak_value", "peak_write")
_COLUMNS = ("in_b", "column", "layer", "neuron", "expert", "value", "write", "at_least")


@dataclass(frozen=True, eq=False)
class OneSided:
    """Neurons in one list only, the surest first; each array is [listed].

    Attributes
    ----------
    in_b
        Whether it is in the list of B, else of A.
    column, layer, neuron
        Place of the aligned token, number of the layer, and the neuron.
    expert
        Its expert; −1 of a dense model, or where there is none.
    value, write
        Its value and what it writes, |a_i|·‖W_:,i‖₂; of CSV files the value alone.
    at_least
        By how much its write is larger than in the other prompt, at least; NaN where that is not certain at all.
    compared
        In how many cells, tokens × layers, both have a list.
    most
        How long a list is at most; 0 = not known.
    """

    in_b: NDArray[np.bool_]
    column: Ints
    layer: Ints
    neuron: Ints
    expert: Ints
    value: Floats
    write: Floats
    at_least: Floats
    compared: int
    most: int


def has_lists(two: Two) -> bool:
    """Whether both prompts list neurons: peaks that were recorded, or the rows of CSV files."""
    return all("peak_neuron" in side.dataset for side in two.sides) or _are_imported(two)


def one_sided(two: Two, columns: Columns, layers: SharedLayers) -> OneSided:
    """The neurons that only one of the two lists has, at equal tokens."""
    at = np.flatnonzero(columns.equal)
    found = _of_rows(two, columns, at, layers) if _are_imported(two) else _of_peaks(two, columns, at, layers)
    sure = np.where(np.isfinite(found.at_least), found.at_least, -np.inf)
    size = np.where(np.isfinite(found.write), found.write, np.abs(found.value))
    order = np.lexsort((-size, -sure))
    return replace(found, **{name: getattr(found, name)[order] for name in _COLUMNS})


def _are_imported(two: Two) -> bool:
    return all("imported_norm" in side.dataset for side in two.sides)


def _of_peaks(two: Two, columns: Columns, at: Ints, layers: SharedLayers) -> OneSided:
    lists = [
        _Peaks.of(side.dataset, places[at], rows)
        for side, places, rows in zip(two.sides, (columns.a, columns.b), (layers.a, layers.b), strict=True)
    ]
    both = np.logical_and(lists[0].any, lists[1].any)
    parts = []
    for in_b, (mine, other) in enumerate((lists, lists[::-1])):
        only = both[:, :, None] & (mine.neuron >= 0)
        for layer in range(only.shape[1]):  # one at a time: every peak is held against every other
            only[:, layer] &= ~(mine.key[:, layer, :, None] == other.key[:, layer, None, :]).any(axis=2)
        column, row, rank = np.nonzero(only)
        write = mine.write[column, row, rank]
        with np.errstate(invalid="ignore"):  # infinite in both
            beyond = write - other.weakest[column, row]
        parts.append((
            np.full(len(column), bool(in_b)), at[column], layers.numbers[row], mine.neuron[only], mine.expert[only],
            mine.value[only], write, np.where(beyond >= 0, beyond, np.nan),
        ))  # fmt: skip
    return _joined(parts, int(both.sum()), max(one.neuron.shape[2] for one in lists))


def _joined(parts: Sequence[Sequence[NDArray[Any]]], compared: int, most: int) -> OneSided:
    """The neurons of A only and of B only, each given as `_COLUMNS`, as one list."""
    columns = dict(zip(_COLUMNS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    return OneSided(**columns, compared=compared, most=most)


@dataclass(frozen=True, eq=False)
class _Peaks:
    """The peaks of some tokens and layers, [token, layer, rank]; `weakest` write of a full list, [token, layer]."""

    neuron: Ints
    expert: Ints
    value: Floats
    write: Floats

    @classmethod
    def of(cls, dataset: xr.Dataset, tokens: Ints, rows: Ints) -> _Peaks:
        chosen = {names.TOKEN: as_slice(tokens), names.LAYER: as_slice(rows)}
        dims = (names.TOKEN, names.LAYER, names.PEAK)
        held = {
            name: dataset[name].isel(chosen).transpose(*dims).values
            for name in (*_RANKED, "peak_expert")
            if name in dataset
        }
        neuron = held["peak_neuron"].astype(np.int64)
        unknown = np.full(neuron.shape, np.nan)
        return cls(
            neuron,
            held.get("peak_expert", np.full(neuron.shape, -1)).astype(np.int64),
            held.get("peak_value", unknown).astype(np.float64),
            held.get("peak_write", unknown).astype(np.float64),
        )

    @cached_property
    def key(self) -> Ints:
        """What tells neurons apart: the neuron and its expert."""
        key: Ints = np.where(self.neuron >= 0, self.neuron + (self.expert + 1) * 2**32, -1)
        return key

    @property
    def any(self) -> NDArray[np.bool_]:
        """Whether anything is listed, [token, layer]."""
        listed: NDArray[np.bool_] = self.neuron.max(axis=2, initial=-1) >= 0
        return listed

    @cached_property
    def weakest(self) -> Floats:
        """The smallest write of a list that is full; NaN of one that is not."""
        full = (self.neuron >= 0).all(axis=2)
        weakest: Floats = np.where(full, self.write.min(axis=2), np.nan)
        return weakest


def _of_rows(two: Two, columns: Columns, at: Ints, layers: SharedLayers) -> OneSided:
    """The same of the rows of CSV files: which rows a file has, and which not, only its maker knows."""
    sides = [
        _listed_rows(side.dataset, places[at], layers)
        for side, places in zip(two.sides, (columns.a, columns.b), strict=True)
    ]
    both = np.intersect1d(sides[0]["cell"], sides[1]["cell"])
    parts = []
    for in_b, (mine, other) in enumerate((sides, sides[::-1])):
        only = np.isin(mine["cell"], both) & ~np.isin(mine["key"], other["key"])
        column, row = np.divmod(mine["cell"][only], len(layers.numbers))
        count = int(only.sum())
        unknown = np.full(count, np.nan)
        parts.append((
            np.full(count, bool(in_b)), at[column], layers.numbers[row], mine["neuron"][only],
            np.full(count, -1, np.int64), mine["value"][only], unknown, unknown,
        ))  # fmt: skip
    return _joined(parts, len(both), 0)


def _listed_rows(dataset: xr.Dataset, tokens: Ints, layers: SharedLayers) -> dict[str, NDArray[Any]]:
    """The rows at some tokens and layers, of each neuron there the largest: its cell, its key, itself and its value."""
    place = np.full(dataset.sizes[names.TOKEN], -1)
    place[tokens] = np.arange(len(tokens))
    column = place[dataset["row_token"].values]
    layer = dataset["row_layer"].values
    row = np.searchsorted(layers.numbers, layer).clip(max=len(layers.numbers) - 1)
    wanted = (column >= 0) & (layers.numbers[row] == layer)
    cell = (column * len(layers.numbers) + row)[wanted].astype(np.int64)
    neuron = dataset["row_neuron"].values[wanted].astype(np.int64)
    value = dataset["imported_norm"].values[wanted].astype(np.float64)
    key = cell * 2**32 + neuron + 2**31  # a Neuron_ID has 32 bits
    order = np.argsort(-np.abs(value), kind="stable")
    _, first = np.unique(key[order], return_index=True)
    kept = order[first]
    return {"cell": cell[kept], "key": key[kept], "neuron": neuron[kept], "value": value[kept]}
