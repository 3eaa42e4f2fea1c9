"""The recorded peaks of a trace, or the rows of an import, as tables that are read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.values.tables import rank_of
from stratoscope.errors import InputError
from stratoscope.trace.arrays import AnyFloats, Ints, as_slice

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from stratoscope.trace.prompts import Prompts

NEURON = ["layer", "expert", "neuron"]  # the columns that name a neuron; expert −1 = of a dense or a shared MLP
WRITE, VALUE = "write_norm", "value"
EFFECT, DIRECT = "effect", "direct"
_RANKED = {EFFECT: ("effect_neuron", "neuron_effect"), DIRECT: ("logit_neuron", "neuron_logit")}  # neuron, value
_BLOCK = 2**20  # peaks read at a time

Columns: TypeAlias = "dict[str, NDArray[Any]]"


def strength_of(dataset: xr.Dataset, ranking: names.Ranking) -> str:
    """By what neurons are ranked: as asked, where "write" is what they write, else the size of their activation.

    Raises
    ------
    InputError
        It does not hold what is asked for.
    """
    if ranking != "write":
        if all(name in dataset and all(dataset[name].shape) for name in _RANKED[ranking]):
            return ranking
        group = names.EFFECTS if ranking == EFFECT else names.LOGITS
        fix = f"Record it: `stratoscope capture MODEL --prompts FILE --record {group} --targets TEXT -o TRACE`."
        raise InputError(f"it holds no {_RANKED[ranking][1]}", where="by", fix=fix)
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
    prompts: Prompts, first: int, stop: int, layers: Ints, among: Ints | None = None, *, by: str
) -> Iterator[pd.DataFrame]:
    """The peaks, or other ranked neurons, of the prompts `first` … `stop` − 1, block by block.

    Parameters
    ----------
    by
        As of `strength_of`. Of effects and contributions `value` is what they are, and the (first) target's.
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
    if by in _RANKED:
        for columns in _explained(prompts, first, stop, layers, among, *_RANKED[by]):
            yield _table(columns, VALUE)
        return
    read = _rows if names.ROW in prompts.dataset.sizes else _recorded
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


def _explained(
    prompts: Prompts, first: int, stop: int, layers: Ints, among: Ints | None, of_neuron: str, of_value: str
) -> Iterator[Columns]:
    """Neurons that are ranked by what they do to a target's logit."""
    dataset, places = prompts.dataset, as_slice(layers)
    numbers = dataset["layer"].values[layers]
    begin, end = int(prompts.starts[first]), int(prompts.stops[stop - 1])
    width = dataset[of_neuron].sizes[rank_of(names.QUANTITIES[of_neuron])]
    together = max(1, _BLOCK // max(1, width * len(layers)))
    for start in range(begin, end, together):
        here = dataset.isel({names.TOKEN: slice(start, min(start + together, end)), names.LAYER: places})
        neuron, value = (_values(here, name)[:, :, 0] for name in (of_neuron, of_value))
        kept = (neuron >= 0) & ~np.isnan(value) & (True if among is None else np.isin(neuron, among))
        token, place, _ = np.nonzero(kept)
        unknown = np.full(len(token), np.nan, np.float32)
        yield {
            "token": start + token,
            "layer": numbers[place],
            "expert": np.full(len(token), -1),
            "neuron": neuron[kept],
            "value": value[kept],
            "write_norm": unknown,
            "share": unknown,
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
