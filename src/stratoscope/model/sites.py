"""Named places in a model: where a tensor is, what its axes are, and how the places of one block add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stratoscope.model.devices import compute_device, weights_at_hand
from stratoscope.model.experts import computed_otherwise, order_under
from stratoscope.model.gate import BlockMaps
from stratoscope.model.head import Head, Unproved

BLOCK_IN = "block input"
BLOCK_OUT = "block output"
ATTN_WRITE = "attention write"
MIDDLE = "residual between attention and MLP"
MLP_WRITE = "MLP write"
NEURONS = "neurons"  # a: the input of the MLP's last linear map
MLP_OUT = "MLP output"  # W a (+ bias): its output
SHARED_GATE = "gate of the shared expert"

RESIDUAL_AXES = ("token", "residual")
NEURON_AXES = ("token", "neuron")
AXES = {NEURONS: NEURON_AXES, SHARED_GATE: ("token", "gate")}  # of all other kinds RESIDUAL_AXES

SEQUENTIAL_ORDER = "(x + attention) + MLP"
ORDERS = (SEQUENTIAL_ORDER, "(attention + MLP) + x", "(x + MLP) + attention")  # all there are: addition commutes

ONE_WRITE = "x + write"  # a block of a mixer alone, or of an MLP alone

BIT_EQUAL, WITHIN_ROUNDING = "bit-equal", "within rounding"


def unit_roundoff(dtype: torch.dtype) -> float:
    """How much rounding to this dtype may change a number, relative to it: half the distance from 1 to the next."""
    return torch.finfo(dtype).eps / 2


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
    scale
        What the model multiplies the tensor by before it is used (Granite's residual multiplier).
    """

    layer: int
    kind: str
    module: str
    side: Literal["input", "output"]
    key: int | str | None
    axes: tuple[str, str]
    scale: float = 1.0

    def pick(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any = None) -> Tensor:
        """The site's tensor, [rows, width], from one call of its module."""
        tensor = self.tensor(args, kwargs, output)
        rows: Tensor = tensor.reshape(-1, tensor.shape[-1])
        return rows if self.scale == 1 else rows * self.scale

    def tensor(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any = None) -> Tensor:
        """The very tensor that the model computes with, in the model's shape and before it is scaled."""
        if self.side == "output":
            found: Tensor = output if self.key is None else output[self.key]
        else:
            found = kwargs[self.key] if isinstance(self.key, str) else args[self.key or 0]
        return found

    def __str__(self) -> str:
        return f"{self.kind} of layer {self.layer} ({self.side} of {self.module})"


@dataclass(frozen=True)
class Experts:
    """The routed experts of one block: a module whose weights are stacked and whose neurons no inner module passes.

    Attributes
    ----------
    module
        Its path; it is called with the rows, the ids and the weights of the experts they are routed to.
    count, width, choices
        Experts, neurons of each, and how many of them a token is routed to.
    transposed
        Whether `down_proj` is stored [expert, neuron, residual] (GPT-OSS) rather than [expert, residual, neuron].
    order
        The order of the rows in which the module computes, one of `model.experts.ROW_ORDERS`.
    implementation
        Which of transformers' functions computed it when that order was found.
    """

    module: str
    count: int
    width: int
    choices: int
    transposed: bool
    order: str
    implementation: str

    def weight(self, model: nn.Module) -> tuple[Tensor, Tensor | None]:
        """W of every expert, [expert, d_model, neuron], and its biases [expert, d_model] or None."""
        module: Any = model.get_submodule(self.module)
        with weights_at_hand(module):
            weight, bias = module.down_proj.detach(), getattr(module, "down_proj_bias", None)
        return (weight.transpose(1, 2) if self.transposed else weight), _detached(bias)

    def order_under(self, implementation: str, layer: int) -> str:
        """The order of rows under an implementation; CaptureError, naming the layer, where it is not known."""
        order = order_under(implementation, self.implementation, self.order)
        if order is None:
            raise computed_otherwise(layer)
        return order


@dataclass(frozen=True)
class LayerSites:
    """The sites of one block and how it adds its writes to the residual stream.

    Attributes
    ----------
    block_in, block_out
        The residual stream before and after the block.
    attn_write
        What attention, or another token mixer, adds to the residual; None in a block without one.
    mlp_write, mlp_out
        What reaches the residual of the MLP, and what its last linear map (or its mixture of experts) gives; None in a
        block without MLP.
    neurons
        Input of the last linear map of a dense MLP, or of a mixture's shared expert; None where there is none.
    middle
        x + attention, where the MLP's side of a sequential block reads it; None in a parallel block, whose MLP reads x.
    experts, shared_gate
        The routed experts of a mixture, and what its shared expert is gated by (before the sigmoid), if there is one.
    mixer
        Class of the module that gives the attention write, "" where there is none.
    attn_out
        Path of the mixer's last linear map (`o_proj`); None where there is no mixer.
    order
        The order of the two additions.
    post_norm
        Whether a norm stands between `mlp_out` and `mlp_write`.
    transposed, attn_transposed
        Whether the dense last weight, and that of the mixer's last linear map, is stored [in, out] (GPT-2's Conv1D)
        rather than [out, in]; None where the mixer's is no W z + bias.
    replay
        How well adding the writes gave the block's output when the sites were found.
    """

    block_in: Site
    block_out: Site
    attn_write: Site | None
    mlp_write: Site | None
    neurons: Site | None
    mlp_out: Site | None
    middle: Site | None
    experts: Experts | None
    shared_gate: Site | None
    mixer: str
    attn_out: str | None
    order: str
    post_norm: bool
    transposed: bool
    replay: str
    attn_transposed: bool | None = None

    @property
    def expert_neurons(self) -> int:
        """Neurons of all routed experts, the first on the axis `neuron`; 0 without experts."""
        return 0 if self.experts is None else self.experts.count * self.experts.width

    def __iter__(self) -> Iterator[Site]:
        """Its sites."""
        values = (getattr(self, field.name) for field in fields(self))
        return (value for value in values if isinstance(value, Site))

    @property
    def parallel(self) -> bool:
        """Whether the MLP reads the block's input rather than x + attention."""
        return self.middle is None and self.mlp_write is not None


