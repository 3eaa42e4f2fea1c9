"""Group `logits`: what every part of the model adds to the logits of targets, from products with fixed vectors.

Everything a block writes is multiplied with the targets' directions while it is there; nothing as wide as the residual
stream is kept. Only the scale of the final norm is known late: what was found is multiplied by it when the last block
ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.heads import ATTN_OUT, HEADS
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.passages import (
    Fixed,
    exact,
    has_bias,
    passages_of,
    split_heads,
)
from stratoscope.recorder.reduce.scratch import bytes_at_once
from stratoscope.recorder.reduce.shared import Shared

_PARTS = {"attn": s.ATTN_WRITE, "mlp": s.MLP_WRITE}
_OF_KIND = {kind: f"{part}_logit" for part, kind in _PARTS.items()}


class ContributionReducer:
    """Contributions to the logits of the targets of each batch.

    Block rows are of every token. What is large, heads and neurons, is of the last column of the first forward, where
    the answers begin, unless the targets are explained at every position.
    """

    kinds = frozenset({s.BLOCK_IN, s.BLOCK_OUT, s.ATTN_WRITE, s.MLP_WRITE, s.NEURONS, s.MLP_OUT, HEADS, ATTN_OUT})

    def __init__(self, shared: Shared) -> None:
        assert shared.targets is not None
        model, sites = self._model, self._sites = shared.model, shared.sites
        self._targets, self._scratch, self._k = shared.targets, shared.scratch, shared.top_k
        self._last = len(sites.layers) - 1
        self._heads = split_heads(model, sites)
        self._passages = passages_of(model, sites)
        self._written = [name for kind, name in _OF_KIND.items() if len(sites.without(kind)) <= self._last]
        self._shapes = self._shapes_of_chosen()
        self._fixed = Fixed(always=not shared.targets.need_a_forward)
        self._waiting: dict[int, dict[str, Tensor]] = {}  # of a block, until the scale of its MLP's norm is known
        self._scale: Tensor | None = None
        self._prompts = self._length = 0
        self._chosen: slice | None = None  # rows whose heads and neurons are explained

    def _shapes_of_chosen(self) -> dict[str, tuple[int, ...]]:
        """What is explained at chosen rows alone, of this model, and its shape behind layer and row."""
        sites, targets = self._sites, len(self._targets)
        found: dict[str, tuple[int, ...]] = {}
        if self._heads:
            found["head_logit"] = (max(heads.count for heads in self._heads.values()), targets)
        if any(part == "mlp" for part, _ in self._passages):
            found |= dict.fromkeys(("neuron_logit", "logit_neuron"), (targets, 2 * self._k))
            found["other_neurons_logit"] = (targets,)
        for part in _PARTS:
            own = [layer for one, layer in self._passages if one == part]
            if any(has_bias(self._model, sites, part, layer) for layer in own):
                found[f"{part}_bias_logit"] = (targets,)
        return found

    # --- a batch ----------------------------------------------------------------------------------------------------

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        self._fixed.begin()
        self._prompts, self._length = batch.input_ids.shape
        self._chosen = self._targets.explained(self._length)
        self._waiting, self._scale = {}, None

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, width]."""
        layer = site.layer
        if site.kind in _OF_KIND:
            self._keep(_OF_KIND[site.kind], layer, self._along(tensor))
        elif site.kind == s.BLOCK_IN and layer == 0:
            self._keep("embed_logit", 0, self._along(tensor))
        elif site.kind == s.BLOCK_OUT and layer == self._last:
            self._keep("target_logit", layer, self._along(tensor))
            self._scale = self._targets.directions.scale(tensor).to(self._scratch.device)
        elif site.kind == HEADS and layer in self._heads:
            self._split_heads(layer, tensor)
        elif site.kind == ATTN_OUT:
            self._rescale("attn", layer, tensor)
        elif site.kind == s.NEURONS and ("mlp", layer) in self._passages and self._chosen is not None:
            self._split_neurons(layer, tensor[self._chosen])
        elif site.kind == s.MLP_OUT and not self._sites.layers[layer].experts:
            self._rescale("mlp", layer, tensor)

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Reduce the neurons of a mixture of experts."""
        if ("mlp", layer) in self._passages and self._chosen is not None:
            self._split_mixture(layer, mixture, self._chosen)
            self._rescale("mlp", layer, mixture.output)

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._waiting, self._scale = {}, None

    # --- products ---------------------------------------------------------------------------------------------------

    def _direction(self, device: torch.device) -> Tensor:
        """Directions of the residual stream, [prompt or 1, target, residual], where they are used."""
        return self._fixed.get(("direction", device), lambda: self._targets.vectors().to(device))

    def _before(self, part: str, layer: int, device: torch.device) -> Tensor:
        """Directions of what a block's linear map gives, [prompt or 1, target, residual]."""
        passage = self._passages[part, layer]
        return self._fixed.get((part, layer, device), lambda: passage.before(self._direction(device)))

    def _along(self, tensor: Tensor) -> Tensor:
        """⟨d, row⟩ of all rows, [rows, target]."""
        direction = self._direction(tensor.device)
        rows = tensor.float()
        if len(direction) == 1:
            return exact(rows, direction[0].T)
        return exact(rows.view(self._prompts, -1, rows.shape[-1]), direction.mT).flatten(0, 1)

    def _by_prompt(self, tensor: Tensor) -> Tensor:
        """Chosen rows as [prompt, row, width], float32."""
        return tensor.float().reshape(self._prompts, -1, tensor.shape[-1])

    def _split_heads(self, layer: int, tensor: Tensor) -> None:
        if self._chosen is None:
            return
        heads, device = self._heads[layer], tensor.device
        weight, bias = self._sites.attn_weight(self._model, layer)
        before = self._before("attn", layer, device)
        vectors = self._fixed.get(("heads", layer), lambda: exact(before, weight.float()))
        z = self._by_prompt(tensor[self._chosen])
        products = (z[:, :, None] * vectors[:, None]).view(*z.shape[:2], -1, heads.count, heads.width).sum(-1)
        self._keep("head_logit", layer, products.mT.flatten(0, 1))  # [row, head, target]
        self._keep_bias("attn", layer, before, bias, z)

    def _keep_bias(self, part: str, layer: int, before: Tensor, bias: Tensor | None, like: Tensor) -> None:
        """The bias of a linear map, which is behind the norm as any part of its output is, and that norm's β."""

        def spread(along: Tensor) -> Tensor:
            """One row for each prompt, or for all, as one for each chosen row."""
            return along[:, None].expand(*like.shape[:2], -1).flatten(0, 1)

        if bias is not None:
            self._keep(f"{part}_bias_logit", layer, spread(exact(before, bias.float()[:, None])[..., 0]))
        shift = self._passages[part, layer].shifted(self._direction(like.device))
        if shift is not None:  # behind the norm: its scale has nothing to do with it
            self._keep(f"{part}_shift", layer, spread(shift[..., 0]))

    def _split_neurons(self, layer: int, a: Tensor) -> None:
        weight, bias = self._sites.mlp_weight(self._model, layer)
        before = self._before("mlp", layer, a.device)
        vectors = self._fixed.get(("neurons", layer), lambda: exact(before, weight.float()))
        rows = self._by_prompt(a)
        found = [self._strongest(some[:, :, None] * own[:, None]) for some, own in self._pieces(rows, vectors)]
        self._keep_strongest(layer, found)
        self._keep_bias("mlp", layer, before, bias, rows)

    def _pieces(self, rows: Tensor, vectors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows [prompt, row, neuron] with the vectors [prompt or 1, target, neuron] of their prompts, in pieces."""
        each = 4 * vectors.shape[1:].numel()
        step = max(1, bytes_at_once(rows.device) // each)
        for number, some in enumerate(rows):
            own = vectors[number if len(vectors) > 1 else 0][None]
            for part in torch.split(some, step):
                yield part[None], own

    def _strongest(self, products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values and places of the k largest of each row, then of the k smallest, and the sum of the others.

        What has the wrong sign is none of them. `products` are [1, row, target, neuron].
        """
        products = products.flatten(0, 1)
        most, least = products.topk(self._k, -1), products.topk(self._k, -1, largest=False)
        values, places = (torch.cat(both, -1) for both in zip(most, least, strict=True))
        sign = torch.ones_like(values)
        sign[..., self._k :] = -1
        right = values * sign > 0
        dropped = products.scatter(-1, places, torch.where(right, 0.0, values))
        return values.where(right, torch.nan), places.where(right, -1), dropped.sum(-1)

    def _keep_strongest(self, layer: int, found: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        values, places, others = (torch.cat(parts) for parts in zip(*found, strict=True))
        self._keep("neuron_logit", layer, values)
        self._keep("logit_neuron", layer, places.int())
        self._keep("other_neurons_logit", layer, others)

    def _split_mixture(self, layer: int, mixture: Mixture, chosen: slice) -> None:
        before = self._before("mlp", layer, mixture.output.device)
        a = mixture.neurons(chosen) * mixture.factors(chosen)
        vectors = self._mixture_vectors(layer, mixture, chosen, before)  # [row, target, neuron]
        rows, count = len(a), mixture.weights.experts.count
        values, places, others = self._strongest((a[:, None] * vectors)[None])
        none = places < 0
        expert, number = mixture.named(chosen, places.clamp(min=0).flatten(1))
        width = mixture.weights.experts.width
        flat = torch.where(expert < 0, count * width + number, expert * width + number).view(places.shape)
        self._keep_strongest(layer, [(values, flat.where(~none, -1), others)])
        like = a.view(self._prompts, -1, a.shape[-1])
        self._keep_bias("mlp", layer, before, None, like)
        bias = _mixed_bias(mixture, chosen)
        if bias is not None:
            own = before.expand(self._prompts, -1, -1).repeat_interleave(rows // self._prompts, 0)
            self._keep("mlp_bias_logit", layer, exact(own, bias[..., None])[..., 0])

    def _mixture_vectors(self, layer: int, mixture: Mixture, chosen: slice, before: Tensor) -> Tensor:
        """⟨direction, column⟩ of all neurons that are active at the chosen rows, [row, target, neuron]."""
        experts = mixture.experts[chosen]
        weight, _ = mixture.weights.experts.weight(self._model)
        each = len(experts) // self._prompts
        if len(before) == 1:
            known = self._fixed.get(
                ("experts", layer), lambda: torch.stack([exact(before[0], w.float()) for w in weight])
            )
            found = known[experts].transpose(1, 2).flatten(2)
        else:
            rows = [
                torch.cat([exact(before[row // each], weight[expert].float()) for expert in own], -1)
                for row, own in enumerate(experts)
            ]
            found = torch.stack(rows)
        if mixture.shared is None:
            return found
        shared, _ = self._sites.mlp_weight(self._model, layer)
        own = self._fixed.get(("shared", layer), lambda: exact(before, shared.float()))
        own = own.expand(self._prompts, -1, -1).repeat_interleave(each, 0)
        return torch.cat((found, own), -1)

    def _rescale(self, part: str, layer: int, output: Tensor) -> None:
        """The scale of the norm behind a linear map is known: what was split in front of it is multiplied by it."""
        passage = self._passages.get((part, layer))
        if passage is None or passage.norm is None or self._chosen is None:
            return
        scale = passage.scale(output[self._chosen]).to(self._scratch.device)
        names = ("head_logit",) if part == "attn" else ("neuron_logit", "other_neurons_logit")
        for name in (*names, f"{part}_bias_logit"):
            values = self._waiting.get(layer, {}).get(name)
            if values is not None:
                values.mul_(scale.view(-1, *[1] * (values.ndim - 1)))

    def _keep(self, name: str, layer: int, values: Tensor) -> None:
        self._waiting.setdefault(layer, {})[name] = values.to(self._scratch.device).contiguous()

    # --- the end ----------------------------------------------------------------------------------------------------

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer, rows, …], [target, rows] and [target, prompt]."""
        assert self._scale is not None
        kept, self._waiting = self._waiting, {}
        norm_bias, head_bias = (part.to(self._scratch.device) for part in self._targets.constants())
        of_rows = (norm_bias + head_bias).expand(self._prompts, -1).repeat_interleave(self._length, 0)
        found = {
            "final_scale": self._scale.view(self._prompts, self._length)[:, -1],
            "norm_bias_logit": norm_bias.expand(self._prompts, -1).T,
            "head_bias_logit": head_bias.expand(self._prompts, -1).T,
            "embed_logit": (kept[0]["embed_logit"] * self._scale).T,
            "target_logit": (kept[self._last]["target_logit"] * self._scale + of_rows).T,
        }
        layers = [kept.get(layer, {}) for layer in range(self._last + 1)]
        for own in layers:
            for part in _PARTS:
                shift = own.get(f"{part}_shift")
                if shift is not None:
                    own[f"{part}_bias_logit"] = own.get(f"{part}_bias_logit", 0) + shift
        rows = self._prompts * self._length
        for name in self._written:
            found[name] = self._together(name, layers, rows, self._scale)
        for name in self._shapes:
            values = None
            if self._chosen is not None:
                scale = self._scale[self._chosen]
                values = self._together(name, layers, len(scale), scale)
            found[name] = self._among_all(name, values, rows)
        return found

    def _together(self, name: str, layers: list[dict[str, Tensor]], rows: int, scale: Tensor) -> Tensor:
        """What was kept of each layer, [layer, rows, …], times the final norm's scale."""
        found = self._missing(name, rows)
        for layer, own in enumerate(layers):
            values = own.get(name)
            if values is None:
                if name.endswith("_bias_logit") and (name.partition("_")[0], layer) in self._passages:
                    found[layer] = 0.0  # there is none
                continue
            into = found[layer] if values.shape == found[layer].shape else found[layer].narrow(1, 0, values.shape[1])
            into.copy_(values)
        return found if not found.is_floating_point() else found.mul_(scale.view(-1, *[1] * (found.ndim - 2)))

    def _among_all(self, name: str, values: Tensor | None, rows: int) -> Tensor:
        """What is known of the chosen rows, among all rows."""
        if values is not None and values.shape[1] == rows:
            return values
        found = self._missing(name, rows)
        if values is not None:
            found[:, self._chosen] = values
        return found

    def _missing(self, name: str, rows: int) -> Tensor:
        shape = self._shapes.get(name, (len(self._targets),))
        integers = name == "logit_neuron"
        empty = -1 if integers else torch.nan
        dtype = torch.int32 if integers else torch.float32
        return torch.full((self._last + 1, rows, *shape), empty, dtype=dtype, device=self._scratch.device)


def _mixed_bias(mixture: Mixture, chosen: slice) -> Tensor | None:
    """The biases of the chosen and the shared experts as they reach the output, [row, residual]; None without any."""
    weights, found = mixture.weights, None
    if weights.bias is not None:
        found = (mixture.router[chosen, :, None] * weights.bias[mixture.experts[chosen]].float()).sum(1)
    if weights.shared_bias is not None:
        shared = mixture.gate[chosen] * weights.shared_bias.float()
        found = shared if found is None else found + shared
    return found
