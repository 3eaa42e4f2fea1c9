"""Layers off the trend of their neighbours, and experts that take all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Finding, Look, Picture, holding, layer_numbers, nothing
from stratoscope.analysis.anomalies.tokens import outside_sinks

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float64]
_RATIOS = ("mlp_write_ratio", "attn_write_ratio")
_ENDS = 2  # layers at either end, where ratios change too steeply for neighbours to predict them
_LEAST_NOISE = 0.05  # in units of the logarithm: a layer 5 % off its neighbours is nothing to speak of
_LEAST_LAYERS = 14
_LOWER_QUARTILE = 0.3186  # of |z|, z normal: one odd layer spoils the expectations of four more
_TAKES_ALL = 0.9  # of the tokens of a layer, where there are experts to choose from


def layer_off_trend(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """A layer whose median write ratio is not what its neighbours, or the reference, have one expect."""
    detector = "layer off the trend"
    present = [name for name in _RATIOS if name in dataset]
    reference = holding(reference, *present)
    if not present:
        return nothing(detector, "no write ratios recorded")
    if reference is None and dataset.sizes[names.LAYER] < _LEAST_LAYERS:
        return nothing(detector, f"fewer than {_LEAST_LAYERS} layers")
    numbers = layer_numbers(dataset)
    medians = np.stack([_median_ratio(dataset, name) for name in present])
    expected_there = np.stack(
        [
            _from_neighbours(row) if reference is None else _median_ratio(reference, name)
            for row, name in zip(medians, present, strict=True)
        ]
    )
    off = np.log(medians) - np.log(expected_there)
    spread = float(np.nanquantile(np.abs(off), 0.25)) / _LOWER_QUARTILE if np.isfinite(off).any() else np.nan
    scores = np.abs(off) / max(spread, _LEAST_NOISE)

    def tell(index: tuple[int, ...], expected: float) -> Finding:
        which, layer = index
        value, typical = float(medians[index]), float(expected_there[index])
        source = "neighbours have one expect" if reference is None else "the reference has"
        label = names.QUANTITIES[present[which]].label
        words = f"The median {label} of L{numbers[layer]} is {value:.2g} where its {source} {typical:.2g}."
        if reference is not None:
            words = f"The median {label} of L{numbers[layer]} is {value:.2g}, in the reference {typical:.2g}."
        shown = Picture(medians[which], tuple(f"L{number}" for number in numbers), (layer,), f"median {label}")
        return Finding(detector, {"layer": int(numbers[layer])}, value, typical, expected, words, picture=shown)

    return Look(detector, "layer × ratio", scores, tell, same=lambda index: index[0], few=True)


def expert_takes_all(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """An expert to which nearly every token of a layer is sent."""
    detector = "expert that takes all"
    if "router_expert" not in dataset:
        return nothing(detector, "no router recorded")
    chosen = np.asarray(dataset["router_expert"].values)
    experts = int(chosen.max()) + 1 if chosen.size else 0
    if experts <= chosen.shape[2] + 1:
        return nothing(detector, "no expert is left out of any choice")
    shares = np.stack([(chosen == expert).any(axis=2).mean(axis=0) for expert in range(experts)], axis=1)
    known = np.asarray((chosen >= 0).any(axis=(0, 2)))
    numbers = layer_numbers(dataset)
    usual = chosen.shape[2] / experts
    scores = np.where(known[:, None], shares - max(_TAKES_ALL, 2 * usual), np.nan)

    def tell(index: tuple[int, ...], expected: float) -> Finding:
        layer, expert = index
        value = float(shares[index])
        words = (
            f"Expert {expert} of L{numbers[layer]} gets {value:.0%} of the tokens; evenly, each would get {usual:.0%}."
        )
        shown = Picture(
            shares[layer],
            tuple(str(number) for number in range(experts)),
            (expert,),
            f"share of the tokens of L{numbers[layer]}, by expert",
        )
        place = {"layer": int(numbers[layer]), "expert": expert}
        return Finding(detector, place, value, usual, expected, words, picture=shown)

    return Look(detector, "layer × expert", scores, tell, certain=True)


def _median_ratio(dataset: xr.Dataset, name: str) -> Floats:
    values = outside_sinks(dataset, name)
    empty = np.isnan(values).all(axis=0)
    return np.where(empty, np.nan, np.nanmedian(np.where(empty, 0.0, values), axis=0))


def _from_neighbours(medians: Floats) -> Floats:
    """The cubic through two layers on either side, of the logarithm; NaN at the ends."""
    logs = np.log(medians)
    found = np.full(len(logs), np.nan)
    inner = np.arange(_ENDS, len(logs) - _ENDS)
    found[inner] = (4 * (logs[inner - 1] + logs[inner + 1]) - (logs[inner - 2] + logs[inner + 2])) / 6
    found[[*range(_ENDS, _ENDS * 2), *range(len(logs) - 2 * _ENDS, len(logs) - _ENDS)]] = np.nan
    expected: Floats = np.exp(found)
    return expected
