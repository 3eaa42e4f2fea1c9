"""Reads a [prompt, layer, neuron] array layer by layer: no more is in memory than a layer, or a few small ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import as_slice

if TYPE_CHECKING:
    import xarray as xr

_BYTES = 64 * 2**20  # several layers are read together as long as they fit: chunks may hold several


def by_layer(
    dataset: xr.Dataset, name: str, prompts: NDArray[np.int64], layers: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Values of a quantity of some prompts, layer by layer.

    Parameters
    ----------
    dataset
        A trace.
    name
        A quantity of dimensions prompt, layer, neuron.
    prompts
        Indices of prompts, ascending.
    layers
        Positions on the layer axis, ascending.

    Yields
    ------
    layer, values
        The position, and float32 [prompt, neuron].
    """
    array = dataset[name]
    width = array.sizes[names.NEURON]
    together = max(1, _BYTES // max(1, 4 * len(prompts) * width))
    chosen = as_slice(prompts)
    for start in range(0, len(layers), together):
        some = np.asarray(layers[start : start + together])
        block = array.isel({names.PROMPT: chosen, names.LAYER: as_slice(some)})
        block = block.transpose(names.PROMPT, names.LAYER, names.NEURON)
        if len(some) == 1:  # a large one: nothing here keeps it while it is used
            yield int(some[0]), np.ascontiguousarray(block.values[:, 0], dtype=np.float32)
            continue
        values = block.values
        for place, layer in enumerate(some.tolist()):
            yield layer, np.ascontiguousarray(values[:, place], dtype=np.float32)
