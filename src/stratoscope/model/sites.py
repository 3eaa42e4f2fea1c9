"""Named places in a model: where a tensor is, what its axes are, and how the places of one block add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stratoscope.model.devices import compute_device, weights_at_hand

BLOCK_IN = "block input"
BLOCK_OUT = "block output"
ATTN_WRITE = "attention write"
MIDDLE = "residual between attention and MLP"
MLP_WRITE = "MLP write"
NEURONS = "neurons"  # a: the input of the MLP's last linear map
MLP_OUT = "MLP output"  # W a (+ bias): its output

RESIDUAL_AXES = ("token", "residual")
NEURON_AXES = ("token", "neuron")

SEQUENTIAL_ORDER = "(x + attention) + MLP"
ORDERS = (SEQUENTIAL_ORDER, "(attention + MLP) + x", "(x + MLP) + attention")  # all there are: addition commutes

BIT_EQUAL, WITHIN_ROUNDING = "bit-equal", "within rounding"


@dataclass(frozen=True)
class Site:
    """A place in a model.

    Attributes
    ----------
    layer, kind
        Block number, and one of the kinds of this module.
    module
        Path of the module whose call passes the tensor.
    side
        Whether the tensor is an input or the output of that module.
    key
        Where it stands there: a position, a keyword, or None where the output is the tensor itself.
    axes
        Its axes once all leading ones are flattened: tokens are (batch, position) in row-major order.
    """

    layer: int
    kind: str
    module: str
    side: Literal["input", "output"]
    key: int | str | None
    axes: tuple[str, str]

    def pick(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any = None) -> Tensor:
        """The site's tensor, [rows, width], from one call of its module."""
        if self.side == "output":
            tensor = output if self.key is None else output[self.key]
        else:
            tensor = kwargs[self.key] if isinstance(self.key, str) else args[self.key or 0]
        return tensor.reshape(-1, tensor.shape[-1])  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"{self.kind} of layer {self.layer} ({self.side} of {self.module})"


@dataclass(frozen=True)
class LayerSites:
    """The sites of one block and how it adds its writes to the residual stream.

    Attributes
    ----------
    block_in, block_out, attn_write, mlp_write, neurons, mlp_out
        The sites; `mlp_write` is what reaches the residual, `mlp_out` what the last linear map of the MLP gives.
    middle
        x + attention, where the MLP's side of a sequential block reads it; None in a parallel block, whose MLP reads x.
    attn_out
        Path of attention's last linear map (`o_proj`).
    order
        The order of the two additions.
    post_norm
        Whether a norm stands between `mlp_out` and `mlp_write`.
    transposed
        Whether the MLP's last weight is stored [in, out] (GPT-2's Conv1D) rather than [out, in].
    replay
        How well adding the writes gave the block's output when the sites were found.
    """

    block_in: Site
    block_out: Site
    attn_write: Site
    mlp_write: Site
    neurons: Site
    mlp_out: Site
    middle: Site | None
    attn_out: str
    order: str
    post_norm: bool
    transposed: bool
    replay: str

    def __iter__(self) -> Iterator[Site]:
        """Its sites."""
        values = (getattr(self, field.name) for field in fields(self))
        return (value for value in values if isinstance(value, Site))

    @property
    def parallel(self) -> bool:
        """Whether the MLP reads the block's input rather than x + attention."""
        return self.middle is None

    @property
    def mlp_last(self) -> str:
        """Path of the MLP's last linear map (`down_proj`)."""
        return self.neurons.module


@dataclass(frozen=True)
class ModelSites:
    """All sites of a model, block by block, and its widths."""

    blocks: str
    layers: tuple[LayerSites, ...]
    d_model: int
    d_ff: int

    def __iter__(self) -> Iterator[Site]:
        """Every site, block by block."""
        return (site for layer in self.layers for site in layer)

    def mlp_weight(self, model: nn.Module, layer: int) -> tuple[Tensor, Tensor | None]:
        """Weight of a block's last MLP map as [d_model, d_ff] (column i belongs to neuron i), and its bias or None."""
        sites = self.layers[layer]
        module = model.get_submodule(sites.mlp_last)
        with weights_at_hand(module):
            weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        return (weight.detach().T if sites.transposed else weight.detach()), _detached(bias)

    def devices(self, model: nn.Module) -> list[torch.device]:
        """Where each block's MLP computes: there all of its sites are reduced."""
        found = [compute_device(model.get_submodule(layer.mlp_last)) for layer in self.layers]
        return [device for device in found if device is not None]


def _detached(tensor: Any) -> Tensor | None:
    return tensor.detach() if isinstance(tensor, Tensor) else None


def replay(x: Tensor, attention: Tensor, mlp: Tensor, order: str) -> Tensor:
    """The block's output from its input and its two writes, in the model's own dtype and order of additions."""
    first, second, third = {
        SEQUENTIAL_ORDER: (x, attention, mlp),
        ORDERS[1]: (attention, mlp, x),
        ORDERS[2]: (x, mlp, attention),
    }[order]
    return torch.add(torch.add(first, second), third)
