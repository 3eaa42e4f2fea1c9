"""The model run once more, and everything that is recorded computed anew beside the observation.

Nothing of the observation is used but the paths of the modules: other hooks, whole tensors, the formulas of `plain`,
and for the residual stream Hugging Face's own `hidden_states` (whose last entry is after the final norm, so the last
depth is what the last block gave). With eager attention the attention weights are the model's own too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stratoscope.model.experts import chosen
from stratoscope.model.hooks import ModuleHooks
from stratoscope.model.identity import attention_implementation
from stratoscope.model.sites import LayerSites, ModelSites
from stratoscope.names import LOGITS, QUANTITIES
from stratoscope.recorder.groups import group_of, groups_of
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import forward
from stratoscope.recorder.reference.differences import Replayed
from stratoscope.recorder.reference.explained import Explained
from stratoscope.recorder.reference.lenses import ShownLenses, Transport
from stratoscope.recorder.reference.shown import ShownBlock, ShownEnds


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
    transport
        What lenses make of residuals, where what they read was recorded.
    **options
        Further arguments of the model's forward.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: ModelSites,
        batch: Batch,
        recorded: Mapping[str, np.ndarray],
        transport: Transport | None = None,
        **options: Any,
    ) -> None:
        self._model, self._sites, self._batch, self._options = model, sites, batch, options
        self._recorded = recorded
        self._groups = groups_of(QUANTITIES[name].group for name in recorded)
        alone = len(batch.input_ids) == 1 and len(batch.valid) == batch.rows
        self._with_attention = alone and any(group_of(name).shown_by_eager(name) for name in recorded)
        self._valid = batch.valid.cpu()
        rows = torch.arange(batch.rows)
        own = [rows[user if isinstance(user, slice) else user.cpu()] for user in batch.user_rows]
        self._own = [torch.isin(self._valid, one) for one in own]
        lengths = batch.mask.sum(1).tolist()
        explains = any(group.name == LOGITS for group in self._groups)
        self._explained = Explained(model, sites, recorded, lengths, batch.answers) if explains else None
        self._lenses = None
        if transport is not None and "lens_token" in recorded:
            self._lenses = ShownLenses(model, sites, recorded, lengths, transport)
        self._kept: dict[str, Tensor] = {}
        self._first: Tensor  # what went into the first block
        self._found: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)

    def run(self) -> Replayed:
        """The quantities that can be computed from what the model shows; others are left out."""
        places = {
            f"{number} {role}": self._model.get_submodule(path)
            for number, layer in enumerate(self._sites.layers)
            for role, path in _paths(f"{self._sites.blocks}.{number}", layer).items()
        }
        shown = ProductsShown(len(self._valid), self._applied) if self._with_attention else nullcontext()
        with _leaving_no_hooks(self._model), ModuleHooks(places, before=self._before, after=self._after), shown:
            output = forward(self._model, self._batch, output_hidden_states=True, **self._options)
        states = (output.hidden_states or ())[: len(self._sites.layers)]
        # Mamba's begin after the first block: then what went into each block, and what left it, has to do
        if len(states) == len(self._sites.layers) and self._rows(states[0]).equal(self._first):
            for group in self._groups:
                self._found |= group.replayed_stream(chain(map(self._rows, states), [self._kept["block"]]))
        ends = ShownEnds(self._first, self._kept["block"], self._explained, self._lenses)
        for group in self._groups:
            self._found |= group.replayed_end(self._found, ends)
        return self._found

    def _rows(self, tensor: Tensor) -> Tensor:
        """A copy as [token, width], without padding."""
        return tensor.detach().reshape(-1, tensor.shape[-1]).cpu()[self._valid]

    def _applied(self, weights: Tensor, values: Tensor) -> None:
        """Weights [.., query, key] multiply something; the last before the output projection are attention's."""
        self._kept |= {"applied": weights, "values": values}

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
            self._block(int(number))
            self._kept = {"block": self._kept["block"]}

    def _keep(self, name: str, found: list[Tensor]) -> None:
        if found:
            self._kept[name] = found[0]

    def _block(self, number: int) -> None:
        block = ShownBlock(
            self._model, self._sites, number, self._kept, self._recorded, self._own, self._explained, self._lenses
        )
        self._first = block.x if number == 0 else self._first
        for group in self._groups:
            for name, by_depth in group.replayed_stream([block.x, self._kept["block"]]).items():
                self._found[name] |= {number + depth: value for depth, value in by_depth.items()}
            for name, value in group.replayed(block).items():
                self._found[name][number] = value


class ProductsShown(TorchFunctionMode):
    """While open, `receive` gets both factors of each product whose first is [.., tokens, tokens]."""

    def __init__(self, tokens: int, receive: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self._tokens, self._receive = tokens, receive

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, then look at it."""
        answer = func(*args, **(kwargs or {}))
        if func in _PRODUCTS and len(args) > 1 and args[0].ndim > 2 and args[0].shape[-2:] == 2 * (self._tokens,):
            self._receive(args[0].detach(), args[1].detach())
        return answer


_PRODUCTS = {torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm}


_READ = {"block": "x", "last": "a", "out": "flow"}  # role of a module -> what is read of its input


def _paths(block: str, layer: LayerSites) -> dict[str, str]:
    """Role of a module in this replay -> its path."""
    sites = {"attn": layer.attn_write, "mlp": layer.mlp_write, "last": layer.neurons, "gate": layer.shared_gate}
    paths = {"block": block, **{role: site.module for role, site in sites.items() if site is not None}}
    if layer.attn_out is not None:
        paths |= {"out": layer.attn_out, "attention": layer.attn_out.rpartition(".")[0]}
    return paths if layer.experts is None else {**paths, "experts": layer.experts.module}
