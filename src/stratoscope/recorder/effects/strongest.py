"""What is kept of the effects of every neuron at every token: sums, the strongest of a layer, those of a prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stratoscope import defaults
from stratoscope.errors import CaptureError
from stratoscope.model import sites as s
from stratoscope.model.heads import HEADS, Heads
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.effects.baseline import Baseline
from stratoscope.recorder.effects.gradients import EXPERTS, SiteGradient
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.topk import largest

PER_SIGN = defaults.STRONGEST_PER_SIGN


@dataclass(frozen=True, eq=False)
class _Effects:
    """Effects of some neurons of one block, [row, neuron] float32, and which they are (None: the first and on)."""

    effect: Tensor
    value: Tensor
    neuron: Tensor | None
    factor: Tensor | None  # of experts, by what the router multiplies what they write, [row, neuron]


@dataclass(frozen=True, eq=False)
class Strongest:
    """The neurons at tokens of largest effect in each prompt, [prompt, target, strongest]; −1 and NaN where too few.

    `row` counts the rows of the batch; `factor` is what the router, if there is one, multiplies the neuron's write by.
    """

    row: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    value: np.ndarray
    effect: np.ndarray
    factor: np.ndarray


class EffectTables:
    """Effects of a batch, filled by the backwards of all targets.

    Parameters
    ----------
    sites, heads
        Where neurons and heads are.
    baseline, writes
        What activations are compared with, and what is written there behind a norm (`baseline.written`), by layer and
        kind of site.
    batch, targets, top_k
        The prompts, how many targets, and how many neurons are kept of a token and layer.
    ids
        Name of each prompt, for errors.
    """

    def __init__(
        self,
        sites: ModelSites,
        heads: Sequence[Heads | None],
        baseline: Baseline,
        writes: dict[tuple[int, str], Tensor | float],
        batch: Batch,
        *,
        targets: int,
        top_k: int,
        ids: Sequence[str],
    ) -> None:
        self._sites, self._heads, self._baseline, self._writes = sites, heads, baseline, writes
        self._batch, self._top_k, self._ids = batch, top_k, ids
        rows, layers = batch.rows, len(sites.layers)
        most = max((one.count for one in heads if one is not None), default=0)
        self.mlp = torch.full((rows, layers, targets), torch.nan)
        self.attn = torch.full((rows, layers, targets), torch.nan)
        self.head = torch.full((rows, layers, most, targets), torch.nan)
        self.neuron = torch.full((rows, layers, targets, top_k), -1, dtype=torch.int32)
        self.effect = torch.full((rows, layers, targets, top_k), torch.nan)
        self._unranked = _unranked(batch)[:, None]
        self._waiting: defaultdict[tuple[int, int], list[_Effects]] = defaultdict(list)
        self._best: dict[int, list[Tensor]] = {}
        self._targets = targets

    # --- what arrives -----------------------------------------------------------------------------------------------

    def receive(self, seen: SiteGradient) -> None:
        """Take what one backward shows at one place; let go of it."""
        if seen.kind in (s.NEURONS, EXPERTS):
            self._neurons(seen)
        elif seen.kind == HEADS:
            self._by_head(seen)
        else:
            effect = self.difference(seen) * seen.gradient.float()
            out = self.mlp if seen.kind == s.MLP_WRITE else self.attn
            out[:, seen.layer, seen.target] = self._finite(effect.sum(1), seen).cpu()

    def difference(self, seen: SiteGradient) -> Tensor:
        """What stood there less its baseline, float32."""
        baseline, value = self._baseline, seen.value.float()
        if seen.kind == HEADS:
            given: Tensor | float | None = baseline.values.heads.get(seen.layer)
        elif seen.kind in (s.NEURONS, EXPERTS):
            given = self._of_neurons(seen)
        else:
            given = self._writes.get((seen.layer, seen.kind))
        if given is None or isinstance(given, float):
            return value if not given else value - given
        return value - given.to(value.device)

    def _of_neurons(self, seen: SiteGradient) -> Tensor | None:
        given, experts = self._baseline.values.neurons.get(seen.layer), self._sites.layers[seen.layer].experts
        if given is None or experts is None:
            return given
        routed = self._sites.layers[seen.layer].expert_neurons
        if seen.kind == s.NEURONS:
            return given[:, routed:]
        assert seen.experts is not None
        by_expert = given[0, :routed].view(experts.count, experts.width).to(seen.value.device)
        return by_expert[seen.experts]

    def _by_head(self, seen: SiteGradient) -> None:
        heads = self._heads[seen.layer]
        assert heads is not None
        effect = (self.difference(seen) * seen.gradient.float()).view(-1, heads.count, heads.width).sum(-1)
        self.head[:, seen.layer, : heads.count, seen.target] = self._finite(effect, seen).cpu()
        if (seen.layer, s.ATTN_WRITE) not in self._writes:  # else the write behind the norm says it
            self.attn[:, seen.layer, seen.target] = effect.sum(1).cpu()

    def _neurons(self, seen: SiteGradient) -> None:
        effect = self.difference(seen) * seen.gradient.float()
        block = self._sites.layers[seen.layer]
        neuron = factor = None
        value = seen.value
        if block.experts is not None:
            width, routed = block.experts.width, block.expert_neurons
            if seen.kind == EXPERTS:
                assert seen.experts is not None
                assert seen.weights is not None
                each = torch.arange(width, device=effect.device)
                neuron = (seen.experts[..., None] * width + each).flatten(1)
                factor = seen.weights.float()[..., None].expand(-1, -1, width).flatten(1)
                effect, value = effect.flatten(1), value.flatten(1)
            else:
                neuron = (routed + torch.arange(effect.shape[1], device=effect.device)).expand_as(effect)
                factor = torch.ones_like(effect)
        waiting = self._waiting[seen.layer, seen.target]
        waiting.append(_Effects(effect, value, neuron, factor))
        if len(waiting) == (block.experts is not None) + (block.neurons is not None):
            del self._waiting[seen.layer, seen.target]
            self._layer(seen, _joined(waiting))

    def _finite(self, effect: Tensor, seen: SiteGradient) -> Tensor:
        """The effects, one or a few a row, unless one is not finite."""
        if bool(torch.isfinite(effect).all()):
            return effect
        bad = (~torch.isfinite(effect.reshape(len(effect), -1)).all(1)).nonzero()[:, 0]
        real = bad[self._batch.mask.reshape(-1)[bad.to(self._batch.mask.device)].bool().to(bad.device)]
        if not len(real):  # padding, of which nothing is kept
            return effect
        prompt = int(real[0]) // self._batch.input_ids.shape[1]
        raise CaptureError(
            f"the gradients of layer {seen.layer} are not finite",
            where=f"prompt {self._ids[prompt]}",
            fix="Try --dtype float32 (or bfloat16 in place of float16); else the weights are broken.",
        )

    # --- what is kept -----------------------------------------------------------------------------------------------

    def _layer(self, seen: SiteGradient, found: _Effects) -> None:
        """All neurons of a block at once."""
        layer, target = seen.layer, seen.target
        total = self._finite(found.effect.sum(1), seen)
        if (layer, s.MLP_WRITE) not in self._writes:
            self.mlp[:, layer, target] = total.cpu()
        k = min(self._top_k, found.effect.shape[1])
        _, columns = largest(found.effect.abs(), k)
        columns = columns.to(found.effect.device, torch.int64)
        kept = found.effect.gather(1, columns)
        named = columns if found.neuron is None else found.neuron.gather(1, columns)
        nothing = kept == 0  # as in the last block at all tokens but the answer position: no neuron is the strongest
        self.effect[:, layer, target, :k] = kept.masked_fill(nothing, torch.nan).cpu()
        self.neuron[:, layer, target, :k] = named.masked_fill(nothing, -1).to(torch.int32).cpu()
        self._rank(layer, target, found)

    def _rank(self, layer: int, target: int, found: _Effects) -> None:
        """The strongest of either sign of each prompt, among those of the layers before."""
        prompts, length = self._batch.input_ids.shape
        width = found.effect.shape[1]
        effect = found.effect.masked_fill(self._unranked.to(found.effect.device), 0)
        rows = effect.reshape(prompts, length * width)
        n = min(PER_SIGN, rows.shape[1])
        parts: list[list[Tensor]] = []
        for sign in (1, -1):
            _, place = largest((rows if sign > 0 else -rows).clamp(min=0), n)
            place = place.to(rows.device, torch.int64)
            flat = place + torch.arange(prompts, device=rows.device)[:, None] * (length * width)
            row, column = flat // width, flat % width
            neuron = column if found.neuron is None else found.neuron.reshape(-1)[flat]
            factor = torch.ones(flat.shape) if found.factor is None else found.factor.reshape(-1)[flat].cpu()
            value = found.value.reshape(-1)[flat].float().cpu()
            layers = torch.full(flat.shape, layer)
            parts.append([rows.gather(1, place).cpu(), value, factor, row.cpu(), layers, neuron.cpu()])
        new = [torch.stack(both, 1) for both in zip(*parts, strict=True)]  # [prompt, sign, rank]
        known = self._best.get(target)
        if known is not None:
            new = [torch.cat(both, -1) for both in zip(known, new, strict=True)]
        order = new[0].abs().argsort(dim=-1, descending=True, stable=True)[..., :PER_SIGN]
        self._best[target] = [one.gather(-1, order) for one in new]

    def strongest(self) -> Strongest:
        """The strongest of all layers."""
        prompts = len(self._batch.input_ids)
        shape = (prompts, self._targets, 2, PER_SIGN)
        effect, value, factor = (np.full(shape, np.nan, np.float32) for _ in range(3))
        row, layer, neuron = (np.full(shape, -1, np.int32) for _ in range(3))
        for target, best in self._best.items():
            n = best[0].shape[-1]
            places = (effect, value, factor, row, layer, neuron)
            there = best[0].numpy() != 0  # neither promotes nor suppresses
            for place, one in zip(places, best, strict=True):
                out = place[:, target, :, :n]
                out[there] = one.numpy()[there]
        flat = (prompts, self._targets, 2 * PER_SIGN)
        return Strongest(*(one.reshape(flat) for one in (row, layer, neuron, value, effect, factor)))


def _unranked(batch: Batch) -> Tensor:
    """Rows of padding and of first tokens, whose activations are too large for first order; not of an only token."""
    mask = batch.mask.cpu()
    unranked, first = mask == 0, mask.argmax(1)
    longer = (mask.sum(1) > 1).nonzero()[:, 0]
    unranked[longer, first[longer]] = True
    return unranked.reshape(-1)


def _joined(parts: Sequence[_Effects]) -> _Effects:
    """Those of experts and of the shared expert side by side."""
    if len(parts) == 1:
        return parts[0]
    ordered = sorted(parts, key=lambda part: int(part.neuron[0, 0]) if part.neuron is not None else 0)
    joined = [torch.cat([getattr(part, name) for part in ordered], 1) for name in ("effect", "neuron", "factor")]
    value = torch.cat([part.value.float() for part in ordered], 1)
    return _Effects(joined[0], value, joined[1], joined[2])
