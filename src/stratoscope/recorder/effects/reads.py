"""What set a neuron off: what its gate and its up map read, split by what wrote it and by the token that it came from.

A neuron reads the residual stream x through a norm: g = ⟨w, s·γ⊙x + β⟩ + b. With the norm's s as its token has it, g is
a sum over everything that was added to x: the embedding, each layer's attention and each layer's MLP. Embedding and
MLPs belong to the neuron's own token; what attention wrote came from the tokens that its heads attended to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model import sites as s
from stratoscope.model.gate import ONE, SEPARATE, Gate, split
from stratoscope.model.hooks import ModuleHooks, SiteHooks
from stratoscope.model.sites import ModelSites, Site, unit_roundoff
from stratoscope.recorder.attention.sources import AttentionSources, HeadSources, in_sentences
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import forward, last_logits_only

PARTS = 2  # gate and up
# of Σ|c| of components and of Σ|c| of sources, in float32; in a narrower dtype this many of its roundings
_LIMIT, _LIMIT_OF_SOURCES, _ROUNDINGS = 1e-5, 4e-5, 16


@dataclass(frozen=True, eq=False)
class Reads:
    """What some neurons of a batch read.

    Attributes
    ----------
    neuron_read, read_through
        By source token, [row, target, strongest, read_part] of the batch's rows, padding too, and the component through
        which most of that came, −1 where nothing did.
    read_component
        By component, [prompt, target, strongest, read_part, component].
    value
        The model's own pre-activations, [prompt, target, strongest, read_part].
    error
        Largest |Σ − pre-activation| / Σ|c|.
    failed
        How many pre-activations the sum missed by more than rounding can do: they are NaN.
    """

    neuron_read: np.ndarray
    read_through: np.ndarray
    read_component: np.ndarray
    value: np.ndarray
    error: float
    failed: int


NOT_SPLIT = "What some neurons read was not split"


class NeuronReader:
    """Splits what chosen neurons read, with one plain forward of their batch.

    Parameters
    ----------
    model, sites
        The model and its proved sites.

    Attributes
    ----------
    limits
        Layer to why its attention cannot be split by source token: neurons behind it have components, but no sources.
    """

    def __init__(self, model: nn.Module, sites: ModelSites) -> None:
        self._model, self._sites = model, sites
        # parts whose pre-activation the model showed, those whose sum missed it, and the largest error of the others
        self._known = self._failed = 0
        self._error = 0.0
        self._sources = AttentionSources(model, sites, self._attended)
        self.limits: Mapping[int, str] = self._sources.limits
        self._reading: _Reading | None = None
        kinds = (s.ATTN_WRITE, s.MLP_WRITE)
        wanted = [site for site in sites if site.kind in kinds or site == sites.layers[0].block_in]
        self._hooks = SiteHooks(model, wanted, self._receive)
        paths = {path for layer in range(len(sites.layers)) for path in _watched(sites, layer)}
        modules = {path: model.get_submodule(path) for path in sorted(paths)}
        self._modules = ModuleHooks(modules, before=self._before, after=self._after)

    def of(self, batch: Batch, row: np.ndarray, layer: np.ndarray, neuron: np.ndarray) -> Reads:
        """Split what neurons at tokens read.

        Parameters
        ----------
        batch
            The prompts.
        row, layer, neuron
            Which: the batch's row of the token, the block, and the flat index of the axis `neuron`, int
            [prompt, target, strongest]; a layer of −1 is none.
        """
        reading = self._reading = _Reading(self._model, self._sites, batch, row, layer, neuron, self.limits)
        try:
            with ExitStack() as stack:
                for hooks in (self._hooks, self._modules, self._sources):
                    stack.enter_context(hooks)
                self._sources.begin(batch.mask.bool(), reading.columns)
                forward(self._model, batch, **last_logits_only(self._model))
                self._hooks.expect_once()
        finally:
            self._reading = None
            self._hooks.forget()
            self._sources.forget()
        reads = reading.result(row.shape)
        self._known += int(np.isfinite(reads.value).sum())
        self._failed += reads.failed
        self._error = max(self._error, reads.error)
        return reads

    @property
    def facts(self) -> dict[str, Any]:
        """For the receipt: how many pre-activations were split, and how far their sums were off."""
        return {"pre_activations": self._known, "not_split": self._failed, "largest_error": self._error}

    def go_on(self, facts: Mapping[str, Any]) -> None:
        """Count on from what an interrupted recording had found."""
        self._known, self._failed = facts["pre_activations"], facts["not_split"]
        self._error = facts["largest_error"]

    @property
    def sentences(self) -> list[str]:
        """What could not be split, for the receipt."""
        found = in_sentences(self.limits)
        if self._failed:
            found.append(
                f"{NOT_SPLIT}: {self._failed} of {self._known} pre-activations are not the sum of what their neurons "
                "read, so that their components and sources are missing."
            )
        return found

    def _attended(self, layer: int, heads: HeadSources) -> None:
        if self._reading is not None:
            self._reading.attended(layer, heads)

    def _receive(self, site: Site, tensor: Tensor) -> None:
        if self._reading is not None:
            self._reading.receive(site, tensor)

    def _before(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = (one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.is_floating_point())
        tensor = next(given, None)
        if self._reading is not None and tensor is not None:
            self._reading.entered(name, tensor)

    def _after(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        if self._reading is not None and isinstance(output, Tensor):
            self._reading.left(name, output)


def _watched(sites: ModelSites, layer: int) -> Iterable[str]:
    """Paths of what is looked at besides sites: the MLP's norm, the maps of neurons, what a post-norm is given."""
    maps, block = sites.maps[layer], sites.layers[layer]
    if maps.mlp_norm is not None:
        yield maps.mlp_norm.module
    if maps.attn_post_norm is not None and block.attn_out is not None:
        yield block.attn_out
    for gate in maps.gates:
        yield gate.module
        if gate.up is not None:
            yield gate.up


