"""What a trace says of its routes before any graph is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names

if TYPE_CHECKING:
    import xarray as xr


def unsplit_layers(dataset: xr.Dataset) -> list[int]:
    """Layers, by number, that have no edge at any of these tokens though something was written: not split by token."""
    if "route_other_size" not in dataset or not all(dataset["route_source"].shape):
        return []
    none = (dataset["route_source"].values < 0).all(axis=(0, 2))
    written = np.nan_to_num(dataset["route_other_size"].values).max(axis=0, initial=0) > 0
    return [int(layer) for layer in dataset[names.LAYER].values[none & written]]
