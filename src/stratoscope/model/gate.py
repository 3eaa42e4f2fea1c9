"""In front of an MLP's neurons: the norm that it reads through, and the linear maps whose outputs make a neuron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from stratoscope.model.devices import weights_at_hand
from stratoscope.model.head import Norm

ONE, SEPARATE, HALVES, INTERLEAVED = "one map", "separate", "halves", "interleaved"


class LinearMap(NamedTuple):
    """A linear map: its weight [(expert,) neuron, residual], and its bias [(expert,) neuron] or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Gate:
    """The maps of an MLP: a = act(g)·(u + offset), or a = act(g) where there is one map.

    Attributes
    ----------
    module, weight, bias
        Path of the module that holds the map of g (of g and u, if fused), and the names of its parameters there.
    layout, gate_first
        How g and u lie in a fused map, and whether g comes first there.
    activation
        What gives act(g): the class of a module, or a function.
    up
        Path of the module that holds the map of u, if that is another one.
    transposed
        Whether weights are stored [residual, neuron].
    offset, clamp
        What is added to u, and how large u may become before that (None: as it is).
    """

    module: str
    layout: str
    activation: str
    up: str | None = None
    weight: str = "weight"
    bias: str = "bias"
    gate_first: bool = True
    transposed: bool = False
    offset: float = 0.0
    clamp: float | None = None

    def maps(self, model: nn.Module) -> tuple[LinearMap, LinearMap | None]:
        """The maps of g and of u (None where there is one map); those of all experts, if these are experts."""
        stored = self.stored(model, self.module)
        if self.layout in (ONE, SEPARATE):
            return stored, None if self.up is None else self.stored(model, self.up)
        weights = [part.mT for part in split(stored.weight.mT, self.layout, self.gate_first)]
        biases = (None, None) if stored.bias is None else split(stored.bias, self.layout, self.gate_first)
        return LinearMap(weights[0], biases[0]), LinearMap(weights[1], biases[1])

    def stored(self, model: nn.Module, path: str) -> LinearMap:
        """The map that a module holds, fused ones whole."""
        module: Any = model.get_submodule(path)
        with weights_at_hand(module):
            weight, bias = getattr(module, self.weight).detach(), getattr(module, self.bias, None)
        return LinearMap(weight.mT if self.transposed else weight, None if bias is None else bias.detach())

    def __str__(self) -> str:
        up = "u" if self.clamp is None else f"clamp(u, ±{self.clamp:g})"
        up = f"({up} + {self.offset:g})" if self.offset else up
        fused = "" if self.layout == SEPARATE else f" ({self.layout}{'' if self.gate_first else ', u first'})"
        return f"{self.activation}(g){'' if self.layout == ONE else f'·{up}{fused}'}"


def split(fused: Tensor, layout: str, gate_first: bool) -> tuple[Tensor, Tensor]:
    """g and u along the last axis of a fused map's output."""
    first, second = fused.chunk(2, -1) if layout == HALVES else (fused[..., ::2], fused[..., 1::2])
    return (first, second) if gate_first else (second, first)


@dataclass(frozen=True)
class BlockMaps:
    """What of a block is linear once its norms' s_t are taken as given.

    Attributes
    ----------
    mlp_norm
        The norm that the MLP reads the residual through; None where it reads it as it is, or that is not proved.
    attn_post_norm, mlp_post_norm
        The norms of what attention and the MLP write.
    gates
        The maps of a dense MLP or of a mixture's shared expert, and those of its routed experts.
    limits
        What could not be proved.
    """

    mlp_norm: Norm | None = None
    attn_post_norm: Norm | None = None
    mlp_post_norm: Norm | None = None
    gates: tuple[Gate, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def norms(self) -> list[Norm]:
        """Its norms."""
        return [norm for norm in (self.mlp_norm, self.attn_post_norm, self.mlp_post_norm) if norm is not None]
