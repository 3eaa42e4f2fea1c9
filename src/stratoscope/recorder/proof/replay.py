"""The model run once more, and everything that is recorded computed anew beside the observation.

Nothing of the observation is used but the paths of the modules: other hooks, whole tensors, the formulas of `plain`,
and for the residual stream Hugging Face's own `hidden_states` (whose last entry is after the final norm, so the last
depth is what the last block gave). With eager attention the attention weights are the model's own too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from stratoscope.model.experts import chosen
from stratoscope.model.hooks import ModuleHooks
from stratoscope.model.identity import attention_implementation
from stratoscope.model.sites import Experts, LayerSites, ModelSites
from stratoscope.names import ATTENTION, ATTENTION_FULL, QUANTITIES, is_streamed
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import forward
from stratoscope.recorder.proof import formulas as plain
from stratoscope.recorder.proof.differences import DIFFERENCE, STRONGEST, Replayed, relative_difference
from stratoscope.recorder.proof.formulas_experts import MixtureInput, PlainMixture
from stratoscope.trace.shards import as_numbers


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[str]:
    """While open the model computes attention eagerly, if it can; gives the implementation that then runs.

    Whatever happens inside, every configuration gets its own implementation back.
    """
    configs: dict[int, Any] = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    before = [(one, one._attn_implementation_internal) for one in configs.values() if hasattr(one, _INTERNAL)]
    try:
        if getattr(model, "_can_set_attn_implementation", lambda: False)():
            model.set_attn_implementation("eager")  # type: ignore[operator]
        yield attention_implementation(model)
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


_INTERNAL = "_attn_implementation_internal"


@contextmanager
def _leaving_no_hooks(model: nn.Module) -> Iterator[None]:
    """Take off again what transformers puts on for `output_hidden_states`: it would stay on somebody's model."""
    before = [(module, set(module._forward_hooks), _INSTALLED in module.__dict__) for module in model.modules()]
    try:
        yield
    finally:
        for module, hooks, installed in before:
            for key in module._forward_hooks.keys() - hooks:
                del module._forward_hooks[key]
            if not installed:
                module.__dict__.pop(_INSTALLED, None)


_INSTALLED = "_output_capturing_hooks_installed"


