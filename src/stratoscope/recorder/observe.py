"""A forward of the model becomes arrays: sites into reductions, padding dropped, every batch checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property, partial
from inspect import signature
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.errors import ModelError
from stratoscope.model import sites as s
from stratoscope.model.hooks import ExpertsHooks, SiteHooks
from stratoscope.model.sites import ModelSites, Site
from stratoscope.names import LOGITS, PROMPT, QUANTITIES
from stratoscope.recorder.attention.full import PairRows
from stratoscope.recorder.attention.reducer import AttentionReducer
from stratoscope.recorder.attention.source_logits import SourceLogits
from stratoscope.recorder.groups import GROUPS
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.lens.lenses import Lenses
from stratoscope.recorder.memory import must_fit
from stratoscope.recorder.reduce.arrivals import Arrivals
from stratoscope.recorder.reduce.mixture import Mixture, MixtureAssembler
from stratoscope.recorder.reduce.products import Products
from stratoscope.recorder.reduce.scratch import Reducer, Scratch
from stratoscope.recorder.reduce.shared import Shared, Turn
from stratoscope.recorder.reduce.streams import Streams
from stratoscope.recorder.reference.lenses import Transport
from stratoscope.recorder.targets.batch import BatchTargets

_OF_MIXTURES = (s.NEURONS, s.SHARED_GATE, s.MLP_OUT)


class Observer:
    """While open, forwards of the model are recorded.

    Parameters
    ----------
    model, sites
        The model and its proved sites.
    record
        Record groups. The residual's is observed with any but norms, which show as well whether a layer is finite.
    top_k
        Peaks per token and layer.
    targets
        Whose logits are explained; None where no group does that.
    lenses
        With which the residual stream is read; None where no group does that.

    Attributes
    ----------
    sites_per_forward : int
        Sites that every forward is checked to pass exactly once.
    streams : Streams
        Where the rows of streamed quantities go.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: ModelSites,
        record: Collection[str],
        top_k: int,
        targets: BatchTargets | None = None,
        lenses: Lenses | None = None,
    ) -> None:
        groups = [group for group in GROUPS.values() if group.observed(record)]
        self._model, self._sites, self._targets, self._lenses = model, sites, targets, lenses
        self._devices = sites.devices(model)
        self._scratch = scratch = Scratch(self._devices[0], self._devices)
        self._arrivals = Arrivals()
        pairs = [pair for group in groups for pair in group.pairs]
        self._products = Products(pairs, len(sites.layers), sites.d_model, scratch)
        self.streams = Streams([name for group in groups for name in group.streams(sites)], len(sites.layers))
        room = (scratch, self._products, self.streams, self._arrivals)
        self._turn = Turn()
        shared = Shared(model, sites, frozenset(record), top_k, *room, targets, self._turn, lenses)
        self._reducers = [reducer for group in groups for reducer in group.reducers(shared)]
        self._reducers += [SourceLogits(shared)] if targets is not None and LOGITS in record else []
        self._watching = [reducer for reducer in self._reducers if isinstance(reducer, AttentionReducer)]
        self._for_kind: defaultdict[str, list[Reducer]] = defaultdict(list)
        for reducer in self._reducers:
            for kind in reducer.kinds:
                self._for_kind[kind].append(reducer)
        experts = any(group.sees_experts for group in groups)
        self._mixtures = MixtureAssembler(model, sites if experts else None, self._receive_mixture)
        more = dict.fromkeys(site for group in groups for site in group.more_sites(shared))
        self._hooks = SiteHooks(model, [*(site for site in sites if self._wants(site)), *more], self._receive)
        self._experts = ExpertsHooks(self._mixtures.modules(model), self._mixtures.routed)
        attention = any(group.sees_attention for group in groups)
        self._attention = (
            _attention_observer(model, sites, PairRows(self.streams, self._arrivals)) if attention else None
        )
        self._open = ExitStack()
        self.sites_per_forward = len(self._hooks) + len(self._mixtures)

    def __enter__(self) -> Observer:
        with ExitStack() as stack:
            stack.enter_context(self._experts)  # first: a mixture's output may be that of its experts module
            stack.enter_context(self._hooks)
            for part in (*([self._attention] if self._attention else []), *self._watching):
                stack.enter_context(part)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    @property
    def changes_implementation(self) -> list[str]:
        """What runs differently while observed, such as another implementation of the experts."""
        what = self._attention.changes_implementation if self._attention is not None else None
        return [what] if what else []

    @property
    def limits(self) -> list[str]:
        """What of that could not be recorded, in sentences."""
        return list(dict.fromkeys(limit for part in self._watching for limit in part.limits))

    @property
    def transport(self) -> Transport | None:
        """What lenses make of residuals; None where none are read."""
        return None if self._lenses is None else self._lenses.transported

    @property
    def records_attention(self) -> bool:
        """Whether attention is observed."""
        return self._attention is not None

    @property
    def attention_checked(self) -> dict[str, Any]:
        """What the attention observer has compared so far: row sums, outputs; empty where it recorded nothing."""
        return {} if self._attention is None else dict(self._attention.checked)

    def record(self, batch: Batch, **options: Any) -> tuple[dict[str, np.ndarray], Any]:
        """Run a batch.

        Parameters
        ----------
        batch
            The padded prompts.
        **options
            Further arguments of the model's forward.

        Returns
        -------
        arrays, output
            Name of each quantity to its values, [token or prompt, layer or depth, …] without padding, and what the
            model returned.

        Raises
        ------
        CaptureError
            A site was not passed exactly once, or there is not enough memory.
        """
        self.prepare(batch)
        self.begin(batch)
        output = forward(self._model, batch, **options)
        return self.take(batch, output) | self.take_attention(batch.mask.bool()), output

    def prepare(self, batch: Batch) -> None:
        """Choose the targets of a batch, which may take a forward of its own; before the first that is observed."""
        if self._targets is None:
            return
        with self.aside() if self._targets.need_a_forward else nullcontext():
            self._targets.begin(batch)

    # --- forwards that somebody else runs, as `generate` does -------------------------------------------------------

    def begin(self, batch: Batch, *, goes_on: bool = False) -> None:
        """Observe the next forward; `goes_on`: its tokens follow those of the forwards before, with a cache."""
        self.streams.begin(batch, goes_on=goes_on)
        self._turn.goes_on = goes_on
        if self._targets is not None:
            self._targets.answers_begin = not goes_on
        if self._lenses is not None:
            self._lenses.begin(len(batch.input_ids), goes_on=goes_on)
        self._products.begin(batch.rows)
        for reducer in self._reducers:
            reducer.begin(batch)
        if self._attention is not None:
            announce = self._attention.extend if goes_on else self._attention.begin
            announce(batch.mask.bool())

    def take(self, batch: Batch, output: Any) -> dict[str, np.ndarray]:
        """The quantities of the forward since `begin`, as `record` gives them, but for those of attention.

        `output`: what the model returned.
        """
        if self._lenses is not None:
            self._lenses.take(output)
        self._hooks.expect_once()
        self._experts.expect_once()
        results = {name: value for reducer in self._reducers for name, value in reducer.result().items()}
        arrays = self._arrived({name: _by_token(name, value, batch.valid) for name, value in results.items()})
        return arrays if self._targets is None else arrays | self._targets.ids()

    def take_attention(self, valid: Tensor) -> dict[str, np.ndarray]:
        """What all forwards since the last that did not go on showed of attention.

        `valid`: bool, shape (prompts, tokens of all those forwards), which tokens are no padding.
        """
        if self._attention is None:
            return {}
        rows = valid.reshape(-1).nonzero()[:, 0]
        taken = self._attention.take()
        return self._arrived({name: _by_token(name, _stacked(layers), rows) for name, layers in taken.items()})

    def _arrived(self, results: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Everything on the host, what was streamed included: the one time that it waits for a forward."""
        found: dict[str, Tensor] = {}
        for name, value in results.items():
            self._arrivals.bring(value, partial(found.__setitem__, name))
        self._arrivals.wait()
        return {name: value.numpy() for name, value in found.items()}

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Forwards in here are not observed."""
        self._open.close()
        try:
            yield
        finally:
            self.__enter__()

    @cached_property
    def undefined(self) -> dict[str, list[int]]:
        """Name to the layers where a quantity may be NaN by its definition: the block lacks it, or it is of experts."""
        groups = GROUPS.values()
        return {name: layers for group in groups for name, layers in group.undefined(self._sites).items()}

    def _wants(self, site: Site) -> bool:
        return bool(self._for_kind[site.kind]) or (site.layer in self._mixtures and site.kind in _OF_MIXTURES)

    def forget(self) -> None:
        """Let go of what a forward that failed has left: sites counted, and room made for its batch."""
        for part in (
            self._hooks,
            self._experts,
            self._mixtures,
            self._products,
            self._arrivals,
            *self._reducers,
            *([self._attention] if self._attention else []),
        ):
            part.forget()
        self._scratch.clear()

    def _receive(self, site: Site, tensor: Tensor) -> None:
        device = self._devices[site.layer]
        if tensor.device != device:  # where another one hands it over
            tensor = tensor.to(device)
        if site.kind in _OF_MIXTURES and site.layer in self._mixtures:
            self._mixtures.receive(site, tensor)
            if site.kind != s.MLP_OUT:
                return
        for reducer in self._for_kind[site.kind]:
            reducer.receive(site, tensor)
        if site.kind == s.BLOCK_OUT:
            self._products.end_of_block(site.layer)

    def _receive_mixture(self, layer: int, mixture: Mixture) -> None:
        for reducer in self._reducers:
            reducer.receive_mixture(layer, mixture)


def forward(model: nn.Module, batch: Batch, **options: Any) -> Any:
    """One forward without gradients and without a cache; OutOfMemory when it does not fit into memory."""
    # not inference mode, whose tensors cannot tell whether they were overwritten
    with memory_guard(batch), torch.no_grad():
        return model(**batch.inputs(), use_cache=False, **options)


def memory_guard(batch: Batch) -> AbstractContextManager[None]:
    """OutOfMemory when what runs inside does not fit into memory."""
    prompts, length = batch.input_ids.shape
    return must_fit(f"a batch of {prompts} prompts of up to {length} tokens", fix="Use a smaller --batch-size.")


def last_logits_only(model: nn.Module, last_tokens: int = 1) -> dict[str, int]:
    """The option that spares the vocabulary's share of a forward, where the model has it: nobody reads more logits.

    `last_tokens`: of how many they are; 0 = of all.
    """
    return {"logits_to_keep": last_tokens} if "logits_to_keep" in signature(model.forward).parameters else {}


def _attention_observer(model: nn.Module, sites: ModelSites, pairs: PairRows) -> Any:
    from stratoscope.recorder.attention.observer import AttentionObserver

    projections = [None if layer.attn_out is None else model.get_submodule(layer.attn_out) for layer in sites.layers]
    if any(weight.is_meta for projection in projections if projection for weight in projection.parameters()):
        raise ModelError(
            "attention cannot be recorded of layers whose weights wait on disk or in memory",
            where=type(model).__name__,
            fix="Record without the group attention, or spread the model over devices that hold it.",
        )
    return AttentionObserver(model, len(sites.layers), projections, pairs)


def _stacked(layers: list[Tensor]) -> Tensor:
    """Per-layer [prompt, position, head] as [layer, rows, head]."""
    return torch.stack([layer.flatten(0, 1).to(layers[0].device) for layer in layers])


def _by_token(name: str, value: Tensor, valid: Tensor) -> Tensor:
    """Drop padding and put the token (or prompt) first; always a copy, since what is reduced into is used again."""
    if QUANTITIES[name].dims[0] != PROMPT and len(valid) < value.shape[1]:
        value = value.index_select(1, valid.to(value.device))
    if value.ndim == 1:  # one number a prompt
        return value.clone()
    return value.transpose(0, 1).clone(memory_format=torch.contiguous_format)
