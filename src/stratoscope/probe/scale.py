"""Columns of down projections scaled in memory, and put back whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from stratoscope.errors import InputError
from stratoscope.model.sites import ModelSites

Scales = Mapping[int, Sequence[tuple[int, float]]]  # layer → (neuron, factor of its column)


def down_projection(model: nn.Module, sites: ModelSites, layer: int) -> Tensor:
    """The weight of a block's dense down projection as [d_model, d_ff], the model's own memory.

    Raises
    ------
    InputError
        The block has none, or it is not at hand.
    """
    block = sites.layers[layer]
    weight = sites.mlp_weight(model, layer)[0] if block.neurons is not None and block.experts is None else None
    if weight is None or weight.device.type == "meta":
        raise InputError(f"layer {layer} has no dense down projection at hand", where="model", fix="Load it whole.")
    return weight


@contextmanager
def scaled_columns(model: nn.Module, sites: ModelSites, scales: Scales) -> Iterator[None]:
    """While open, some columns are multiplied; afterwards they are bit for bit what they were."""
    with ExitStack() as back, torch.no_grad():
        for layer, columns in scales.items():
            weight = down_projection(model, sites, layer)
            chosen = torch.tensor([neuron for neuron, _ in columns], device=weight.device)
            factors = torch.tensor([factor for _, factor in columns], device=weight.device, dtype=torch.float64)
            kept = weight[:, chosen].clone()
            back.callback(_put_back, weight, chosen, kept)
            weight[:, chosen] = (kept.double() * factors).to(weight.dtype)
        yield


def _put_back(weight: Tensor, chosen: Tensor, kept: Tensor) -> None:
    with torch.no_grad():
        weight[:, chosen] = kept