class Replay:
    """One forward with hooks of its own; each block is computed as soon as it ends.

    Parameters
    ----------
    model, sites
        The model, and where its blocks write.
    batch
        The prompts.
    recorded
        What was recorded of them: of peaks the same neurons are looked at, attention that was not recorded is left
        out, and what is streamed is compared at once, a layer at a time (`[:, layer]` is read of it).
    **options
        Further arguments of the model's forward.
    """

    def __init__(
        self, model: nn.Module, sites: ModelSites, batch: Batch, recorded: Mapping[str, np.ndarray], **options: Any
    ) -> None:
        self._model, self._sites, self._batch, self._options = model, sites, batch, options
        peaks = recorded.get("peak_neuron")
        self._neurons = None if peaks is None else torch.from_numpy(peaks).long()
        self._experts = None if peaks is None else _experts_of(recorded)
        null = recorded.get("attn_null")
        self._sinks = None if null is None else ~np.isnan(null).all(axis=(0, 2))  # which layers have a learned sink
        alone = len(batch.input_ids) == 1 and len(batch.valid) == batch.rows
        groups = {QUANTITIES[name].group for name in recorded}
        self._with_attention = alone and bool(groups & {ATTENTION, ATTENTION_FULL})
        self._streamed = {name: values for name, values in recorded.items() if is_streamed(name)}
        self._valid = batch.valid.cpu()
        rows = torch.arange(batch.rows)
        own = [rows[user if isinstance(user, slice) else user.cpu()] for user in batch.user_rows]
        self._own = [torch.isin(self._valid, one) for one in own]
        self._kept: dict[str, Tensor] = {}
        self._norms: list[Tensor] = []  # of what goes into each block
        self._found: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)

    def run(self) -> Replayed:
        """The quantities that can be computed from what the model shows; others are left out."""
        places = {
            f"{number} {role}": self._model.get_submodule(path)
            for number, layer in enumerate(self._sites.layers)
            for role, path in _paths(f"{self._sites.blocks}.{number}", layer).items()
        }
        with _leaving_no_hooks(self._model), ModuleHooks(places, before=self._before, after=self._after):
            output = forward(self._model, self._batch, output_hidden_states=True, **self._options)
        states = [*map(self._rows, output.hidden_states or ())][: len(self._sites.layers)]
        # Mamba's begin after the first block: then what went into each block has to do
        listed = len(states) == len(self._sites.layers) and states[0].double().norm(dim=-1).equal(self._norms[0])
        norms = [state.double().norm(dim=-1) for state in states] if listed else self._norms
        last = self._kept["block"].double().norm(dim=-1)
        self._found["resid_norm"] = dict(enumerate([*norms, last]))
        return self._found

    def _rows(self, tensor: Tensor) -> Tensor:
        """A copy as [token, width], without padding."""
        return tensor.detach().reshape(-1, tensor.shape[-1]).cpu()[self._valid]

    def _before(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        role = name.split()[1]
        if role in _READ:
            self._kept[_READ[role]] = self._rows(next(tensor for tensor in given if tensor.is_floating_point()))
        elif role == "attention":
            self._keep("mask", [tensor for tensor in given if tensor.ndim == 4 and tensor.shape[1] == 1])
        elif role == "experts":
            choice = chosen(args, kwargs)
            assert choice is not None
            self._kept |= dict(zip(("read", "choice", "router"), map(self._rows, (given[0], *choice)), strict=True))

    def _after(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        number, role = name.split()
        parts = [output] if isinstance(output, Tensor) else [part for part in output if isinstance(part, Tensor)]
        if role in ("attn", "mlp", "block", "gate"):
            self._kept[role] = self._rows(parts[0])
        elif role == "attention":
            square = 2 * (len(self._valid),)  # queries × keys
            self._keep("weights", [part for part in parts[1:] if self._with_attention and part.shape[2:] == square])
        if role == "block":
            self._block(int(number), self._sites.layers[int(number)])
            self._kept = {"block": self._kept["block"]}

    def _keep(self, name: str, found: list[Tensor]) -> None:
        if found:
            self._kept[name] = found[0]

    def _block(self, number: int, layer: LayerSites) -> None:
        kept = self._kept
        self._norms.append(kept["x"].double().norm(dim=-1))
        found: plain.Values = {}
        for site, name in ((layer.attn_write, "attn"), (layer.mlp_write, "mlp")):
            if site is not None and site.scale != 1:
                kept[name] = kept[name] * site.scale
        if layer.attn_write is not None:
            found |= plain.write("attn", kept["attn"], kept["x"])
        if layer.mlp_write is not None:
            base = kept["x"] if layer.parallel else kept["x"] + kept["attn"]
            found |= plain.write("mlp", kept["mlp"], base)
            found |= self._neurons_of(number) if layer.experts is None else self._mixture_of(number, layer.experts)
        if "weights" in kept:
            found |= self._attention(number, layer)
        for name, value in found.items():
            self._found[name][number] = value

    def _neurons_of(self, number: int) -> plain.Values:
        a = self._kept["a"]
        weight, bias = (None if one is None else one.cpu() for one in self._sites.mlp_weight(self._model, number))
        assert weight is not None
        found = plain.neurons(a, weight, bias)
        if self._neurons is not None:
            values, found[STRONGEST] = plain.peaks(a, weight, self._neurons[:, number])
            found |= values
        found |= self._compared(("neurons", "active_neurons"), number, a)
        return found | self._stacked([plain.summary(a[own]) for own in self._own])

    def _mixture_of(self, number: int, experts: Experts) -> plain.Values:
        kept = self._kept
        weights = [*experts.weight(self._model), None, None]
        if self._sites.layers[number].neurons is not None:
            weights[2:] = self._sites.mlp_weight(self._model, number)
        call = MixtureInput(kept["read"], kept["choice"], kept["router"], kept.get("a"), kept.get("gate"))
        module = self._model.get_submodule(experts.module)
        mixture = PlainMixture(module, call, *(None if one is None else one.cpu() for one in weights))  # type: ignore[arg-type]
        missing = self._sites.choices - experts.choices
        found = {**mixture.norms(), "router_weight": pad(call.router.double(), (0, missing), value=torch.nan)}
        if self._neurons is not None and self._experts is not None:
            values, found[STRONGEST] = mixture.peaks(self._experts[:, number], self._neurons[:, number])
            found |= values
        found |= self._compared(("active_neurons",), number, mixture.active)
        return found | self._stacked([mixture.summary(own, self._sites.d_ff) for own in self._own])

    def _stacked(self, summaries: list[plain.Values]) -> plain.Values:
        """Summaries of the prompts as [prompt, neuron], as wide as the widest block."""
        width = self._sites.d_ff
        return {
            name: torch.stack([pad(one[name], (0, width - len(one[name])), value=torch.nan) for one in summaries])
            for name in summaries[0]
        }

    def _compared(self, names: tuple[str, ...], number: int, wanted: Tensor) -> plain.Values:
        """How far what was streamed of one layer is from [row, width]."""
        name = next((name for name in names if name in self._streamed), None)
        if name is None:
            return {}
        values = as_numbers(np.asarray(self._streamed[name][:, number]))
        wanted = pad(wanted.float(), (0, values.shape[1] - wanted.shape[1]), value=torch.nan)
        difference = relative_difference(values[:, None], wanted.numpy()[:, None], QUANTITIES[name])
        return {DIFFERENCE + name: torch.from_numpy(difference[:, 0])}

    def _attention(self, number: int, layer: LayerSites) -> plain.Values:
        weights, mask = self._kept["weights"][0].cpu(), self._kept.get("mask")
        seen = torch.ones(weights.shape[1:], dtype=torch.bool).tril()
        if mask is not None:
            mask = mask[0, 0].cpu()
            shown = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
            seen &= shown if bool(shown.diagonal().all()) else ~shown  # MPT's says what is hidden
        found = plain.attention(weights, seen, learned_sink=self._sinks is not None and bool(self._sinks[number]))
        found |= self._compared(("attention",), number, plain.pairs(weights, seen))
        assert layer.attn_out is not None
        projection = self._model.get_submodule(layer.attn_out)
        if isinstance(projection.weight, Tensor):
            weight = projection.weight.detach().cpu()
            weight = weight.T if type(projection).__name__ == "Conv1D" else weight
            found["attn_value_norm"] = plain.head_writes(self._kept["flow"], weight, len(weights))
        return found


_READ = {"block": "x", "last": "a", "out": "flow"}  # role of a module -> what is read of its input


def _paths(block: str, layer: LayerSites) -> dict[str, str]:
    """Role of a module in this replay -> its path."""
    sites = {"attn": layer.attn_write, "mlp": layer.mlp_write, "last": layer.neurons, "gate": layer.shared_gate}
    paths = {"block": block, **{role: site.module for role, site in sites.items() if site is not None}}
    if layer.attn_out is not None:
        paths |= {"out": layer.attn_out, "attention": layer.attn_out.rpartition(".")[0]}
    return paths if layer.experts is None else {**paths, "experts": layer.experts.module}


def _experts_of(recorded: Mapping[str, np.ndarray]) -> Tensor:
    """The recorded peaks' experts, −1 in models without any."""
    experts = recorded.get("peak_expert")
    return torch.from_numpy(np.full_like(recorded["peak_neuron"], -1) if experts is None else experts).long()