@dataclass(frozen=True)
class ModelSites:
    """All sites of a model, block by block, and its widths.

    `d_ff` is the longest list of neurons of a block: of a dense MLP its width, of a mixture those of all experts one
    after the other, then those of the shared expert. It is 0 in a model without MLPs. `head` and, block by block,
    `maps` are what is linear in the model once its norms' scales are taken as given.
    """

    blocks: str
    layers: tuple[LayerSites, ...]
    d_model: int
    widths: tuple[int, ...]
    head: Head | Unproved
    maps: tuple[BlockMaps, ...]

    def __iter__(self) -> Iterator[Site]:
        """Every site, block by block."""
        return (site for layer in self.layers for site in layer)

    @property
    def d_ff(self) -> int:
        """Neurons of the widest block."""
        return max(self.widths, default=0)

    @property
    def choices(self) -> int:
        """Most experts that a token is routed to in one block; 0 without experts."""
        return max((layer.experts.choices for layer in self.layers if layer.experts), default=0)

    @property
    def fewest_neurons(self) -> int:
        """Fewest neurons that are active at a token in a block that has any; 0 without any."""
        experts = (layer.experts for layer in self.layers)
        active = (
            width - (e.count - e.choices) * e.width if e else width
            for e, width in zip(experts, self.widths, strict=True)
        )
        return min((neurons for neurons in active if neurons), default=0)

    def mlps(self) -> list[dict[str, Any]]:
        """What the `neuron` axis of each block is, as plain JSON types: runs of equal blocks."""
        runs: list[dict[str, Any]] = []
        for number, (layer, width) in enumerate(zip(self.layers, self.widths, strict=True)):
            count, each = (layer.experts.count, layer.experts.width) if layer.experts else (0, 0)
            shape = {"experts": count, "expert_width": each, "dense_width": width - count * each}
            if runs and {**runs[-1], "layers": []} == {"layers": [], **shape}:
                runs[-1]["layers"].append(number)
            else:
                runs.append({"layers": [number], **shape})
        return runs

    def without(self, kind: str) -> list[int]:
        """The blocks that have no site of that kind."""
        return [number for number, layer in enumerate(self.layers) if all(site.kind != kind for site in layer)]

    def mlp_weight(self, model: nn.Module, layer: int) -> tuple[Tensor, Tensor | None]:
        """Weight of a block's last dense MLP map as [d_model, d_ff] (column i is neuron i's), and its bias or None."""
        sites = self.layers[layer]
        assert sites.neurons is not None
        module = model.get_submodule(sites.neurons.module)
        with weights_at_hand(module):
            weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        return (weight.detach().T if sites.transposed else weight.detach()), _detached(bias)

    def column(self, model: nn.Module, layer: int, neuron: int) -> Tensor:
        """What a neuron writes per unit of activation, before scales and norms: [d_model], float32."""
        experts, routed = self.layers[layer].experts, self.layers[layer].expert_neurons
        if experts is not None and neuron < routed:
            weight, _ = experts.weight(model)
            return weight[neuron // experts.width, :, neuron % experts.width].float()
        weight, _ = self.mlp_weight(model, layer)
        return weight[:, neuron - routed].float()

    def attn_weight(self, model: nn.Module, layer: int) -> tuple[Tensor, Tensor | None]:
        """Weight of a mixer's last linear map as [d_model, width], and its bias or None."""
        sites = self.layers[layer]
        assert sites.attn_out is not None
        module = model.get_submodule(sites.attn_out)
        with weights_at_hand(module):
            weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        return (weight.detach().T if sites.attn_transposed else weight.detach()), _detached(bias)

    def devices(self, model: nn.Module) -> list[torch.device]:
        """Where each block computes: there all of its sites are reduced."""
        found = [compute_device(model.get_submodule(_last_module(layer))) for layer in self.layers]
        assert None not in found
        return found  # type: ignore[return-value]


def _last_module(layer: LayerSites) -> str:
    """Path of a module with weights, near the end of a block."""
    if layer.experts is not None:
        return layer.experts.module
    last = layer.neurons.module if layer.neurons else layer.attn_out
    assert last is not None
    return last


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
