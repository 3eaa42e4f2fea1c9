"""Any quantity of a trace as a table of tokens × layers: heads reduced to one value, of peaks the strongest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.values.finite import without_number
from stratoscope.errors import InputError, did_you_mean
from stratoscope.trace.arguments import is_whole
from stratoscope.trace.arrays import AnyFloats, as_slice

if TYPE_CHECKING:
    import xarray as xr


def table(
    dataset: xr.Dataset,
    name: str,
    tokens: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    head: str | int = defaults.HEAD,
) -> AnyFloats:
    """Values of shape (tokens, rows): heads averaged (or their maximum, or one of them), of peaks the strongest.

    Parameters
    ----------
    tokens, rows
        Positions on the token axis and on the layer (or depth) axis.
    head
        "mean", "max" or the number of one head.
    """
    if name == "imported_norm":
        return _mean_of_rows(dataset, tokens, rows)
    dims = names.QUANTITIES[name].dims
    array = dataset[name].isel({names.TOKEN: as_slice(tokens), dims[1]: as_slice(rows)})
    if names.PEAK in dims:
        array = array.isel({names.PEAK: 0})
    values: AnyFloats = array.transpose(*dims[: array.ndim]).values
    return over_heads(values, head) if names.HEAD in dims else values


def has_cells(row: names.Quantity) -> bool:
    """Whether a quantity has a size for each token and layer (or depth), heads averaged; an import's rows have too."""
    by_layer = row.dims[0] == names.TOKEN and row.dims[1:2] in ((names.LAYER,), (names.DEPTH,))
    return (by_layer and row.unit != "index" and row.dims[2:] in ((), (names.HEAD,))) or row.dims == (names.ROW,)


def over_heads(values: AnyFloats, head: str | int) -> AnyFloats:
    """One value for all heads, of shape (tokens, rows); NaN only where no head has one.

    Parameters
    ----------
    values
        Shape (tokens, rows, heads).
    head
        "mean", "max" or the number of one head.
    """
    if head not in ("mean", "max"):
        one: AnyFloats = values[:, :, check_head(head, values.shape[2])]
        return one
    known = ~np.isnan(values)
    count = known.sum(axis=2)
    if head == "max":
        reduced = np.where(known, values, -np.inf).max(axis=2)
    else:
        usual = np.where(np.isfinite(values), values, 0).sum(axis=2, dtype=np.float64) / np.maximum(count, 1)
        reduced = np.where(np.isneginf(values).any(axis=2), -np.inf, usual)
        reduced = np.where(np.isposinf(values).any(axis=2), np.inf, reduced)  # of both signs: infinite, and said so
    return np.where(count > 0, reduced, np.nan).astype(values.dtype)


def check_head(head: str | int, heads: int) -> int:
    """The number of one head, or an `InputError`."""
    number = int(head) if is_whole(head) or (isinstance(head, str) and head.isdecimal()) else -1
    if not 0 <= number < heads:
        near = did_you_mean(head, ("mean", "max"))
        raise InputError(f"no head {head!r}", where="head", fix=f'{near}Choose "mean", "max" or 0 to {heads - 1}.')
    return number


def _mean_of_rows(dataset: xr.Dataset, tokens: NDArray[np.int64], rows: NDArray[np.int64]) -> AnyFloats:
    """Mean of an import's values per (token, layer); NaN where the file has no row."""
    layers = dataset[names.LAYER].values[rows]
    row_token, row_layer = dataset["row_token"].values, dataset["row_layer"].values
    place = np.full(dataset.sizes[names.TOKEN], -1)
    place[tokens] = np.arange(len(tokens))
    layer = np.searchsorted(layers, row_layer).clip(max=len(layers) - 1)
    wanted = (place[row_token] >= 0) & (layers[layer] == row_layer)
    cell = (place[row_token] * len(layers) + layer)[wanted]
    size = len(tokens) * len(layers)
    count = np.bincount(cell, minlength=size)
    total = np.bincount(cell, dataset["imported_norm"].values[wanted], minlength=size)
    mean: AnyFloats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    mean[without_number(mean)] *= np.inf  # drawn and told as what it is to arithmetic
    return mean.reshape(len(tokens), len(layers))
