"""What activations are compared with: zero, or their means over the prompts' own words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from stratoscope.errors import InputError
from stratoscope.model import sites as s
from stratoscope.model.devices import compute_device
from stratoscope.model.experts import Routed
from stratoscope.model.heads import heads_of
from stratoscope.model.hooks import ExpertsHooks, SiteHooks
from stratoscope.model.sites import ModelSites, Site
from stratoscope.recorder.effects.ablations import ZERO, Values
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import forward, last_logits_only
from stratoscope.trace.format.schema import COMPLETE
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.read.reader import open_trace

_ROWS = 2**12  # of `neurons`, read together


@dataclass(frozen=True, eq=False)
class Baseline:
    """What neurons, heads and writes are compared with; where a layer is not among them, zero.

    Attributes
    ----------
    values
        Of neurons and heads: [1, neuron] and [1, head × width], float32.
    writes
        Of mixers that are no attention, layer to what they write on average, [1, residual], float32.
    """

    values: Values = ZERO
    writes: Mapping[int, Tensor] = field(default_factory=dict)


class MeanPass:
    """The means of neurons, heads and other mixers' writes over the prompts' own words, added up batch by batch.

    First tokens are left out; an expert's neurons are averaged over the words that were routed to it, and are zero
    where none was.
    """

    def __init__(self, model: nn.Module, sites: ModelSites) -> None:
        self._model, self._sites = model, sites
        self._heads = {layer: heads_of(model, sites, layer) for layer in range(len(sites.layers))}
        self._sums: dict[Site, Tensor] = {}
        self._words = 0
        self._experts = {one.experts.module: (n, one.experts) for n, one in enumerate(sites.layers) if one.experts}
        self._expert_sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._user_rows: tuple[slice | Tensor, ...] = ()

    def add(self, batch: Batch) -> None:
        """Run a batch, and add its words."""
        self._user_rows = batch.user_rows
        modules = {path: self._model.get_submodule(path) for path in self._experts}
        with (
            SiteHooks(self._model, self._read(), self._take) as hooks,
            ExpertsHooks(modules, self._take_experts) as experts,
        ):
            forward(self._model, batch, **last_logits_only(self._model))
            hooks.expect_once()
            experts.expect_once()
        self._words += sum(_count(rows) for rows in batch.user_rows)

    def result(self) -> Baseline:
        """The means.

        Raises
        ------
        InputError
            No prompt has a word of its own.
        """
        if not self._words:
            raise InputError(
                "no prompt has a token of its own behind its first, so there is no mean",
                where="baseline",
                fix="Use --baseline zero, or write longer prompts.",
            )
        means = {site: (total / self._words).float()[None] for site, total in self._sums.items()}
        neurons: dict[int, Tensor] = {}
        for layer, width in enumerate(self._sites.widths):
            parts = [means[site] for site in means if site.layer == layer and site.kind == s.NEURONS]
            experts = self._sites.layers[layer].experts
            if experts is not None:
                total, count = self._expert_sums[experts.module]
                mean = torch.where(count > 0, total / count.clamp(min=1), 0.0).float()
                parts.insert(0, mean.reshape(1, -1).to(parts[0].device if parts else mean.device))
            if parts:
                neurons[layer] = torch.cat(parts, 1)
                assert neurons[layer].shape[1] == width
        heads = {n: means[one.site] for n, one in self._heads.items() if one is not None}
        writes = {site.layer: mean for site, mean in means.items() if site.kind == s.ATTN_WRITE}
        return Baseline(Values(neurons, heads), writes)

    def _read(self) -> list[Site]:
        found: list[Site] = []
        for number, layer in enumerate(self._sites.layers):
            heads = self._heads[number]
            places = (layer.neurons, heads.site if heads is not None else layer.attn_write)
            found += [site for site in places if site is not None]
        return found

    def _take(self, site: Site, tensor: Tensor) -> None:
        total = sum((_own(tensor, rows).double().sum(0) for rows in self._user_rows), torch.zeros(()).double())
        total = total / site.scale if site.scale != 1 else total  # what the model computes with
        self._sums[site] = self._sums[site] + total if site in self._sums else total

    def _take_experts(self, path: str, call: Routed) -> None:
        layer, experts = self._experts[path]
        a = call.neurons(experts.order_under(call.implementation, layer))
        total = a.new_zeros(experts.count, experts.width, dtype=torch.float64)
        count = total.new_zeros(experts.count, 1)
        for rows in self._user_rows:
            ids = _own(call.experts, rows).reshape(-1)
            total.index_add_(0, ids, _own(a, rows).flatten(0, 1).double())
            count.index_add_(0, ids, count.new_ones(len(ids), 1))
        former = self._expert_sums.get(path)
        self._expert_sums[path] = (total, count) if former is None else (former[0] + total, former[1] + count)


def _own(tensor: Tensor, rows: slice | Tensor) -> Tensor:
    return tensor[rows if isinstance(rows, slice) else rows.to(tensor.device)]


def _count(rows: slice | Tensor) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


# --- the means that another trace holds -------------------------------------------------------------------------------


def means_of(path: Path, sites: ModelSites, weights_sha256: str | None) -> Baseline:
    """The means of neurons that a trace of the same weights holds; of heads and writes it holds none.

    Raises
    ------
    InputError
        It is of other weights, not complete, has no means of neurons, or not those of experts.
    """
    trace = open_trace(path)
    where, attrs = str(path), trace.attrs
    stored = attrs.get("model")
    if not isinstance(stored, Mapping) or not weights_sha256 or stored.get("weights_sha256") != weights_sha256:
        raise InputError(
            "its means are of another model: the weights differ", where=where, fix="Give a trace of the same model."
        )
    if attrs.get("state") != COMPLETE:
        raise InputError("it is not complete, so its means may change", where=where, fix="Finish it with --resume.")
    if any(layer.experts for layer in sites.layers):
        raise InputError(
            "a mixture's means over the tokens of each expert cannot be joined from those of prompts",
            where=where,
            fix="Leave --mean-of out: the means are then taken from these prompts first.",
        )
    means = _means(trace)
    layers = range(len(sites.layers))
    if means is None or set(map(int, trace["layer"].values)) != {*layers}:
        raise InputError(
            "it has no means of neurons",
            where=where,
            fix="Record it with --record prompts (or neurons), of all layers.",
        )
    neurons = {
        layer: torch.from_numpy(means[layer, :width].astype(np.float32))[None]
        for layer, width in enumerate(sites.widths)
        if width
    }
    return Baseline(Values(neurons))


def _means(trace: xr.Dataset) -> np.ndarray | None:
    """Means over the prompts' own words, first tokens left out, float64 [layer, neuron]; None where it has none."""
    prompts = Prompts(trace)
    own = prompts.in_spans(["user"]) & ~prompts.first
    weights = np.bincount(prompts.of_token[own], minlength=len(prompts)).astype(np.float64)
    if not own.any():
        return None
    if "prompt_mean" in trace:
        total = np.zeros(trace["prompt_mean"].shape[1:])
        for prompt in np.flatnonzero(weights):
            total += weights[prompt] * trace["prompt_mean"][int(prompt)].values.astype(np.float64)
        return np.asarray(total / weights.sum())
    if "neurons" in trace:
        total = np.zeros(trace["neurons"].shape[1:])
        for start in range(0, len(own), _ROWS):
            rows = slice(start, start + _ROWS)
            total += np.asarray(trace["neurons"][rows].values, np.float64)[own[rows]].sum(0)
        return np.asarray(total / own.sum())
    return None


