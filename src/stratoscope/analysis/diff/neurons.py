"""Neuron by neuron, where they are the same: how their mean activation differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.diff.ancestry import LEAST_FOUND, Ancestry, share_found
from stratoscope.analysis.diff.cells import SharedLayers
from stratoscope.analysis.diff.floor import Noise
from stratoscope.analysis.diff.weight_columns import ColumnNorms, compare_columns
from stratoscope.analysis.statistics.known import columnwise
from stratoscope.analysis.values.layers import by_layer
from stratoscope.progress import Progress
from stratoscope.trace.arrays import Floats, Ints

if TYPE_CHECKING:
    import xarray as xr

MEAN = "prompt_mean"


@dataclass(frozen=True)
class NeuronDifferences:
    """Every neuron of the compared layers, [layer, neuron]; NaN in layers where they are not the same neurons.

    Attributes
    ----------
    difference
        Mean over prompts of B − A.
    largest
        Largest |B − A| over prompts.
    times
        Largest over prompts of |B − A| / max(floor, rounding); NaN without a floor.
    ratio
        ⟨a, b⟩ / ⟨a, a⟩ over prompts: the factor by which the neuron is multiplied, if it is.
    columns
        Norms of the neurons' columns of the last linear map, as the recorded peaks show them.
    found
        Share of neurons found again in the other model, [layer]; NaN where it was not measured.
    same
        Whether a layer's neurons are the same in both, [layer].
    """

    difference: Floats
    largest: Floats
    times: Floats
    ratio: Floats
    columns: ColumnNorms
    found: Floats
    same: NDArray[np.bool_]


def compare_neurons(
    a: xr.Dataset,
    b: xr.Dataset,
    prompts: tuple[Ints, Ints],
    tokens: tuple[Ints, Ints],
    rows: SharedLayers,
    known: Ancestry,
    noise: Noise,
    seed: int,
    progress: Progress,
) -> NeuronDifferences:
    """Compare the mean activation of every neuron over prompts, layer by layer.

    Parameters
    ----------
    prompts
        Indices of the same prompts in A and in B.
    tokens
        Indices of tokens that have seen the same tokens, in A and in B.
    rows
        The layers.
    """
    layers, width = len(rows.numbers), a.sizes[names.NEURON]
    values = {name: np.full((layers, width), np.nan) for name in ("difference", "largest", "times", "ratio")}
    found, same, moved = np.full(layers, np.nan), np.zeros(layers, bool), np.full(layers, np.nan)
    floor = noise.floor(MEAN, rows.a, rows.b)
    both = zip(_in_order(a, prompts[0], rows.a), _in_order(b, prompts[1], rows.b), strict=True)
    for place, (one, other) in enumerate(both):
        progress("comparing neurons", place, layers)
        if known.same_weights:
            same[place] = True
        else:
            found[place] = share_found(one, other, seed)
            same[place] = found[place] >= LEAST_FOUND
        if same[place]:
            delta = other - one
            values["difference"][place] = columnwise(np.nanmean, delta)
            values["largest"][place] = columnwise(np.nanmax, np.abs(delta))
            moved[place] = _share(values["largest"][place], one)
            with np.errstate(divide="ignore", invalid="ignore"):
                values["ratio"][place] = np.nansum(one * other, axis=0) / np.nansum(one * one, axis=0)
            if floor is not None:
                values["times"][place] = columnwise(np.nanmax, noise.times(delta, one, other, floor[place]))
    progress("comparing neurons", layers, layers)
    norms = compare_columns(a, b, tokens, (rows.a, rows.b), same, moved, same_dtype=noise.same_dtype)
    return NeuronDifferences(**values, columns=norms, found=found, same=same)


def _in_order(dataset: xr.Dataset, prompts: Ints, layers: Ints) -> Iterator[Floats]:
    """Mean activations [prompt, neuron] of each layer, prompts in the given order."""
    order = np.argsort(prompts, kind="stable")
    back = np.argsort(order, kind="stable")
    for _, values in by_layer(dataset, MEAN, prompts[order], layers.tolist()):
        yield values[back].astype(np.float64)


def _share(largest: Floats, of: Floats) -> float:
    """The largest difference as a share of the largest activation; NaN where there is none."""
    known, size = largest[np.isfinite(largest)], np.abs(of[np.isfinite(of)]).max(initial=0.0)
    return float(known.max() / size) if known.size and size > 0 else np.nan
