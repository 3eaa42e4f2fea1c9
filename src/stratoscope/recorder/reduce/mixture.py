"""A mixture of experts as reductions see it: the neurons of a token are those of its chosen and of its shared experts.

They stand side by side, [token, choice × width + shared width], each with the factor by which its column of W reaches
the output: the router weight, or the sigmoid of the shared expert's gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stratoscope.model import sites as s
from stratoscope.model.experts import Routed, computed_otherwise, order_under
from stratoscope.model.sites import Experts, ModelSites, Site


class MixtureWeights:
    """What stays the same of one block's mixture: its weights, and the norms of their columns.

    Attributes
    ----------
    experts
        The routed experts.
    columns, bias
        ‖W_e[:, i]‖₂, [expert, width] float32, and the biases [expert, residual] or None.
    shared_columns, shared_bias
        The same of the shared expert, [width] and [residual]; None where there is none.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, layer: int) -> None:
        experts = sites.layers[layer].experts
        assert experts is not None
        self.experts: Experts = experts
        self._model, self._sites, self._layer = model, sites, layer
        weight, self.bias = experts.weight(model)
        self.columns = torch.stack([torch.linalg.vector_norm(one, dim=0, dtype=torch.float32) for one in weight])
        self.shared_columns: Tensor | None = None
        self.shared_bias: Tensor | None = None
        if sites.layers[layer].neurons is not None:
            shared, self.shared_bias = sites.mlp_weight(model, layer)
            self.shared_columns = torch.linalg.vector_norm(shared, dim=0, dtype=torch.float32)

    @property
    def routed_width(self) -> int:
        """Neurons that a token has in its chosen experts."""
        return self.experts.choices * self.experts.width

    def write_of(self, expert: Tensor, neuron: Tensor) -> Tensor:
        """W's column of each (expert, neuron), expert −1 being the shared one: [.., residual] float32."""
        weight, _ = self.experts.weight(self._model)  # fetched each time: it may wait on disk
        routed = expert >= 0
        written = weight[expert.clamp(min=0), :, neuron.where(routed, 0)].float()
        if self.shared_columns is None:
            return written
        shared, _ = self._sites.mlp_weight(self._model, self._layer)  # of all, as no device must say which are its
        return torch.where(routed[..., None], written, shared.T[neuron.where(~routed, 0)].float())


@dataclass(frozen=True)
class Mixture:
    """The mixture of one block in one forward.

    Attributes
    ----------
    weights
        What stays the same of it.
    experts, router
        Ids and weights of the chosen experts, [token, choice]; weights float32.
    routed, shared
        Neurons of the chosen experts, [token, choice, width], and of the shared one, [token, width] or None.
    gate
        What the shared expert is multiplied by, [token, 1] float32.
    output
        What the MLP gives, [token, residual].
    """

    weights: MixtureWeights
    experts: Tensor
    router: Tensor
    routed: Tensor
    shared: Tensor | None
    gate: Tensor
    output: Tensor

    def neurons(self, rows: slice) -> Tensor:
        """All neurons of some tokens side by side, float32."""
        routed = self.routed[rows].flatten(1).float()
        return routed if self.shared is None else torch.cat((routed, self.shared[rows].float()), 1)

    def factors(self, rows: slice) -> Tensor:
        """By what the neurons' columns are multiplied on the way to the output, as wide as `neurons`."""
        routed = self.router[rows].repeat_interleave(self.weights.experts.width, 1)
        if self.shared is None:
            return routed
        return torch.cat((routed, self.gate[rows].expand(-1, self.shared.shape[1])), 1)

    def column_norms(self, rows: slice) -> Tensor:
        """‖W_:,i‖₂ of the neurons, as wide as `neurons`."""
        routed = self.weights.columns[self.experts[rows]].flatten(1)
        if self.weights.shared_columns is None:
            return routed
        return torch.cat((routed, self.weights.shared_columns.expand(len(routed), -1)), 1)

    def named(self, rows: slice, places: Tensor) -> tuple[Tensor, Tensor]:
        """Expert (−1: the shared one) and number in it of neurons that stand at `places`, [token, k]."""
        width = self.weights.experts.width
        is_routed = places < self.weights.routed_width
        choice = (places // width).clamp(max=self.weights.experts.choices - 1)
        expert = self.experts[rows].gather(1, choice).where(is_routed, -1)
        return expert, torch.where(is_routed, places % width, places - self.weights.routed_width)

    def unbiased(self, rows: slice) -> Tensor:
        """W a without biases, which are nobody's activity, float32."""
        output = self.output[rows].float()
        if self.weights.shared_bias is not None:
            output = output - self.gate[rows] * self.weights.shared_bias.float()
        if self.weights.bias is None:
            return output
        return output - (self.router[rows, :, None] * self.weights.bias[self.experts[rows]].float()).sum(1)


class MixtureAssembler:
    """Puts the mixtures of a forward together from what the hooks see, and hands each over when its output is there.

    Without sites it has no mixture to put together.
    """

    def __init__(self, model: nn.Module, sites: ModelSites | None, receive: Callable[[int, Mixture], None]) -> None:
        self._receive = receive
        layers = () if sites is None else sites.layers
        self._experts = {number: layer.experts for number, layer in enumerate(layers) if layer.experts}
        self._weights = {} if sites is None else {n: MixtureWeights(model, sites, n) for n in self._experts}
        self._number = {layer.experts.module: number for number, layer in enumerate(layers) if layer.experts}
        self._routed: dict[int, Routed] = {}
        self._seen: dict[tuple[int, str], Tensor] = {}

    def __contains__(self, layer: int) -> bool:
        return layer in self._experts

    def __len__(self) -> int:
        return len(self._experts)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The experts modules, by path."""
        return {path: model.get_submodule(path) for path in self._number}

    def routed(self, path: str, call: Routed) -> None:
        """Take what an experts module was called with."""
        self._routed[self._number[path]] = call

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Take a tensor of a block with a mixture; with the MLP's output the mixture is whole."""
        if site.kind in (s.NEURONS, s.SHARED_GATE):
            self._seen[site.layer, site.kind] = tensor
        elif site.kind == s.MLP_OUT:
            self._receive(site.layer, self._whole(site.layer, tensor))

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._routed.clear()
        self._seen.clear()

    def _whole(self, layer: int, output: Tensor) -> Mixture:
        routed, experts = self._routed.pop(layer, None), self._experts[layer]
        known = experts.implementation, experts.order
        order = None if routed is None else order_under(routed.implementation, *known)
        if routed is None or order is None:
            raise computed_otherwise(layer)
        gate = self._seen.pop((layer, s.SHARED_GATE), None)
        return Mixture(
            weights=self._weights[layer],
            experts=routed.experts,
            router=routed.weights.float(),
            routed=routed.neurons(order),
            shared=self._seen.pop((layer, s.NEURONS), None),
            gate=output.new_ones(len(output), 1).float() if gate is None else torch.sigmoid(gate.float()),
            output=output,
        )
