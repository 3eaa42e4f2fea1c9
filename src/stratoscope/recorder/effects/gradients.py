"""One forward with gradients, and one backward a target: ∂y/∂a of every neuron and head, a layer at a time.

Nothing is trained: parameters ask for no gradients while this runs, and none is left on anything. The graph begins in
front of the first block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from stratoscope.errors import CaptureError, first_line, is_out_of_memory
from stratoscope.model import sites as s
from stratoscope.model.experts import Routed
from stratoscope.model.gradient_hooks import ForwardHooks, GradientHooks
from stratoscope.model.heads import HEADS, Heads, heads_of, normed_behind
from stratoscope.model.sites import ModelSites, Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import last_logits_only, memory_guard

EXPERTS = "neurons of the chosen experts"

Values = Callable[[Tensor], Tensor]  # logits [prompt, vocabulary] → what is explained, [prompt, target]


@dataclass(frozen=True, eq=False)
class SiteGradient:
    """What one backward shows at one place of one block.

    Attributes
    ----------
    layer, kind
        The block, and the place: `sites.NEURONS`, `EXPERTS`, `heads.HEADS`, or a write that stands behind a norm or
        that is of no attention, `sites.MLP_WRITE` and `sites.ATTN_WRITE`.
    target
        Which of the targets.
    value, gradient
        What stood there, and ∂y/∂ of it, in the model's dtype: [row, width], of experts [row, choice, width].
    experts, weights
        Of experts, which were chosen, and the router's weights of them, [row, choice].
    """

    layer: int
    kind: str
    target: int
    value: Tensor
    gradient: Tensor
    experts: Tensor | None = None
    weights: Tensor | None = None


Receive = Callable[[SiteGradient], None]


class Gradients:
    """A model whose forwards are differentiated.

    Parameters
    ----------
    model, sites
        The model, and its proved sites.

    Attributes
    ----------
    heads : tuple of Heads or None
        The heads of each block.
    places : list of Site
        Where gradients are read, those of experts aside.
    """

    def __init__(self, model: nn.Module, sites: ModelSites) -> None:
        self._model, self._sites = model, sites
        self.heads: tuple[Heads | None, ...] = tuple(
            heads_of(model, sites, layer) for layer in range(len(sites.layers))
        )
        self.places = [site for number in range(len(sites.layers)) for site in self._read(number)]
        self._experts = {
            layer.experts.module: (number, layer.experts) for number, layer in enumerate(sites.layers) if layer.experts
        }

    def run(
        self,
        batch: Batch,
        values: Values,
        receive: Receive,
        *,
        recompute: bool = False,
        before: Callable[[Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run a batch once forward and, target by target, backward.

        Parameters
        ----------
        batch
            The prompts; each ends in the last column.
        values
            What is explained.
        receive
            Called once for every place, in every backward; from the last block to the first.
        recompute
            Whether a block's tensors are let go of after the forward and computed again in every backward: less memory,
            more time.
        before
            Called with the logits before the first backward.

        Returns
        -------
        y, logits
            What is explained, [prompt, target] float64, and the model's logits at the last column.

        Raises
        ------
        CaptureError
            The model's code cannot be differentiated, or there is not enough memory.
        """
        seen: set[tuple[int, str]] = set()
        target = 0

        def arrived(place: Site | str, value: Tensor | Routed, gradient: Tensor) -> None:
            found = self._found(place, value, gradient, target)
            seen.add((found.layer, found.kind))
            receive(found)

        modules = {path: self._model.get_submodule(path) for path in self._experts}
        first = self._sites.layers[0]
        hooks = GradientHooks(self._model, (first.block_in, first.block_out), self.places, modules, arrived)
        with memory_guard(batch), differentiable(self._model), ExitStack() as stack:
            stack.enter_context(hooks)
            if recompute:
                stack.enter_context(self._recomputing())
            with hooks.forward(keeps=not recompute):
                output = self._model(**batch.inputs(), use_cache=False, **last_logits_only(self._model))
            logits = output.logits[:, -1]
            y = values(logits)
            if before is not None:
                before(logits.detach())
            leaf = hooks.leaf
            if leaf is None or not y.requires_grad:
                raise _no_gradients("its logits do not depend, as torch sees it, on what enters its first block")
            for target in range(y.shape[1]):
                torch.autograd.grad(y[:, target].sum(), leaf, retain_graph=target + 1 < y.shape[1], allow_unused=True)
                for layer, kind in self.kinds - seen:  # nothing of it reaches y
                    receive(self._nothing(layer, kind, target, batch.rows))
                seen.clear()
            return y.detach(), logits.detach()

    # --- places -----------------------------------------------------------------------------------------------------

    def _read(self, number: int) -> Iterator[Site]:
        """Where gradients of a block are read."""
        layer, heads = self._sites.layers[number], self.heads[number]
        if layer.neurons is not None:
            yield layer.neurons
        if layer.post_norm and layer.mlp_write is not None:
            yield layer.mlp_write
        if heads is not None:
            yield heads.site
        if layer.attn_write is not None and (heads is None or normed_behind(self._model, self._sites, number)):
            yield layer.attn_write

    @property
    def kinds(self) -> set[tuple[int, str]]:
        """Block and kind of every place that a backward shows."""
        return {(site.layer, site.kind) for site in self.places} | {(n, EXPERTS) for n, _ in self._experts.values()}

    def _found(self, place: Site | str, value: Tensor | Routed, gradient: Tensor, target: int) -> SiteGradient:
        if isinstance(place, Site):
            assert isinstance(value, Tensor)
            width = value.shape[-1]
            return SiteGradient(place.layer, place.kind, target, value.reshape(-1, width), gradient.reshape(-1, width))
        assert isinstance(value, Routed)
        layer, experts = self._experts[place]
        order = experts.order_under(value.implementation, layer)
        arrived = Routed(value.experts, value.weights, gradient, value.output, value.implementation)
        both = value.neurons(order), arrived.neurons(order)
        return SiteGradient(layer, EXPERTS, target, *both, value.experts, value.weights)

    def _nothing(self, layer: int, kind: str, target: int, rows: int) -> SiteGradient:
        """A place that y does not depend on: zeros have no effect, whatever stood there."""
        if kind == EXPERTS:
            experts = self._sites.layers[layer].experts
            assert experts is not None
            none = torch.zeros(rows, experts.choices, experts.width)
            ids = torch.zeros(rows, experts.choices, dtype=torch.int64)
            return SiteGradient(layer, kind, target, none, none, ids, torch.zeros(rows, experts.choices))
        heads, block = self.heads[layer], self._sites.layers[layer]
        width = self._sites.d_model
        if kind == HEADS and heads is not None:
            width = heads.count * heads.width
        elif kind == s.NEURONS:
            width = self._sites.widths[layer] - block.expert_neurons
        none = torch.zeros(rows, width)
        return SiteGradient(layer, kind, target, none, none)

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """While open, what is computed inside a block is not kept for the backward."""
        blocks: Mapping[str, nn.Module] = dict(self._model.get_submodule(self._sites.blocks).named_children())

        def around(name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

        with set_checkpoint_early_stop(False), ForwardHooks(blocks, around):
            yield


_OTHERWISE = "Record without the group effects, or load the model with another attention implementation or in float32."


@contextmanager
def differentiable(model: nn.Module, *, where: str = "effects", fix: str = _OTHERWISE) -> Iterator[None]:
    """While open gradients are computed, but none of a parameter; what cannot be differentiated is said by name.

    `where` and `fix` are those of the CaptureError that says it.
    """
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    except NotImplementedError as error:
        raise _no_gradients(first_line(error), where, fix) from None
    except RuntimeError as error:
        if is_out_of_memory(error) or not any(word in str(error) for word in _NO_BACKWARD):
            raise
        raise _no_gradients(first_line(error), where, fix) from None
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


_NO_BACKWARD = ("derivative for", "not implemented", "does not require grad", "Inference tensors", "backward")


def _no_gradients(why: str, where: str = "effects", fix: str = _OTHERWISE) -> CaptureError:
    return CaptureError(f"the model cannot be differentiated: {why}", where=where, fix=fix)
