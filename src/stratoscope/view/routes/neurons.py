"""The strongest neurons of the MLPs that write into the nodes of routes, by their effect where that is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import Ints
from stratoscope.trace.format.token_texts import token_texts
from stratoscope.trace.prompts import Prompts
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.routes import RouteNeurons
from stratoscope.words import readable

if TYPE_CHECKING:
    import xarray as xr

LISTED = 5  # neurons of a node
_PROMOTED = 3  # tokens of a neuron
_EFFECTS, _PEAKS = ("effect_neuron", "neuron_effect"), ("peak_neuron", "peak_write")  # which, and how strong
_STRONGEST = ("strongest_position", "strongest_layer", "strongest_neuron", "write_token")


def neurons_of(
    dataset: xr.Dataset, prompt: int, positions: Ints, depths: Ints, *, towards: bool
) -> RouteNeurons | None:
    """The strongest neurons that write into nodes; None where none are recorded.

    Parameters
    ----------
    dataset
        A trace; of one that has targets, with the one that is meant in front.
    prompt
        Index of the prompt.
    positions, depths
        Of the nodes; what writes into a node at depth d is the MLP of layer d − 1.
    towards
        Whether edges are weighed by what they bring to a target: then neurons are ranked by that, too, if it is
        recorded, else by what they write.
    """
    ways = [pair for pair in (_EFFECTS, _PEAKS)[:: 1 if towards else -1] if {*pair} <= set(dataset.data_vars)]
    if not ways:
        return None
    by_effect = ways[0] == _EFFECTS
    node = np.flatnonzero(depths > 0)
    tokens, row = np.unique(positions[node], return_inverse=True)
    here = dataset.isel({names.TOKEN: Prompts(dataset).tokens(prompt).start + tokens})
    layers = depths[node] - 1

    def of(name: str) -> NDArray[Any]:
        """The strongest of each node, [node, rank]."""
        array = here[name]
        array = array.isel({names.TARGET: 0}) if names.TARGET in array.dims else array
        values: NDArray[Any] = array.transpose(names.TOKEN, names.LAYER, ...).values[row, layers, :LISTED]
        return values

    neuron, size = map(of, ways[0])
    there = (neuron >= 0) & np.isfinite(size)
    nothing = np.full(neuron.shape, np.nan)
    value = of("peak_value") if not by_effect and "peak_value" in dataset else nothing
    expert = of("peak_expert") if not by_effect and "peak_expert" in dataset else np.full(neuron.shape, -1)
    which, _ = np.nonzero(there)
    of_nodes = node[which]
    promotes = _promoted(dataset, prompt)
    written = zip(positions[of_nodes].tolist(), (depths[of_nodes] - 1).tolist(), neuron[there].tolist(), strict=True)
    return RouteNeurons(
        size_label="effect" if by_effect else "write norm",
        node=indices(of_nodes),
        neuron=indices(neuron[there]),
        expert=indices(expert[there]),
        value=value[there].astype("<f4"),
        size=size[there].astype("<f4"),
        promotes=tuple(promotes.get(one, "") for one in written),
    )


def _promoted(dataset: xr.Dataset, prompt: int) -> dict[tuple[int, int, int], str]:
    """Which tokens a neuron promotes most, of those of which it is recorded: (position, layer, neuron) → tokens."""
    if not set(_STRONGEST) <= set(dataset.data_vars):
        return {}
    *places, written = (dataset[name].isel({names.PROMPT: prompt, names.TARGET: 0}).values for name in _STRONGEST)
    texts = token_texts(dataset.attrs)
    found = {}
    for place, ids in zip(zip(*(one.tolist() for one in places), strict=True), written.tolist(), strict=True):
        known = [readable(texts[one]) for one in ids[:_PROMOTED] if one in texts]
        if known:
            found[place] = " ".join(known)
    return found