# --- what an MLP or attention writes at its baseline ------------------------------------------------------------------


def written(model: nn.Module, sites: ModelSites, layer: int, kind: str, baseline: Baseline) -> Tensor | float:
    """What reaches the residual where a block's neurons or heads are at their baseline: [1, residual], before scaling.

    Where no norm stands between, nobody asks. Of a mixture of experts, and of what cannot be computed, 0.
    """
    block, maps = sites.layers[layer], sites.maps[layer]
    if kind == s.MLP_WRITE:
        last = None if block.neurons is None or block.experts is not None else block.neurons.module
        norm, given = maps.mlp_post_norm, baseline.values.neurons.get(layer)
    else:
        last, norm, given = block.attn_out, maps.attn_post_norm, baseline.values.heads.get(layer)
        if heads_of(model, sites, layer) is None:
            return baseline.writes.get(layer, 0.0)
    if last is None or norm is None:
        return 0.0
    module: Any = model.get_submodule(last)
    if given is None and getattr(module, "bias", None) is None:
        return 0.0
    weight = module.weight
    width = weight.numel() // sites.d_model
    given = torch.zeros(1, width) if given is None else given
    with torch.no_grad():
        found: Tensor = model.get_submodule(norm.module)(module(given.to(compute_device(module), weight.dtype)))
    return found.float()


def written_at(
    model: nn.Module, sites: ModelSites, kinds: Iterable[tuple[int, str]], baseline: Baseline
) -> dict[tuple[int, str], Tensor | float]:
    """`written` of those of these places, (block, kind), that are writes."""
    writes = [one for one in kinds if one[1] in (s.MLP_WRITE, s.ATTN_WRITE)]
    return {one: written(model, sites, *one, baseline) for one in writes}


def mean_baseline(
    model: nn.Module, sites: ModelSites, batches: Iterable[Batch], progress: Callable[[int], None]
) -> Baseline:
    """The means over the words of all these batches; `progress` is told how many are done."""
    means = MeanPass(model, sites)
    for number, batch in enumerate(batches):
        progress(number)
        means.add(batch)
    return means.result()