class _Reading:
    """What some neurons of one batch read, while a forward shows it; N pairs of a neuron and a token in each prompt."""

    def __init__(
        self,
        model: nn.Module,
        sites: ModelSites,
        batch: Batch,
        row: np.ndarray,
        layer: np.ndarray,
        neuron: np.ndarray,
        limits: Mapping[int, str],
    ) -> None:
        self._model, self._sites, self._batch, self._limits = model, sites, batch, limits
        device, prompts = batch.input_ids.device, len(batch.input_ids)
        flat = (torch.from_numpy(np.asarray(one, np.int64)).view(prompts, -1) for one in (row, layer, neuron))
        self._row, self._layer, self._neuron = (one.to(device) for one in flat)
        self._row = self._row.where(self._layer >= 0, batch.mask.argmax(1)[:, None] + self._first_rows(prompts))
        self.columns = self._row % batch.input_ids.shape[1]
        shape = (*self._row.shape, PARTS)
        self._read = torch.zeros(*shape, sites.d_model, device=device)  # w⊙γ, centred where the norm centres
        self._constant = torch.full(shape, torch.nan, device=device)  # ⟨w, β⟩ + b
        self._scale = torch.ones(*shape[:2], device=device)  # s of the norm in front of the MLP
        self._value = torch.full(shape, torch.nan, device=device)  # the model's own
        self._components = torch.zeros(*shape, 2 * len(sites.layers) + 2, device=device)
        self._by_source = torch.zeros(*shape, batch.input_ids.shape[1], device=device)
        self._size = torch.zeros(shape, device=device)  # Σ|c| of sources
        self._most = torch.zeros(2, *self._by_source.shape, device=device)  # of positive and of negative parts
        self._through = torch.full_like(self._most, -1, dtype=torch.int32)
        self._post_scale: dict[int, Tensor] = {}
        self._along: dict[int, Tensor] = {}
        chosen = sorted({*self._layer.flatten().tolist()} - {-1})
        for number in chosen:
            self._vectors(number)
        # path → the blocks that want to know of its calls
        self._last = max(chosen, default=-1)
        self._asked: defaultdict[str, list[int]] = defaultdict(list)
        for number in range(self._last + 1):
            for path in _watched(sites, number):
                if number in chosen or path == sites.layers[number].attn_out:
                    self._asked[path].append(number)

    def _first_rows(self, prompts: int) -> Tensor:
        """Number of the first row of each prompt, [prompt, 1]."""
        starts = torch.arange(prompts, device=self._batch.input_ids.device) * self._batch.input_ids.shape[1]
        return starts[:, None]

    # --- what neurons read along ------------------------------------------------------------------------------------

    def _gates(self, layer: int) -> Iterable[tuple[Gate, Tensor, Tensor]]:
        """The maps of a block with the pairs that are theirs, bool [B, N], and the first of their flat indices."""
        experts = self._sites.layers[layer].experts
        routed = self._sites.layers[layer].expert_neurons
        here = self._layer == layer
        for gate in self._sites.maps[layer].gates:
            of_experts = experts is not None and gate.module == experts.module
            mine = here & (self._neuron < routed if of_experts else self._neuron >= routed)
            yield gate, mine, self._neuron[mine] - (0 if of_experts else routed)

    def _vectors(self, layer: int) -> None:
        """Along which vectors the pairs of a block read the residual stream, and what is added."""
        norm = self._sites.maps[layer].mlp_norm
        gain, shift = (None, None) if norm is None else norm.vectors(self._model)
        for gate, mine, index in self._gates(layer):
            for part, linear in enumerate(gate.maps(self._model)):
                if linear is None:
                    continue
                place = self._place(linear.weight, index)
                weight = linear.weight[place].to(self._read)
                constant = torch.zeros(len(weight)).to(weight)
                if linear.bias is not None:
                    constant += linear.bias[place].to(weight)
                if shift is not None:
                    constant += weight @ shift.to(weight)
                if gain is not None:
                    weight = weight * gain.to(weight)
                if norm is not None and norm.centred:
                    weight = weight - weight.mean(-1, keepdim=True)
                self._read[..., part, :][mine] = weight
                self._constant[..., part][mine] = constant

    @staticmethod
    def _place(weight: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """Where neurons stand in the weight of a map, of experts [expert, neuron, residual]."""
        index = index.to(weight.device)
        return (index,) if weight.ndim == 2 else (index // weight.shape[1], index % weight.shape[1])

    # --- what the forward shows -------------------------------------------------------------------------------------

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Take what is added to the residual stream."""
        if site.layer > self._last:
            return
        part = self._along_reads(tensor)
        if site.kind == s.BLOCK_IN:
            self._own(0, part)
        elif site.kind == s.MLP_WRITE:
            self._own(2 + 2 * site.layer, part.where(self._reads_mlp(site.layer), 0))
        else:
            counts = self._reads_attention(site.layer)
            bias = self._bias(site)
            component = 1 + 2 * site.layer
            self._components[..., component] = (part - bias).where(counts, 0)
            self._components[..., -1] += bias.where(counts, 0)
            self._arrived(component, counts, self._sources_of(site))

    def attended(self, layer: int, heads: HeadSources) -> None:
        """Take what a block's heads took from which token; its post-norm's scale is not yet known."""
        if layer > self._last:
            return
        weight = self._sites.attn_weight(self._model, layer)[0].float()
        self._along[layer] = heads.along_all_heads(self._behind(layer).to(weight.device) @ weight)

    def entered(self, path: str, tensor: Tensor) -> None:
        """A module is called: the norm in front of an MLP, or the maps of experts."""
        for layer in self._asked.get(path, ()):
            maps, experts = self._sites.maps[layer], self._sites.layers[layer].experts
            if maps.mlp_norm is not None and maps.mlp_norm.module == path:
                here = self._layer == layer
                self._scale[here] = maps.mlp_norm.scale(self._rows(tensor))[..., 0][here]
            if experts is not None and experts.module == path:
                self._of_experts(layer, path, self._rows(tensor))

    def left(self, path: str, tensor: Tensor) -> None:
        """A module has given its output: the maps of a dense MLP, or attention in front of a post-norm."""
        for layer in self._asked.get(path, ()):
            maps, block = self._sites.maps[layer], self._sites.layers[layer]
            if maps.attn_post_norm is not None and block.attn_out == path:
                self._post_scale[layer] = maps.attn_post_norm.scale(self._rows(tensor))
                continue
            for gate, mine, index in self._gates(layer):
                if path in (gate.module, gate.up) and (block.experts is None or path != block.experts.module):
                    self._of_dense(gate, path, mine, index, tensor)

    def _of_dense(self, gate: Gate, path: str, mine: Tensor, index: Tensor, output: Tensor) -> None:
        """The pre-activations that a map of a dense MLP gave."""
        output = output.reshape(-1, output.shape[-1])
        if gate.layout in (ONE, SEPARATE):
            places = [(0 if path == gate.module else 1, index)]
        else:
            columns = split(torch.arange(output.shape[1], device=output.device), gate.layout, gate.gate_first)
            places = [(part, column[index.to(output.device)]) for part, column in enumerate(columns)]
        for part, column in places:
            found = output[self._row[mine].to(output.device), column.to(output.device)]
            self._value[..., part][mine] = found.to(self._value)

    def _of_experts(self, layer: int, path: str, rows: Tensor) -> None:
        """The pre-activations of experts: their maps are called inside a function, so these are W x + b anew."""
        for gate, mine, index in self._gates(layer):
            if gate.module != path:
                continue
            for part, linear in enumerate(gate.maps(self._model)):
                if linear is not None:
                    place = self._place(linear.weight, index)
                    found = (linear.weight[place].float() * rows[mine]).sum(-1)
                    found = found if linear.bias is None else found + linear.bias[place].float()
                    self._value[..., part][mine] = found.to(self._value)

    # --- sums -------------------------------------------------------------------------------------------------------

    def _rows(self, tensor: Tensor) -> Tensor:
        """The rows of the pairs, [B, N, width] float32, where the vectors are."""
        rows = tensor.reshape(-1, tensor.shape[-1])[self._row.to(tensor.device)]
        return rows.to(self._read)

    def _along_reads(self, tensor: Tensor) -> Tensor:
        """⟨what is read along, a tensor's rows⟩, [B, N, part]."""
        return (self._read @ self._rows(tensor)[..., None])[..., 0]

    def _reads_mlp(self, layer: int) -> Tensor:
        """Which pairs stand behind the MLP of a block, bool [B, N, 1]."""
        return (self._layer > layer)[..., None]

    def _reads_attention(self, layer: int) -> Tensor:
        """Which pairs stand behind the attention of a block: in the block itself, unless its MLP reads beside it."""
        here = (self._layer == layer) & (not self._sites.layers[layer].parallel)
        return ((self._layer > layer) | here)[..., None]

    def _behind(self, layer: int) -> Tensor:
        """Along which vectors the output projection of a block is read, its post-norm's scale left out."""
        norm, site = self._sites.maps[layer].attn_post_norm, self._sites.layers[layer].attn_write
        found = self._read if site is None or site.scale == 1 else self._read * site.scale
        if norm is None:
            return found
        gain, _ = norm.vectors(self._model)
        found = found if gain is None else found * gain.to(found)
        return found - found.mean(-1, keepdim=True) if norm.centred else found

    def _bias(self, site: Site) -> Tensor:
        """What the bias of the output projection, and that of a post-norm, add along the reads."""
        path, norm = self._sites.layers[site.layer].attn_out, self._sites.maps[site.layer].attn_post_norm
        bias = None if path is None else getattr(self._model.get_submodule(path), "bias", None)
        found = torch.zeros_like(self._value)
        if isinstance(bias, Tensor):
            found = self._behind(site.layer) @ bias.detach().to(self._read)
            found = found * self._post_scale.get(site.layer, torch.ones(1)).to(found)
        shift = None if norm is None else norm.vectors(self._model)[1]
        return found if shift is None else found + self._read @ shift.to(found) * site.scale

    def _sources_of(self, site: Site) -> Tensor | None:
        """What attention brought from each token, [B, N, part, K]; None where it cannot be split."""
        found = self._along.pop(site.layer, None)
        if found is None:
            return None
        found = found.to(self._read)
        scale = self._post_scale.get(site.layer)
        return found if scale is None else found * scale[..., None]

    def _arrived(self, component: int, counts: Tensor, sources: Tensor | None) -> None:
        """Add what a component brought from every token."""
        if sources is None:
            self._by_source.masked_fill_(counts[..., None], torch.nan)
            return
        sources = sources.where(counts[..., None], 0)
        self._by_source += sources
        self._size += sources.abs().sum(-1)
        for sign, signed in enumerate((sources, -sources)):
            more = signed > self._most[sign]
            self._most[sign] = torch.where(more, signed, self._most[sign])
            self._through[sign].masked_fill_(more, component)

    def _own(self, component: int, part: Tensor) -> None:
        """Add what a component wrote at the neuron's own token."""
        self._components[..., component] = part
        own = torch.zeros_like(self._by_source)
        own.scatter_(-1, self.columns[..., None, None].expand(*part.shape, 1), part[..., None])
        self._arrived(component, torch.ones_like(self._layer, dtype=torch.bool)[..., None], own)

    # --- what is found ----------------------------------------------------------------------------------------------

    def result(self, shape: tuple[int, ...]) -> Reads:
        """Everything, for pairs [prompt, target, strongest]; NaN where the sum is not what the model computed."""
        scale = self._scale[..., None, None]
        components, by_source = self._components * scale, self._by_source * scale
        components[..., -1] += self._constant
        size = components.abs().sum(-1)
        error = (components.sum(-1) - self._value).abs() / size
        known = ~self._value.isnan()
        rounding = _ROUNDINGS * unit_roundoff(self._dtype())
        missed = ~(error <= max(_LIMIT, rounding))
        components = components.masked_fill(missed[..., None], torch.nan)
        for layer, block in enumerate(self._sites.layers):  # what a block does not have
            absent = [1 + 2 * layer] * (block.attn_write is None) + [2 + 2 * layer] * (block.mlp_write is None)
            components[..., absent] = torch.nan
        gap = (by_source.sum(-1) + components[..., -1] - self._value).abs()
        unsplit = ~(gap <= max(_LIMIT_OF_SOURCES, rounding) * (self._size * scale[..., 0] + size))
        by_source = by_source.masked_fill(unsplit[..., None], torch.nan)
        through = torch.where(by_source > 0, self._through[0], self._through[1])
        through = through.masked_fill((by_source == 0) | by_source.isnan(), -1)
        found = error[known & ~missed]
        return Reads(
            neuron_read=self._by_row(by_source, shape),
            read_through=self._by_row(through, shape),
            read_component=components.view(*shape, PARTS, -1).cpu().numpy(),
            value=self._value.view(*shape, PARTS).cpu().numpy(),
            error=float(found.max()) if len(found) else 0.0,
            failed=int((known & missed).sum()),
        )

    @staticmethod
    def _by_row(found: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """[B, N, part, K] as [row, target, strongest, part]."""
        rows: np.ndarray = found.permute(0, 3, 1, 2).reshape(-1, *shape[1:], PARTS).cpu().numpy()
        return rows

    def _dtype(self) -> torch.dtype:
        return next(self._model.parameters()).dtype
