"""Neurons and heads set to other values in memory, for one forward: many different ablations as rows of one batch.

No weight is touched and nothing is generated or written: what an ablation changes is read off the logits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from stratoscope.model.devices import input_device
from stratoscope.model.experts import implementation_of, row_of
from stratoscope.model.heads import heads_of
from stratoscope.model.hooks import ExpertsHooks, ReplacingHooks
from stratoscope.model.sites import ModelSites, Site
from stratoscope.recorder.input.batches import Batch, PromptTokens, make_batch
from stratoscope.recorder.input.grouping import Batching
from stratoscope.recorder.memory import BatchSplitter
from stratoscope.recorder.observe import forward, last_logits_only

TOKENS_AT_ONCE = 2048  # of a batch, where nobody says how many rows it may have


@dataclass(frozen=True, eq=False)
class Values:
    """What neurons and heads are set to; where a layer is not among them, to zero.

    Attributes
    ----------
    neurons
        Layer to the values of all its neurons, flat as on the axis `neuron`: [position or 1, neuron].
    heads
        Layer to what all its heads give, head after head: [position or 1, head × width].
    of_neurons
        Layer to the neurons that its values are of, where these are not all.
    """

    neurons: Mapping[int, Tensor] = field(default_factory=dict)
    heads: Mapping[int, Tensor] = field(default_factory=dict)
    of_neurons: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def of(self, layer: int, neurons: Sequence[int]) -> Tensor | None:
        """Values of some neurons of a layer, [position or 1, neuron]; None = zero."""
        known = self.neurons.get(layer)
        if known is None:
            return None
        if layer not in self.of_neurons:
            return known[:, list(neurons)]
        place = {neuron: number for number, neuron in enumerate(self.of_neurons[layer])}
        return known[:, [place[neuron] for neuron in neurons]]


ZERO = Values()


@dataclass(frozen=True, eq=False)
class Ablation:
    """What of a prompt is set to other values; nothing, unless something is named.

    Attributes
    ----------
    neurons
        (layer, neuron), neurons flat as on the axis `neuron`: experts one after the other, then the shared expert. An
        expert's neuron is set wherever the router chooses that expert.
    heads
        (layer, head): what the head gives to attention's last linear map.
    mlps, attentions
        Layers of which all neurons, or all heads, are set. Biases stay: they are nobody's activity.
    positions
        At which tokens, counted from the prompt's first; negative ones from its last; or a slice. None = at all.
    values
        What they are set to.
    added
        Layer to what is added to the output of its MLP, [position or 1, residual]: for comparison with a neuron.
    """

    neurons: Sequence[tuple[int, int]] = ()
    heads: Sequence[tuple[int, int]] = ()
    mlps: Sequence[int] = ()
    attentions: Sequence[int] = ()
    positions: Sequence[int] | slice | None = None
    values: Values = ZERO
    added: Mapping[int, Tensor] = field(default_factory=dict)


def ablated_logits(
    model: nn.Module,
    sites: ModelSites,
    prompts: Sequence[PromptTokens],
    ablations: Sequence[Ablation],
    *,
    batching: Batching | None = None,
    pad_id: int = 0,
) -> Tensor:
    """The model's logits at the last token of each prompt, each under an ablation of its own.

    Parameters
    ----------
    model, sites
        The model, and its proved sites.
    prompts
        One for each ablation; or one alone, for all of them.
    ablations
        What is set in each row. `Ablation()` sets nothing: that row is the model's own.
    batching
        Which rows may run together, and how many; by default any, as many as have about `TOKENS_AT_ONCE` tokens.
    pad_id
        What stands in front of shorter prompts.

    Returns
    -------
    Tensor
        [row, vocabulary], in the model's dtype.

    Raises
    ------
    CaptureError
        A site was not passed exactly once, or not even one row fits into memory.
    """
    found: dict[int, Tensor] = {}
    for rows, logits in each_ablated(model, sites, prompts, ablations, batching=batching, pad_id=pad_id):
        found |= zip(rows, logits[:, -1], strict=True)
    return torch.stack([found[row] for row in range(len(ablations))])


def each_ablated(
    model: nn.Module,
    sites: ModelSites,
    prompts: Sequence[PromptTokens],
    ablations: Sequence[Ablation],
    *,
    batching: Batching | None = None,
    pad_id: int = 0,
    last: int = 1,
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """What `ablated_logits` gives, batch by batch, for who keeps little of it.

    Parameters
    ----------
    model, sites, prompts, ablations, batching, pad_id
        As those of `ablated_logits`.
    last
        At how many of the last tokens logits are wanted.

    Yields
    ------
    rows, logits
        Which rows ran together, and their logits, [row, last, vocabulary].
    """
    whose = list(prompts) * len(ablations) if len(prompts) == 1 else list(prompts)
    lengths = [len(prompt.ids) for prompt in whose]
    if not lengths:
        return
    batching = batching or Batching(max(1, TOKENS_AT_ONCE // max(lengths)))
    device = input_device(model)

    def run(rows: Sequence[int]) -> Tensor:
        batch = make_batch([whose[row] for row in rows], pad_id=pad_id, padding_side="left", device=device)
        with ablated(model, sites, batch, [ablations[row] for row in rows]):
            options = dict.fromkeys(last_logits_only(model), last)
            logits: Tensor = forward(model, batch, **options).logits
        return logits[:, -last:]

    splitter, ids = BatchSplitter(batching.size), [f"of row {row}" for row in range(len(whose))]
    for chosen in batching.batches(lengths):
        yield from splitter.run(chosen, lengths, ids, run, lambda: None)


@contextmanager
def ablated(model: nn.Module, sites: ModelSites, batch: Batch, ablations: Sequence[Ablation]) -> Iterator[None]:
    """While open, one forward over this batch runs with each row under its own ablation; hooks come off in any case.

    Raises
    ------
    CaptureError
        The forward did not pass every place exactly once.
    """
    found = _Settings(model, sites, batch, ablations)
    experts = ExpertsHooks(found.modules, lambda *_: None, found.of_experts)
    with experts, ReplacingHooks(model, found.replacements()) as hooks:
        yield
        hooks.expect_once()
        experts.expect_once()


# --- what is set where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Setting:
    """Some columns of some rows of a batch, and what they are set to: [row or 1, column], or zero."""

    rows: Tensor
    columns: Tensor
    values: Tensor | None

    def of(self, tensor: Tensor, columns: Tensor | None = None) -> Tensor | float:
        """The values as those of a tensor; of all columns, or of these places among them."""
        if self.values is None:
            return 0.0
        values = self.values if columns is None else self.values[:, columns]
        return values.to(tensor.device, tensor.dtype)


class _Settings:
    """The ablations of a batch, site by site."""

    def __init__(self, model: nn.Module, sites: ModelSites, batch: Batch, ablations: Sequence[Ablation]) -> None:
        self._model, self._sites = model, sites
        self._rows = batch.rows
        self._neurons: defaultdict[int, list[_Setting]] = defaultdict(list)
        self._heads: defaultdict[int, list[_Setting]] = defaultdict(list)
        self._added: defaultdict[int, list[_Setting]] = defaultdict(list)
        length, mask = batch.input_ids.shape[1], batch.mask.cpu().bool()
        for row, ablation in enumerate(ablations):
            tokens = mask[row].nonzero()[:, 0] + row * length
            chosen = slice(None) if ablation.positions is None else ablation.positions
            self._add(ablation, tokens[chosen if isinstance(chosen, slice) else list(chosen)])
        self._layers = {
            layer.experts.module: number
            for number, layer in enumerate(sites.layers)
            if layer.experts is not None and number in self._neurons
        }
        self.modules = {path: model.get_submodule(path) for path in self._layers}

    def _add(self, ablation: Ablation, rows: Tensor) -> None:
        values = ablation.values
        every = {layer: list(range(self._sites.widths[layer])) for layer in ablation.mlps}
        for layer, neurons in (_by_layer(ablation.neurons) | every).items():
            self._neurons[layer].append(_Setting(rows, torch.tensor(neurons), values.of(layer, neurons)))
        heads: dict[int, list[int] | None] = {**_by_layer(ablation.heads), **dict.fromkeys(ablation.attentions)}
        for layer, chosen in heads.items():
            there = heads_of(self._model, self._sites, layer)
            assert there is not None
            every_column = torch.arange(there.count * there.width)
            numbers = range(there.count) if chosen is None else chosen
            columns = torch.cat([every_column[there.columns(head)] for head in numbers])
            given = values.heads.get(layer)
            self._heads[layer].append(_Setting(rows, columns, None if given is None else given[:, columns]))
        for layer, vector in ablation.added.items():
            self._added[layer].append(_Setting(rows, torch.arange(vector.shape[-1]), vector))

    def replacements(self) -> list[tuple[Site, Callable[[Tensor], Tensor]]]:
        """Of each site, what makes another tensor of the one that passes."""
        found: list[tuple[Site, Callable[[Tensor], Tensor]]] = []
        for layer, settings in self._neurons.items():
            site = self._sites.layers[layer].neurons
            if site is not None:
                found.append((site, partial(_set, _from(settings, self._sites.layers[layer].expert_neurons))))
        for layer, settings in self._heads.items():
            there = heads_of(self._model, self._sites, layer)
            assert there is not None
            found.append((there.site, partial(_set, settings)))
        for layer, settings in self._added.items():
            out = self._sites.layers[layer].mlp_out
            assert out is not None
            found.append((out, partial(_sum, settings)))
        return found

    def of_experts(self, path: str, choice: Tensor, computed: Tensor, before: int) -> Tensor:
        """Neurons of chosen experts, [rows, width], in the order in which they are computed, set."""
        experts = self._sites.layers[self._layers[path]].experts
        assert experts is not None
        order = experts.order_under(implementation_of(self.modules[path]), self._layers[path])
        flat = row_of(choice, order)[before : before + len(computed)]
        tokens, ids = flat // choice.shape[1], choice.reshape(-1)[flat]
        computed = computed.clone()
        for setting in self._neurons[self._layers[path]]:
            place = torch.full((self._rows,), -1, device=tokens.device)
            place[setting.rows.to(tokens.device)] = torch.arange(len(setting.rows), device=tokens.device)
            mine = place[tokens]
            expert, neuron = setting.columns // experts.width, setting.columns % experts.width
            for one in set(ids[mine >= 0].tolist()) & set(expert.tolist()):
                which = (expert == one).nonzero()[:, 0]
                rows = ((mine >= 0) & (ids == one)).nonzero()[:, 0]
                values = setting.of(computed, which)
                if isinstance(values, Tensor) and len(values) > 1:
                    values = values[mine[rows]]
                computed[rows[:, None], neuron[which].to(computed.device)] = values
        return computed


def _by_layer(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for layer, number in pairs:
        found[layer].append(number)
    return dict(found)


def _from(settings: Sequence[_Setting], first: int) -> list[_Setting]:
    """The columns from `first` on, counted from there: a mixture's shared expert stands behind the others."""
    if not first:
        return list(settings)
    found = []
    for one in settings:
        here = (one.columns >= first).nonzero()[:, 0]
        values = None if one.values is None else one.values[:, here.to(one.values.device)]
        found.append(_Setting(one.rows, one.columns[here] - first, values))
    return found


def _set(settings: Sequence[_Setting], tensor: Tensor) -> Tensor:
    """Another tensor, [rows, width], in which they are set."""
    other = tensor.clone()
    for one in settings:
        other[one.rows.to(other.device)[:, None], one.columns.to(other.device)] = one.of(other)
    return other


def _sum(settings: Sequence[_Setting], tensor: Tensor) -> Tensor:
    """Another tensor, [rows, width], to which they are added."""
    other = tensor.clone()
    for one in settings:
        other[one.rows.to(other.device)] += one.of(other)
    return other
