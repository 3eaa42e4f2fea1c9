"""Total effects integrated on the way from the baseline to what stands there, one block's MLP or attention at a time.

At the midpoints of N equal steps everything of that place is set between baseline and value, at all tokens, and ∂y/∂ of
it is taken there. Times the difference, their mean is the effect; summed over the place it is what really happens when
the whole of it is set to its baseline, the better the more steps there are. Blocks in front of the place are not
computed again: what they gave is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model import sites as s
from stratoscope.model.experts import implementation_of, row_of
from stratoscope.model.gradient_hooks import ForwardHooks
from stratoscope.model.heads import HEADS
from stratoscope.model.hooks import ExpertsHooks, ReplacingHooks
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.effects.baseline import Baseline
from stratoscope.recorder.effects.gradients import EXPERTS, Gradients, Receive, SiteGradient, Values, differentiable
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import forward, last_logits_only, memory_guard

Writes = Mapping[tuple[int, str], "Tensor | float"]


def integrated_kinds(gradients: Gradients) -> set[tuple[int, str]]:
    """The places that are integrated: of a block whose write is normed the write, and neither neurons nor heads.

    Setting all of those nearer to zero together does not change what the norm gives: their sum has no path.
    """
    kinds = gradients.kinds
    normed_mlp = {layer for layer, kind in kinds if kind == s.MLP_WRITE}
    normed_attention = {layer for layer, kind in kinds if kind == s.ATTN_WRITE}
    return {
        (layer, kind)
        for layer, kind in kinds
        if not (kind in (s.NEURONS, EXPERTS) and layer in normed_mlp)
        and not (kind == HEADS and layer in normed_attention)
    }


class PathIntegral:
    """A model whose effects are integrated.

    Parameters
    ----------
    model, sites, gradients
        The model, its proved sites, and where gradients of it are read.
    baseline, writes
        Where the path begins.
    steps
        How many points of it are looked at.
    """

    def __init__(
        self, model: nn.Module, sites: ModelSites, gradients: Gradients, baseline: Baseline, writes: Writes, steps: int
    ) -> None:
        self._model, self._sites, self._baseline, self._writes, self._steps = model, sites, baseline, writes, steps
        self._places = {(site.layer, site.kind): site for site in gradients.places}
        self.kinds = integrated_kinds(gradients)
        self._blocks: dict[str, nn.Module] = dict(model.get_submodule(sites.blocks).named_children())

    def run(self, batch: Batch, values: Values, receive: Receive) -> None:
        """Integrate the effects of a batch; `receive` is called once for every place and target."""
        outputs = self._outputs(batch)
        for layer in range(len(self._sites.layers)):
            for kinds in ((s.NEURONS, EXPERTS), (s.MLP_WRITE,), (HEADS,), (s.ATTN_WRITE,)):
                here = [kind for kind in kinds if (layer, kind) in self.kinds]
                if here:
                    self._integrate(batch, values, receive, layer, here, outputs)

    def _outputs(self, batch: Batch) -> dict[str, Any]:
        """What each block gave; empty where going on from it does not give the model's own logits."""
        kept: dict[str, Any] = {}

        def keep(name: str, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            kept[name] = run(*args, **kwargs)
            return kept[name]

        options = last_logits_only(self._model)
        with ForwardHooks(self._blocks, keep):
            logits = forward(self._model, batch, **options).logits[:, -1]
        with self._from(len(self._sites.layers) // 2, kept):
            again = forward(self._model, batch, **options).logits[:, -1]
        return kept if torch.equal(logits, again) else {}

    def _from(self, layer: int, outputs: Mapping[str, Any]) -> ForwardHooks:
        """While open, blocks before this one give what they gave."""
        earlier = [name for name in self._blocks if name in outputs and int(name) < layer]

        def given(name: str, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            return outputs[name]

        return ForwardHooks({name: self._blocks[name] for name in earlier}, given)

    def _integrate(
        self,
        batch: Batch,
        values: Values,
        receive: Receive,
        layer: int,
        kinds: Sequence[str],
        outputs: Mapping[str, Any],
    ) -> None:
        totals: dict[tuple[str, int], SiteGradient] = {}
        for step in range(self._steps):
            for one in self._at(batch, values, layer, kinds, (step + 0.5) / self._steps, outputs):
                known = totals.get((one.kind, one.target))
                gradient = one.gradient.float() / self._steps
                totals[one.kind, one.target] = replace(
                    one, gradient=gradient if known is None else known.gradient + gradient
                )
        for one in totals.values():
            receive(one)

    def _at(
        self,
        batch: Batch,
        values: Values,
        layer: int,
        kinds: Sequence[str],
        share: float,
        outputs: Mapping[str, Any],
    ) -> list[SiteGradient]:
        """The gradients where a place stands at this share of the way."""
        point = _Point(self._sites, self._baseline, self._writes, layer, share)
        sites = [(self._places[layer, kind], point.replaced(kind)) for kind in kinds if kind != EXPERTS]
        experts = self._sites.layers[layer].experts
        modules = {experts.module: self._model.get_submodule(experts.module)} if EXPERTS in kinds and experts else {}
        with memory_guard(batch), differentiable(self._model), ExitStack() as stack:
            hooks = stack.enter_context(ReplacingHooks(self._model, sites))
            of_experts = ExpertsHooks(modules, point.routed, point.experts(modules))
            stack.enter_context(of_experts)
            stack.enter_context(self._from(layer, outputs))
            output = self._model(**batch.inputs(), use_cache=False, **last_logits_only(self._model))
            hooks.expect_once()
            of_experts.expect_once()
            y = values(output.logits[:, -1])
            leaves = point.leaves
            seen: list[SiteGradient] = []
            for target in range(y.shape[1]):
                keep = target + 1 < y.shape[1]
                found = torch.autograd.grad(y[:, target].sum(), leaves, retain_graph=keep, allow_unused=True)
                gradients = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
                seen += point.seen(gradients, target)
            return seen


class _Point:
    """One place of a block set to a share of the way from its baseline to its value, while one forward runs."""

    def __init__(self, sites: ModelSites, baseline: Baseline, writes: Writes, layer: int, share: float) -> None:
        self._sites, self._baseline, self._writes, self._layer, self._share = sites, baseline, writes, layer, share
        self.leaves: list[Tensor] = []
        self._whole: dict[str, tuple[Tensor, int]] = {}  # value of a place, and which leaf it is
        self._parts: list[tuple[Tensor, int]] = []  # of experts
        self._call: Any = None

    def replaced(self, kind: str) -> Callable[[Tensor], Tensor]:
        """What stands in the place of a site's rows."""

        def replace_rows(rows: Tensor) -> Tensor:
            leaf = self._between(rows.detach(), self._start(kind))
            self._whole[kind] = rows.detach(), len(self.leaves) - 1
            return leaf

        return replace_rows

    def experts(self, modules: Mapping[str, nn.Module]) -> Callable[[str, Tensor, Tensor, int], Tensor]:
        """What stands in the place of the neurons of chosen experts."""

        def replace_rows(path: str, choice: Tensor, computed: Tensor, before: int) -> Tensor:
            start: Tensor | float | None = None
            block, given = self._sites.layers[self._layer], self._baseline.values.neurons.get(self._layer)
            experts = block.experts
            if given is not None and experts is not None:
                flat = row_of(choice, self._order_of(implementation_of(modules[path])))[before : before + len(computed)]
                by_expert = given[0, : block.expert_neurons].view(experts.count, experts.width)
                start = by_expert.to(computed.device)[choice.reshape(-1)[flat]]
            leaf = self._between(computed.detach(), start)
            self._parts.append((computed.detach(), len(self.leaves) - 1))
            return leaf

        return replace_rows

    def routed(self, path: str, call: Any) -> None:
        """Take what the call of the experts was."""
        self._call = call

    def seen(self, gradients: Sequence[Tensor], target: int) -> Iterator[SiteGradient]:
        """What gradients of the leaves are gradients of."""
        for kind, (value, number) in self._whole.items():
            yield SiteGradient(self._layer, kind, target, value, gradients[number])
        if self._call is not None:
            order = self._order_of(self._call.implementation)
            values, grads = (
                replace(self._call, rows=torch.cat(parts)).neurons(order)
                for parts in (
                    [value for value, _ in self._parts],
                    [gradients[number] for _, number in self._parts],
                )
            )
            yield SiteGradient(
                self._layer, EXPERTS, target, values, grads, self._call.experts, self._call.weights.detach()
            )

    def _between(self, value: Tensor, start: Tensor | float | None) -> Tensor:
        if start is None:
            point = value * self._share
        else:
            begin = start.to(value.device, value.dtype) if isinstance(start, Tensor) else start
            point = begin + (value - begin) * self._share
        leaf = point.detach().requires_grad_()
        self.leaves.append(leaf)
        return leaf

    def _start(self, kind: str) -> Tensor | float | None:
        block = self._sites.layers[self._layer]
        if kind == s.NEURONS:
            given = self._baseline.values.neurons.get(self._layer)
            if given is None or block.experts is None:
                return given
            return given[:, block.expert_neurons :]
        if kind == HEADS:
            return self._baseline.values.heads.get(self._layer)
        return self._writes.get((self._layer, kind))

    def _order_of(self, implementation: str) -> str:
        experts = self._sites.layers[self._layer].experts
        assert experts is not None
        return experts.order_under(implementation, self._layer)
