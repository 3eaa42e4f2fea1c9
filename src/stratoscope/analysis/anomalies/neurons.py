"""Neurons that are never active, or always alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.finding import (
    Evidence,
    Index,
    Look,
    Member,
    NamedPrompts,
    holding,
    layer_numbers,
    nothing,
)
from stratoscope.analysis.anomalies.tails import standardised
from stratoscope.analysis.statistics.known import medians
from stratoscope.analysis.values.layers import by_layer
from stratoscope.trace.arrays import Floats
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

_LEAST_PROMPTS = 6
_DEAD = 0.02  # of what the median neuron of the layer reaches: weaker ones are rare, stronger ones not dead


def dead_neuron(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """A neuron whose largest activation at any of the user's tokens is far below that of its layer, and no peak."""
    detector = "dead neuron"
    if not {"prompt_max", "prompt_min"} <= set(dataset.data_vars):
        return nothing(detector, "no prompt_max and prompt_min recorded")
    reference = holding(reference, "prompt_max", "prompt_min")
    largest = _largest(dataset)
    of = None if reference is None else _largest(reference)
    scores = -standardised(_log(largest), 1, None if of is None else _log(of))
    usual = medians(largest if of is None else of, 1)[:, None]
    weak = np.where(largest < _DEAD * usual, scores, -np.inf)
    weak = np.where(largest == 0, np.inf, np.where(np.isnan(largest), np.nan, weak))
    weak[_peaks(dataset) >= _DEAD * usual] = -np.inf  # alive where prompt summaries do not look, as at first tokens
    if of is not None:  # what is dead there too is no news
        weak = np.where(of < _DEAD * usual, -np.inf, weak)
    numbers, prompts = layer_numbers(dataset), NamedPrompts(dataset)

    def tell(index: Index, expected: float) -> Member:
        typical = float(usual[index[0], 0])
        return Member(detector, "prompt_max", _at(numbers, index), float(largest[index]), typical, expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        layer, neuron = index
        words = (
            f"Neuron {neuron} of L{numbers[layer]} is never above {number(largest[index])} in size at any of the "
            f"user's tokens, nor a peak elsewhere; the median neuron of its layer reaches {number(usual[layer, 0])}."
        )
        series = np.fmax(
            np.abs(dataset["prompt_max"].values[:, layer, neuron]),
            np.abs(dataset["prompt_min"].values[:, layer, neuron]),
        )
        return words, _over_prompts(
            series, prompts, f"largest |activation| at the user's tokens, neuron {neuron} in L{numbers[layer]}"
        )

    among = scores if of is None else -standardised(_log(of), 1)
    return Look(
        detector, "layer × neuron", weak, tell, describe, lambda index: ((detector, index[0]),),
        among=among, of_model=of is None,
    )  # fmt: skip


def always_on_neuron(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """A neuron whose mean activation hardly changes from prompt to prompt."""
    detector = "always-on neuron"
    if "prompt_mean" not in dataset:
        return nothing(detector, "no prompt_mean recorded")
    if dataset.sizes[names.PROMPT] < _LEAST_PROMPTS:
        return nothing(detector, f"fewer than {_LEAST_PROMPTS} prompts")
    reference = holding(reference, "prompt_mean")
    steadiness = _steadiness(dataset)
    of = None if reference is None or reference.sizes[names.PROMPT] < _LEAST_PROMPTS else _steadiness(reference)
    scores = standardised(_log(steadiness), 1, None if of is None else _log(of))
    among = scores if of is None else standardised(_log(of), 1)
    if of is not None:  # what is as steady there is no news
        scores = np.where(steadiness <= 2 * of, np.minimum(scores, 0.0), scores)
    numbers, prompts = layer_numbers(dataset), NamedPrompts(dataset)
    typical = medians(steadiness if of is None else of, 1)

    def tell(index: Index, expected: float) -> Member:
        there = float(typical[index[0]])
        return Member(detector, "prompt_mean", _at(numbers, index), float(steadiness[index]), there, expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        layer, neuron = index
        series = np.asarray(dataset["prompt_mean"].values[:, layer, neuron], np.float64)
        words = (
            f"The mean activation of neuron {neuron} of L{numbers[layer]} is {number(np.nanmean(series))} over the "
            f"user's tokens of every prompt, {number(steadiness[index])} times its standard deviation over "
            f"prompts; the median neuron of its layer: {number(typical[layer])}."
        )
        return words, _over_prompts(series, prompts, f"mean activation of neuron {neuron} in L{numbers[layer]}")

    return Look(
        detector, "layer × neuron", scores, tell, describe, lambda index: ((detector, index[0]),),
        among=among, of_model=of is None,
    )  # fmt: skip


def _at(numbers: NDArray[np.int64], index: tuple[int, ...]) -> dict[str, int]:
    return {"layer": int(numbers[index[0]]), "neuron": index[1]}


def _over_prompts(series: NDArray[np.floating], prompts: NamedPrompts, what: str) -> Evidence:
    most = int(np.nanargmax(np.abs(series))) if np.isfinite(series).any() else 0
    return Evidence(np.asarray(series, np.float64), tuple(prompts.ids), (most,), what)


def _peaks(dataset: xr.Dataset) -> Floats:
    """Largest |activation| of each neuron among the peaks of all tokens, [layer, neuron]; 0 where it is none."""
    found = np.zeros((dataset.sizes[names.LAYER], dataset.sizes[names.NEURON]))
    if not {"peak_neuron", "peak_value"} <= set(dataset.data_vars) or "peak_expert" in dataset:
        return found
    for layer, row in enumerate(found):
        here = dataset[["peak_neuron", "peak_value"]].isel({names.LAYER: layer})
        neurons, values = here["peak_neuron"].values.ravel(), np.abs(here["peak_value"].values).ravel()
        known = (neurons >= 0) & (neurons < len(row)) & np.isfinite(values)
        np.maximum.at(row, neurons[known], values[known])
    return found


def _largest(dataset: xr.Dataset) -> Floats:
    """Largest |a_i| over all prompts, [layer, neuron]; layer by layer."""
    layers, everyone = range(dataset.sizes[names.LAYER]), np.arange(dataset.sizes[names.PROMPT])
    found = np.full((len(layers), dataset.sizes[names.NEURON]), np.nan)
    for name in ("prompt_max", "prompt_min"):
        for layer, values in by_layer(dataset, name, everyone, layers):
            found[layer] = np.fmax(found[layer], np.fmax.reduce(np.abs(values), axis=0))
    return found


def _steadiness(dataset: xr.Dataset) -> Floats:
    """|mean| / standard deviation of the prompt means, [layer, neuron]; layer by layer."""
    layers, everyone = range(dataset.sizes[names.LAYER]), np.arange(dataset.sizes[names.PROMPT])
    found = np.full((len(layers), dataset.sizes[names.NEURON]), np.nan)
    for layer, values in by_layer(dataset, "prompt_mean", everyone, layers):
        with np.errstate(divide="ignore", invalid="ignore"):
            found[layer] = np.abs(values.mean(axis=0, dtype=np.float64)) / values.std(axis=0, ddof=1, dtype=np.float64)
    return found


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log(values), np.nan)
