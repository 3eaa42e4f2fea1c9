"""Checks of the values: sinks, depth, norms that say nothing, peaks that cover little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.lint.check import LOOKED_AT, check, some_tokens
from stratoscope.analysis.statistics.known import largest, medians, quantile
from stratoscope.analysis.values.finite import finite, infinite_note, without_number
from stratoscope.trace.notes import INFO, WARNING
from stratoscope.trace.prompts import GONE, Prompts
from stratoscope.words import number, percent

if TYPE_CHECKING:
    import xarray as xr

_RAW_NORMS = ("mlp_out_norm", "mlp_write_norm", "attn_write_norm", "neuron_norm", "resid_norm")
_WRITES = ("mlp_write_norm", "attn_write_norm")
_OWNS = 5.0  # times the 99 % quantile of all others: a linear scale would show little else
_RISES = 0.7  # rank correlation of layers and their median norm
_FEW_LAYERS = 6  # fewer rank anything
_FLAT = 0.05  # coefficient of variation over tokens: a quarter of that of ordinary write norms, and less
_NORMALISED, _USUAL = 0.02, 0.1  # the same of the residual stream after, and before, a final norm
_LITTLE = 0.5  # share of the energy that the recorded peaks hold


@check(
    "L03",
    WARNING,
    "A residual stream recorded after the final norm has another scale at its last depth.",
    {"resid_norm"},
)
def last_depth_is_normalised(dataset: xr.Dataset) -> str | None:
    """The last depth varies far less over tokens than the one before."""
    if "resid_norm" not in dataset or dataset.sizes[names.DEPTH] < 2:
        return None
    spread = _variation(some_tokens(dataset, "resid_norm")[:, -2:])
    if not (spread[1] < _NORMALISED and spread[0] > _USUAL):
        return None
    words = f"Over tokens the last depth varies by {percent(spread[1])}, the one before by {percent(spread[0])}"
    return f"{words}: recorded after the final norm?"


@check("L05", INFO, "One token or one layer owns a linear colour scale.", {*_RAW_NORMS, "imported_norm"})
def one_cell_owns_the_scale(dataset: xr.Dataset) -> str | None:
    """First tokens, or one layer, are many times larger than everything else."""
    name = next((name for name in _RAW_NORMS if name in dataset), None)
    if name is None:
        return None
    values = finite(dataset[name].isel({names.TOKEN: slice(16_384)}).values)
    first = Prompts(dataset).first[: len(values)]
    ratio = _times(largest(values[first]), quantile(values[~first], 0.99))
    if ratio > _OWNS:
        return f"The largest first token is {number(ratio)} times the 99 % quantile of all other cells of {name}."
    layers = np.sort(medians(values[~first]))
    layers = layers[np.isfinite(layers)]
    ratio = _times(largest(layers[-1:]), quantile(layers[:-1], 0.99))
    return (
        f"The median {name} of one layer is {number(ratio)} times that of any other layer." if ratio > _OWNS else None
    )


def _times(value: float, typical: float) -> float:
    """How many times the typical value it is; 0 where that cannot be said."""
    return value / typical if typical > 0 and np.isfinite(value) else 0.0


@check("L07", INFO, "Layers are ranked by norms that grow with depth anyway.", _RAW_NORMS)
def norms_grow_with_depth(dataset: xr.Dataset) -> str | None:
    """The median norm rises from layer to layer."""
    from scipy.stats import spearmanr

    found = {}
    for name in _RAW_NORMS:
        if name in dataset and dataset[name].shape[1] >= _FEW_LAYERS:
            middle = medians(some_tokens(dataset, name))
            known = np.isfinite(middle)
            if known.sum() >= _FEW_LAYERS and np.ptp(middle[known]) > 0:
                found[name] = float(spearmanr(np.flatnonzero(known), middle[known]).statistic)
    rising = [name for name, rank in found.items() if rank >= _RISES]
    if not rising:
        return None
    rank = min(found[name] for name in rising)
    return (
        f"These grow with depth: {', '.join(rising)} (rank correlation at least {number(rank)}). Compare write ratios."
    )


@check(
    "L08",
    INFO,
    "A neuron that is not among the recorded peaks looks like zero.",
    {"peak_value", "peak_write", "peak_share"},
)
def peaks_cover_little(dataset: xr.Dataset) -> str | None:
    """The recorded peaks hold less than half of the energy."""
    if "peak_share" not in dataset:
        return None
    share = quantile(some_tokens(dataset, "peak_share"), 0.5)
    if not share < _LITTLE:
        return None
    return (
        f"The recorded peaks hold {percent(share)} of the neurons' energy in the median: what is not among them is "
        "not zero."
    )


@check("L08", WARNING, "An array without a single value looks recorded.", ())
def nothing_recorded(dataset: xr.Dataset) -> str | None:
    """A quantity that holds no value at all."""
    empty = []
    answers = Prompts(dataset).answer[:256]
    answers = answers[answers != GONE]
    for name in dataset.data_vars:
        row = names.QUANTITIES.get(str(name))
        if row is None or row.dims[0] != names.TOKEN or names.is_streamed(str(name)) or dataset[name].dtype.kind != "f":
            continue
        here = answers if row.at_answer else slice(256)
        values = dataset[name].isel({names.TOKEN: here}).values
        if values.size and np.isnan(values).all():
            empty.append(str(name))
    return f"The first tokens have no value at all of {', '.join(empty)}: missing is not zero." if empty else None


@check("L05", WARNING, "An infinite value has no place on a scale, and no mean.", ())
def infinite_values(dataset: xr.Dataset) -> str | None:
    """A quantity that holds infinite values, or numbers too large to be computed with."""
    found: dict[str, int] = {}
    for name in map(str, dataset.data_vars):
        if name in names.QUANTITIES and dataset[name].dtype.kind == "f" and not names.is_streamed(name):
            count = int(without_number(dataset[name][:LOOKED_AT].values).sum())
            found |= {name: count} if count else {}
    return infinite_note(found, "no statistic counts them, a picture says so").text if found else None


@check(
    "L20",
    WARNING,
    "After an output norm every write has the same size, and the picture is flat by construction.",
    _WRITES,
)
def writes_are_flat(dataset: xr.Dataset) -> str | None:
    """Write norms hardly vary over tokens in most layers."""
    flat = []
    for name in _WRITES:
        if name in dataset:
            spread = _variation(some_tokens(dataset, name))
            spread = spread[np.isfinite(spread)]
            if len(spread) and (spread < _FLAT).mean() > 0.5:
                flat.append(f"{name} ({percent(np.median(spread))})")
    if not flat:
        return None
    beside = "look at mlp_out_norm" if "mlp_out_norm" in dataset else "record norms, and look at mlp_out_norm"
    return f"Nearly the same at all tokens: {', '.join(flat)}, as after an output norm; {beside}."


def _variation(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Coefficient of variation over tokens, robust: 1.48 MAD / median, of each row."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    numbers = np.asarray(values, np.float64)
    middle = medians(numbers)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread: NDArray[np.float64] = 1.4826 * medians(np.abs(numbers - middle)) / middle
    return spread
