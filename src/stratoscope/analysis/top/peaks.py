"""The recorded peaks of a trace, or the rows of an import, as tables that are read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.arrays import AnyFloats, Ints, as_slice

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from stratoscope.trace.prompts import Prompts

NEURON = ["layer", "expert", "neuron"]  # the columns that name a neuron; expert −1 = of a dense or a shared MLP
WRITE, VALUE = "write_norm", "value"
_BLOCK = 2**20  # peaks read at a time

Columns: TypeAlias = "dict[str, NDArray[Any]]"


def strength_of(dataset: xr.Dataset) -> str:
    """By which column the peaks of a dataset are ranked: what they write, else the size of their activation.

    Raises
    ------
    InputError
        It holds no peaks.
    """
    if "peak_neuron" in dataset and "peak_write" in dataset:
        return WRITE
    if ("peak_neuron" in dataset and "peak_value" in dataset) or "imported_norm" in dataset:
        return VALUE
    raise InputError(
        "this trace holds no peaks, so it does not say which neurons are strong",
        where="trace",
        fix="Record them: `stratoscope capture MODEL --prompts FILE --record peaks -o TRACE`.",
    )


def peaks_in(
    prompts: Prompts, first: int, stop: int, layers: Ints, among: Ints | None = None
) -> Iterator[pd.DataFrame]:
    """The peaks of the prompts `first` … `stop` − 1, block by block.

    Parameters
    ----------
    layers
        Positions on the layer axis, ascending.
    among
        Only neurons of these numbers; None = all.

    Yields
    ------
    pandas.DataFrame
        `token` (index on the token axis), `layer` (its number), `expert`, `neuron`, `value`, `write_norm`, `share` and
        `strength`, by which they are ranked; NaN where something was not recorded.
    """
    read = _rows if names.ROW in prompts.dataset.sizes else _recorded
    by = strength_of(prompts.dataset)
    for columns in read(prompts, first, stop, layers, among):
        yield _table(columns, by)


def _table(columns: Columns, by: str) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(columns)
    return table.assign(strength=table[by].abs()).dropna(subset="strength")


def _recorded(prompts: Prompts, first: int, stop: int, layers: Ints, among: Ints | None) -> Iterator[Columns]:
    dataset, places = prompts.dataset, as_slice(layers)
    numbers = dataset["layer"].values[layers]
    begin, end = int(prompts.starts[first]), int(prompts.stops[stop - 1])
    together = max(1, _BLOCK // max(1, dataset.sizes[names.PEAK] * len(layers)))
    for start in range(begin, end, together):
        here = dataset.isel({names.TOKEN: slice(start, min(start + together, end)), names.LAYER: places})
        neuron = _values(here, "peak_neuron")
        kept = neuron >= 0 if among is None else np.isin(neuron, among) & (neuron >= 0)
        if not kept.any():
            continue
        token, place, _ = np.nonzero(kept)
        unknown = np.full(len(token), np.nan, np.float32)
        value, write = (
            _values(here, name)[kept] if name in dataset else unknown for name in ("peak_value", "peak_write")
        )
        expert = _values(here, "peak_expert")[kept] if "peak_expert" in dataset else np.full(len(token), -1)
        yield {
            "token": start + token,
            "layer": numbers[place],
            "expert": expert,
            "neuron": neuron[kept],
            "value": value,
            "write_norm": write,
            "share": _shares(here)[kept] if _has_shares(dataset) else unknown,
        }


def _values(part: xr.Dataset, name: str) -> NDArray[Any]:
    dims = names.QUANTITIES[name].dims
    values: NDArray[Any] = part[name].transpose(*dims).values
    return values


def _has_shares(dataset: xr.Dataset) -> bool:
    """Whether it is known of each peak what part it is: all that were recorded must still be there."""
    plan = dataset.attrs.get("plan")
    recorded = plan.get("top_k") if isinstance(plan, dict) else None
    return {"peak_share", "peak_write"} <= set(dataset.variables) and recorded in (None, dataset.sizes[names.PEAK])


def _shares(part: xr.Dataset) -> AnyFloats:
    """Of each peak (|a_i|‖W_i‖)² / Σ over all neurons: `peak_share` is that of all peaks together."""
    squares = np.square(_values(part, "peak_write").astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: AnyFloats = squares / np.nansum(squares, axis=2, keepdims=True) * _values(part, "peak_share")[..., None]
    shares[~np.isfinite(shares)] = np.nan
    return shares


def _rows(prompts: Prompts, first: int, stop: int, layers: Ints, among: Ints | None) -> Iterator[Columns]:
    dataset = prompts.dataset
    numbers = dataset["layer"].values[layers]
    begin, end = int(prompts.starts[first]), int(prompts.stops[stop - 1])
    rows = prompts.run(first, stop).get(names.ROW, slice(0, dataset.sizes[names.ROW]))
    for start in range(rows.start, rows.stop, _BLOCK):
        here = slice(start, min(start + _BLOCK, rows.stop))
        token, layer, neuron = (dataset[name][here].values for name in ("row_token", "row_layer", "row_neuron"))
        kept = (token >= begin) & (token < end) & np.isin(layer, numbers)
        if among is not None:
            kept &= np.isin(neuron, among)
        unknown = np.full(int(kept.sum()), np.nan)
        yield {
            "token": token[kept],
            "layer": layer[kept],
            "expert": np.full(len(unknown), -1),
            "neuron": neuron[kept],
            "value": dataset["imported_norm"][here].values[kept],
            "write_norm": unknown,
            "share": unknown,
        }
