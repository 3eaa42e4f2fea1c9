"""What neurons and heads are in a forward of the model as it is, and how large their columns are."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import Tensor, nn

from stratoscope.model import sites as s
from stratoscope.model.heads import ATTN_OUT, Heads, heads_of
from stratoscope.model.hooks import ExpertsHooks, SiteHooks
from stratoscope.model.sites import ModelSites, Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import forward, last_logits_only
from stratoscope.recorder.reduce.mixture import Mixture, MixtureAssembler


class Activity:
    """While open, forwards are watched in some layers.

    Parameters
    ----------
    model, sites
        The model, and its proved sites.
    neurons, heads
        Layers whose neurons, and whose heads, are watched.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, neurons: Collection[int], heads: Collection[int]) -> None:
        self._model, self._sites, self._neurons = model, sites, frozenset(neurons)
        self.heads: dict[int, Heads] = {layer: found for layer in heads if (found := heads_of(model, sites, layer))}
        self._mixtures: dict[int, Mixture] = {}
        self._assembler = MixtureAssembler(model, sites, self._mixtures.__setitem__)
        last = sites.layers[-1].block_out
        places = [site for site in sites if site.layer in self._neurons and site.kind in _OF_MLP]
        places += [site for layer in self.heads for site in (self.heads[layer].site, self.heads[layer].output)]
        self._hooks = SiteHooks(model, [*places, last], self._receive)
        modules = self._assembler.modules(model)
        mine = {sites.layers[layer].experts.module for layer in self._neurons if sites.layers[layer].experts}  # type: ignore[union-attr]
        self._experts = ExpertsHooks({path: modules[path] for path in mine}, self._assembler.routed)
        self._seen: dict[tuple[int, str], Tensor] = {}
        self._open = ExitStack()

    def __enter__(self) -> Activity:
        with ExitStack() as stack:
            stack.enter_context(self._experts)
            stack.enter_context(self._hooks)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()
        self._seen.clear()
        self._mixtures.clear()

    def run(self, batch: Batch) -> Tensor:
        """Run a batch; its logits at the last column, [prompt, vocabulary]."""
        self._hooks.forget()
        self._experts.counts.clear()
        output = forward(self._model, batch, **last_logits_only(self._model))
        self._hooks.expect_once()
        self._experts.expect_once()
        logits: Tensor = output.logits[:, -1]
        return logits

    def neurons(self, layer: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """a of all neurons of a layer at some rows, and by what each column is multiplied: [row, neuron], float32.

        Neurons of experts that were not chosen are 0, and so is their factor.
        """
        mixture = self._mixtures.get(layer)
        if mixture is None:
            a = self._seen[layer, s.NEURONS][rows].float()
            return a, torch.ones_like(a)
        experts = mixture.weights.experts
        ids = mixture.experts[rows]
        a = torch.zeros(len(rows), experts.count, experts.width, device=ids.device)
        factor = torch.zeros_like(a)
        where = ids[..., None].expand(-1, -1, experts.width)
        a.scatter_(1, where, mixture.routed[rows].float())
        factor.scatter_(1, where, mixture.router[rows, :, None].expand(-1, -1, experts.width))
        if mixture.shared is None:
            return a.flatten(1), factor.flatten(1)
        shared = mixture.shared[rows].float()
        gate = mixture.gate[rows].expand(-1, shared.shape[1])
        return torch.cat((a.flatten(1), shared), 1), torch.cat((factor.flatten(1), gate), 1)

    def z(self, layer: int, rows: Tensor) -> Tensor:
        """What the heads of a layer give, [row, head × width], float32."""
        return self._seen[layer, self.heads[layer].site.kind][rows].float()

    def mlp_out(self, layer: int, rows: Tensor) -> Tensor:
        """What the MLP of a layer gives before any norm of it, [row, residual]."""
        return self._seen[layer, s.MLP_OUT][rows]

    def attn_out(self, layer: int, rows: Tensor) -> Tensor:
        """What attention's last linear map gives, [row, residual]."""
        return self._seen[layer, ATTN_OUT][rows]

    def last(self, rows: Tensor) -> Tensor:
        """What the last block gives, [row, residual]."""
        return self._seen[len(self._sites.layers) - 1, s.BLOCK_OUT][rows]

    def _receive(self, site: Site, tensor: Tensor) -> None:
        self._seen[site.layer, site.kind] = tensor.clone()  # a model may write into it later
        if site.layer in self._neurons and site.layer in self._assembler and site.kind in _OF_MLP:
            self._assembler.receive(site, tensor)


_OF_MLP = (s.NEURONS, s.SHARED_GATE, s.MLP_OUT)


def column_norms(model: nn.Module, sites: ModelSites, layer: int) -> Tensor:
    """‖W_:,i‖₂ of all neurons of a layer, flat, float32."""
    found, experts = [], sites.layers[layer].experts
    if experts is not None:
        weight, _ = experts.weight(model)
        found += [torch.linalg.vector_norm(one, dim=0, dtype=torch.float32) for one in weight]
    if sites.layers[layer].neurons is not None:
        weight, _ = sites.mlp_weight(model, layer)
        found.append(torch.linalg.vector_norm(weight, dim=0, dtype=torch.float32))
    return torch.cat(found)
