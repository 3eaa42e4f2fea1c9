"""Any quantity of a trace as a table of tokens × layers: heads reduced to one value, of what is ranked the strongest."""  # noqa: E501

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

RANKED = {names.PEAK: "peaks", names.EFFECT_RANK: "neurons", names.LOGIT_RANK: "neurons", names.ROUTE: "edges"}
REDUCTIONS = ("mean", "sum", "max")  # of heads to one value


def table(
    dataset: xr.Dataset,
    name: str,
    tokens: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    head: str | int | None = None,
) -> AnyFloats:
    """Values of shape (tokens, rows): heads reduced, of ranks the strongest, of targets the first (`one_target`).

    Parameters
    ----------
    tokens, rows
        Positions on the token axis and on the layer (or depth) axis; of a quantity without layers, its only row.
    head
        "mean", "sum", "max" or the number of one head; None = `usual_head`.
    """
    if name == "imported_norm":
        return _mean_of_rows(dataset, tokens, rows)
    row = names.QUANTITIES[name]
    array = dataset[name].isel({names.TOKEN: as_slice(tokens)})
    if row.dims[1] in (names.LAYER, names.DEPTH):
        array = array.isel({row.dims[1]: as_slice(rows)})
    if names.TARGET in row.dims:
        array = array.isel({names.TARGET: 0} if row.row_kind != names.TARGET else {names.TARGET: slice(1)})
    if rank := rank_of(row):
        array = array.isel({rank: _of_largest(rank, array.sizes[rank])})
    values: AnyFloats = array.transpose(*(dim for dim in row.dims if dim in array.dims)).values
    if rank:
        return _largest(values)
    if names.HEAD not in row.dims:
        return values
    return over_heads(values, usual_head(row) if head is None else head, signed=row.signed)


def rank_of(row: names.Quantity) -> str:
    """The dimension of ranks that a quantity of tokens and layers has; "" = none."""
    return next((dim for dim in RANKED if dim in row.dims), "")


def _of_largest(rank: str, count: int) -> list[int]:
    """The ranks among which the strongest is: where both signs are ranked by themselves, the first of either."""
    return [0, count // 2] if rank == names.LOGIT_RANK and count > 1 else [0]


def _largest(values: AnyFloats) -> AnyFloats:
    """Of the last axis the value of largest size, NaN where there is none."""
    sizes = np.where(np.isnan(values), -1.0, np.abs(values))
    chosen: AnyFloats = np.take_along_axis(values, sizes.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    return chosen


def has_cells(row: names.Quantity) -> bool:
    """Whether a quantity has a size for each token and layer (or depth), heads reduced; an import's rows have too."""
    by_layer = row.dims[0] == names.TOKEN and row.dims[1:2] in ((names.LAYER,), (names.DEPTH,))
    rest = tuple(dim for dim in row.dims[2:] if dim not in (names.HEAD, names.TARGET))
    return (by_layer and row.unit != "index" and not rest) or row.dims == (names.ROW,)


def usual_head(row: names.Quantity) -> str:
    """What is made of the heads of a quantity where nobody says: the sum of what adds up, else the mean."""
    return "sum" if row.adds_up else defaults.HEAD


def over_heads(values: AnyFloats, head: str | int, *, signed: bool = False) -> AnyFloats:
    """One value for all heads, of shape (tokens, rows); NaN only where no head has one.

    Parameters
    ----------
    values
        Shape (tokens, rows, heads).
    head
        "mean", "sum", "max" (where `signed`, of largest size) or the number of one head.
    """
    if head not in REDUCTIONS:
        one: AnyFloats = values[:, :, check_head(head, values.shape[2])]
        return one
    if head == "max" and signed:
        return _largest(values)
    known = ~np.isnan(values)
    count = known.sum(axis=2)
    if head == "max":
        reduced = np.where(known, values, -np.inf).max(axis=2)
    else:
        usual = np.where(np.isfinite(values), values, 0).sum(axis=2, dtype=np.float64)
        if head == "mean":
            usual = usual / np.maximum(count, 1)
        reduced = np.where(np.isneginf(values).any(axis=2), -np.inf, usual)
        reduced = np.where(np.isposinf(values).any(axis=2), np.inf, reduced)  # of both signs: infinite, and said so
    return np.where(count > 0, reduced, np.nan).astype(values.dtype)


def check_head(head: str | int, heads: int) -> int:
    """The number of one head, or an `InputError`."""
    number = int(head) if is_whole(head) or (isinstance(head, str) and head.isdecimal()) else -1
    if not 0 <= number < heads:
        near = did_you_mean(head, REDUCTIONS)
        fix = f'{near}Choose "mean", "sum", "max" or 0 to {heads - 1}.'
        raise InputError(f"no head {head!r}", where="head", fix=fix)
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
