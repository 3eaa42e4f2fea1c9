"""Group `routes`: of each block, what brings the residual stream in front of its MLP, and behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stratoscope import defaults
from stratoscope.model import sites as s
from stratoscope.model.heads import ATTN_OUT
from stratoscope.model.precision import full_precision
from stratoscope.model.sites import Site
from stratoscope.recorder.attention.given import Given
from stratoscope.recorder.attention.reducer import AttentionReducer
from stratoscope.recorder.attention.sources import HeldAttention, factor_between, in_sentences
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.passages import exact, passages_of, split_heads, why_unsplit
from stratoscope.recorder.reduce.scratch import Held, Layers
from stratoscope.recorder.reduce.shared import Shared
from stratoscope.recorder.routes.edges import Edges, edges_into

KEEP = defaults.KEPT_EDGES
_EDGES = ("route_source", "route_head", "route_weight", "route_other", "route_other_size")
_SHARES = ("route_bias", "route_carry", "route_mid", "route_mlp")


class RouteReducer(AttentionReducer):
    """A reducer of every edge of attention, of the prompts' own tokens.

    What attention was given is held until it is known what the block makes of it, x + write; that is one layer's. What
    is kept of a layer is first not divided by ‖x + write‖².

    Parameters
    ----------
    shared
        What the reducers of an observer share.
    pairs
        Names of the pairs of rows whose products are measured: what enters and what attention writes, each with their
        sum; that sum and what the MLP writes, each with what leaves the block.
    """

    kinds = frozenset({s.BLOCK_IN, s.ATTN_WRITE, ATTN_OUT, s.MLP_WRITE, s.BLOCK_OUT})

    def __init__(self, shared: Shared, pairs: Sequence[str]) -> None:
        self._model, self._sites, self._turn = shared.model, shared.sites, shared.turn
        self._scratch, self._products = shared.scratch, shared.products
        self._pairs = dict(zip(("carry", "attention", "middle", "mlp"), pairs, strict=True))
        self._layers = len(shared.sites.layers)
        self._missing = {kind: shared.sites.without(kind) for kind in (s.ATTN_WRITE, s.MLP_WRITE)}
        self._passages = passages_of(self._model, self._sites)
        self._heads = split_heads(self._model, self._sites)
        self.watched = self._held = HeldAttention(self._model, self._sites, self._attended)
        self._limits = why_unsplit(self._model, self._sites) | self._held.limits
        self._valid = torch.empty(0)
        self._rows = 0
        self._into: dict[str, Layers] = {}
        self._in: Held | None = None
        self._waiting: tuple[Given, Tensor | None] | None = None  # attention of the block, and a factor of its output
        self._scale: Tensor | None = None  # of the norm behind it
        self._middle: Tensor | None = None
        self._write: Held | None = None  # the MLP's

    @property
    def limits(self) -> list[str]:
        """Where attention is not split, in sentences."""
        return in_sentences(self._limits)

    def begin(self, batch: Batch) -> None:
        """Expect a batch's forward."""
        self._reset()
        self._rows = batch.rows
        if self._turn.goes_on:
            self._held.stop()
            return
        self._valid = batch.mask.bool()
        self._held.begin(self._valid)
        get = self._scratch.by_layer
        for name in _EDGES[:3]:
            dtype = torch.float32 if name == "route_weight" else torch.int32
            self._into[name] = get(name, self._layers, batch.rows, KEEP, dtype=dtype)
        for name in (*_EDGES[3:], "route_bias"):
            self._into[name] = get(name, self._layers, batch.rows)

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, residual]."""
        if self._turn.goes_on:
            return
        match site.kind:
            case s.BLOCK_IN:
                self._in = Held(site, tensor)
            case kind if kind == ATTN_OUT:
                self._scale = self._passages["attn", site.layer].scale(tensor)
            case s.ATTN_WRITE:
                self._attention(site.layer, tensor)
            case s.MLP_WRITE:
                if self._sites.layers[site.layer].parallel:  # some add attention's write into it
                    tensor = self._scratch.get("route mlp", *tensor.shape, device=tensor.device).copy_(tensor)
                self._write = Held(site, tensor)
            case s.BLOCK_OUT:
                self._leave(site.layer, tensor)

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """What experts write is one write."""

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._reset()
        self._held.forget()

    def result(self) -> Mapping[str, Tensor]:
        """The quantities of the batch, [layer, rows, …]."""
        if self._turn.goes_on:
            return self._nothing()
        self._held.stop()
        found = {name: layers.together(self._scratch.device) for name, layers in self._into.items()}
        for name, (of, whole) in {
            "route_carry": ("carry", 2),
            "route_mid": ("middle", 2),
            "route_mlp": ("mlp", 2),
        }.items():
            products = self._products.result(self._pairs[of])
            found[name] = products[1] / products[whole].square()
        middle = self._products.result(self._pairs["carry"])[2].square()
        written = self._products.result(self._pairs["attention"])[1]
        for layer in self._limits:  # not split
            found["route_other"][layer] = written[layer]
            found["route_other_size"][layer] = written[layer].abs()
        for name in ("route_weight", "route_other", "route_other_size", "route_bias"):
            found[name] = found[name] / middle.view(*middle.shape, *[1] * (found[name].ndim - 2))
        for layer in self._missing[s.MLP_WRITE]:
            found["route_mlp"][layer] = 0.0
        return found

    # --- block by block ---------------------------------------------------------------------------------------------

    def _attended(self, layer: int, given: Given, reaching: Tensor, multiplied: bool) -> None:
        if layer in self._limits:
            return
        self._waiting = given, factor_between(given, reaching) if multiplied else None

    def _attention(self, layer: int, write: Tensor) -> None:
        """What attention writes is known, and so what it makes of the residual stream."""
        assert self._in is not None
        x, write = self._scratch.float32("route in", self._in.get()), self._scratch.float32("route write", write)
        middle = torch.add(x, write, out=self._scratch.get("route middle", *x.shape, device=x.device))
        self._middle = middle
        self._products.add(self._pairs["carry"], layer, x, middle)
        self._products.add(self._pairs["attention"], layer, write, middle)
        waiting, self._waiting = self._waiting, None
        edges = Edges(*(self._into[name][layer] for name in _EDGES))
        if waiting is None:
            self._limits.setdefault(layer, "its attention was not seen where it was when the model was proved")
            edges.clear()
            self._into["route_bias"][layer].zero_()
            return
        given, factor = waiting
        weight, bias = self._sites.attn_weight(self._model, layer)
        passage, scale, self._scale = self._passages["attn", layer], self._scale, None
        along = passage.before(middle)
        heads = self._heads[layer]
        read = exact(along, weight.float()).view(*self._valid.shape, heads.count, heads.width)
        valid = self._valid.to(x.device)
        with full_precision():
            edges_into(edges, given, valid, read if factor is None else read * factor, self._scratch)
        edges.from_first(valid)
        of_bias = self._into["route_bias"][layer].zero_()
        if bias is not None:
            of_bias += exact(along, bias.float()[:, None])[:, 0]
        if scale is not None and passage.norm is not None:
            for values in (edges.weight, edges.other, edges.other_size, of_bias):
                values.mul_(scale.view(-1, *[1] * (values.ndim - 1)))
        shifted = passage.shifted(middle)
        if shifted is not None:
            of_bias += shifted[:, 0]

    def _leave(self, layer: int, out: Tensor) -> None:
        """The block ends."""
        out = self._scratch.float32("route out", out)
        if layer in self._missing[s.ATTN_WRITE]:
            assert self._in is not None
            self._middle = self._scratch.float32("route in", self._in.get())
            self._products.add(self._pairs["carry"], layer, self._middle, self._middle)
            edges = Edges(*(self._into[name][layer] for name in _EDGES))
            edges.clear()
            self._into["route_bias"][layer].zero_()
        assert self._middle is not None
        self._products.add(self._pairs["middle"], layer, self._middle, out)
        if self._write is not None:
            mlp = self._scratch.float32("route write", self._write.get())
            self._products.add(self._pairs["mlp"], layer, mlp, out)
        self._in = self._middle = self._write = self._waiting = self._scale = None

    def _reset(self) -> None:
        self._into = {}
        self._in = self._waiting = self._scale = self._middle = self._write = None

    def _nothing(self) -> dict[str, Tensor]:
        """Of tokens of an answer."""
        none = Edges.room(self._layers * self._rows, KEEP, self._scratch.device)
        shape = (self._layers, self._rows)
        missing = torch.full(shape, torch.nan, device=self._scratch.device)
        edges = {name: values.view(*shape, KEEP) for name, values in zip(_EDGES[:3], none, strict=False)}
        return edges | dict.fromkeys((*_EDGES[3:], *_SHARES), missing)
