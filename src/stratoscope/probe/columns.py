"""Columns of a model's last MLP maps, changed in memory while a block of code runs, and put back whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stratoscope.errors import ModelError
from stratoscope.model.sites import ModelSites


@dataclass(frozen=True)
class Scaled:
    """A neuron's column of the last linear map of its layer, and the factor it is multiplied by."""

    layer: int
    neuron: int
    factor: float


def columns(model: nn.Module, sites: ModelSites, layer: int) -> Tensor:
    """The weight itself, not a copy, as [d_model, neuron].

    Raises
    ------
    ModelError
        The layer has no dense MLP, or its weights are not at hand.
    """
    found = sites.layers[layer]
    if found.neurons is None or found.experts is not None:
        raise ModelError(
            "has no dense MLP whose columns could be changed", where=f"layer {layer}", fix="Leave the model out."
        )
    weight = model.get_submodule(found.neurons.module).weight
    if not isinstance(weight, Tensor) or weight.is_meta or not weight.is_floating_point():
        raise ModelError(
            "its weights wait elsewhere or are packed", where=f"layer {layer}", fix="Load it on one device."
        )
    own: Tensor = weight.detach().T if found.transposed else weight.detach()
    return own


def column_norms(model: nn.Module, sites: ModelSites, layer: int) -> Tensor:
    """‖W_:,i‖₂ of every neuron of a layer, float64."""
    norms: Tensor = torch.linalg.vector_norm(columns(model, sites, layer).double(), dim=0)
    return norms.cpu()


@contextmanager
def scaled_columns(model: nn.Module, sites: ModelSites, changes: Sequence[Scaled]) -> Iterator[None]:
    """While open, some columns are multiplied by a factor; afterwards every bit is as before, whatever happened."""
    weights = {layer: columns(model, sites, layer) for layer in sorted({one.layer for one in changes})}
    before = [weights[one.layer][:, one.neuron].clone() for one in changes]
    try:
        with torch.no_grad():
            for one in changes:
                weights[one.layer][:, one.neuron] *= one.factor
        yield
    finally:
        with torch.no_grad():
            for one, values in zip(reversed(changes), reversed(before), strict=True):
                weights[one.layer][:, one.neuron] = values
