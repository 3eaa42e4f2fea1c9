"""Where a listed neuron is strongest, in the words around it: from every activation, or from the recorded peaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.values.around import words_around
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.classes.units import Units

SHOWN = 2  # places for each neuron and class
_TOKENS = 2**15  # read at a time


@dataclass(frozen=True)
class StrongToken:
    """A token at which a neuron is strong.

    Attributes
    ----------
    prompt, position, value
        Index of the prompt, place in it, and a_i there.
    before, token, after
        The token's text, and the texts around it.
    """

    prompt: int
    position: int
    value: float
    before: str
    token: str
    after: str


def source_of_context(dataset: xr.Dataset) -> str:
    """Which quantity says at which token a neuron is active: "neurons", "peak_value", or "" for none."""
    if "neurons" in dataset:
        return "neurons"
    dense = "peak_expert" not in dataset  # of a mixture the peaks name an expert and its own neuron
    return "peak_value" if dense and {"peak_neuron", "peak_value"} <= set(dataset.data_vars) else ""


def contexts(
    dataset: xr.Dataset, units: Units, counted: NDArray[np.bool_], row: int, neuron: int
) -> tuple[list[StrongToken], list[StrongToken]]:
    """Tokens of class a and of class b at which the neuron is strongest, by |a_i|; none where nothing says so.

    Parameters
    ----------
    row, neuron
        Position on the layer axis, and on the neuron axis.
    """
    source = source_of_context(dataset)
    if not source:
        return [], []
    prompts = Prompts(dataset)
    of_token = prompts.of_token
    side = np.zeros(len(prompts), np.int8)
    side[units.prompts[units.in_a]], side[units.prompts[~units.in_a]] = 1, 2
    tokens = np.flatnonzero(counted & (side[of_token] > 0))
    values = _activations(dataset, source, tokens, row, neuron)
    found = []
    for which in (1, 2):
        here = np.flatnonzero((side[of_token[tokens]] == which) & np.isfinite(values) & (values != 0))
        best = here[np.argsort(-np.abs(values[here]), kind="stable")]
        best = best[_first_of_each_prompt(of_token[tokens[best]])][:SHOWN]
        found.append([_place(prompts, int(tokens[one]), float(values[one])) for one in best])
    return found[0], found[1]


def _activations(
    dataset: xr.Dataset, source: str, tokens: NDArray[np.int64], row: int, neuron: int
) -> NDArray[np.float64]:
    """a_i at each token; NaN where it is not known."""
    found = np.full(len(tokens), np.nan)
    for start in range(0, len(tokens), _TOKENS):
        some = tokens[start : start + _TOKENS]
        run = slice(int(some[0]), int(some[-1]) + 1)
        inside = some - some[0]
        part = dataset.isel({names.TOKEN: run, names.LAYER: row})
        if source == "neurons":
            found[start : start + len(some)] = part["neurons"].isel({names.NEURON: neuron}).values[inside]
            continue
        matches = part["peak_neuron"].values[inside] == neuron
        values = np.where(matches, part["peak_value"].values[inside], 0.0).sum(axis=1)
        found[start : start + len(some)] = np.where(matches.any(axis=1), values, np.nan)
    return found


def _first_of_each_prompt(prompts: NDArray[np.int32]) -> NDArray[np.int64]:
    _, first = np.unique(prompts, return_index=True)
    return np.sort(first)


def _place(prompts: Prompts, token: int, value: float) -> StrongToken:
    prompt = int(prompts.of_token[token])
    return StrongToken(prompt, int(prompts.position[token]), value, *words_around(prompts, token))
