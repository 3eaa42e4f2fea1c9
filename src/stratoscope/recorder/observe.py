"""A forward of the model becomes arrays: sites into reductions, padding dropped, every batch checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from contextlib import ExitStack
from inspect import signature
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError
from stratoscope.model.hooks import SiteHooks
from stratoscope.model.sites import ModelSites, Site
from stratoscope.names import ATTENTION, PEAKS, PROMPT, PROMPTS, QUANTITIES
from stratoscope.recorder.batches import Batch
from stratoscope.recorder.reduce import Reducer, Scratch
from stratoscope.recorder.reduce_norms import NormReducer
from stratoscope.recorder.reduce_peaks import PeakReducer
from stratoscope.recorder.reduce_prompts import PromptReducer


class Observer:
    """While open, forwards of the model are recorded.

    Parameters
    ----------
    model, sites
        The model and its proved sites.
    record
        Record groups. The residual's norms come with every one of them: they show whether a layer is finite.
    top_k
        Peaks per token and layer.

    Attributes
    ----------
    sites_per_forward : int
        Sites that every forward is checked to pass exactly once.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, record: Collection[str], top_k: int) -> None:
        self._model = model
        scratch = Scratch(next(model.parameters()).device)
        self._reducers: list[Reducer] = [NormReducer(sites, record, scratch)]
        if PEAKS in record:
            self._reducers.append(PeakReducer(model, sites, top_k, scratch))
        if PROMPTS in record:
            self._reducers.append(PromptReducer(sites, scratch))
        self._for_kind: defaultdict[str, list[Reducer]] = defaultdict(list)
        for reducer in self._reducers:
            for kind in reducer.kinds:
                self._for_kind[kind].append(reducer)
        self._hooks = SiteHooks(model, [site for site in sites if self._for_kind[site.kind]], self._receive)
        self._attention = _attention_observer(model, sites) if ATTENTION in record else None
        self._open = ExitStack()
        self.sites_per_forward = len(self._hooks)

    def __enter__(self) -> Observer:
        with ExitStack() as stack:
            stack.enter_context(self._hooks)
            if self._attention is not None:
                stack.enter_context(self._attention)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    @property
    def changes_implementation(self) -> list[str]:
        """What runs differently while observed, such as another implementation of the experts."""
        return [what for part in self._parts if (what := getattr(part, "changes_implementation", None))]

    @property
    def records_attention(self) -> bool:
        """Whether the group attention is recorded."""
        return self._attention is not None

    @property
    def limits(self) -> list[str]:
        """What could not be observed in the forwards so far, in sentences."""
        return [limit for part in self._parts for limit in getattr(part, "limits", ())]

    @property
    def attention_checked(self) -> dict[str, Any]:
        """What the attention observer has compared so far: row sums, outputs; empty where it recorded nothing."""
        return dict(getattr(self._attention, "checked", {}))

    @property
    def _parts(self) -> list[Any]:
        return [part for part in (self._attention, *self._reducers) if part is not None]

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
        for reducer in self._reducers:
            reducer.begin(batch)
        if self._attention is not None:
            self._attention.begin(batch.mask.bool())
        output = forward(self._model, batch, **options)
        self._hooks.expect_once()
        results = {name: value for reducer in self._reducers for name, value in reducer.result().items()}
        arrays = {name: _by_token(name, value, batch.valid) for name, value in results.items()}
        if self._attention is not None:
            taken = self._attention.take()
            arrays |= {name: _by_token(name, _stacked(layers), batch.valid) for name, layers in taken.items()}
        return arrays, output

    def _receive(self, site: Site, tensor: Tensor) -> None:
        for reducer in self._for_kind[site.kind]:
            reducer.receive(site, tensor)


def forward(model: nn.Module, batch: Batch, **options: Any) -> Any:
    """One forward without gradients and without a cache; CaptureError when it does not fit into memory."""
    try:
        with torch.no_grad():  # not inference mode, whose tensors cannot tell whether they were overwritten
            return model(**batch.inputs(), use_cache=False, **options)
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
    prompts, length = batch.input_ids.shape
    raise CaptureError(
        f"a batch of {prompts} prompts of up to {length} tokens does not fit into memory",
        fix="Use a smaller --batch-size",
    )


def last_logits_only(model: nn.Module) -> dict[str, int]:
    """The option that spares the vocabulary's share of a forward, where the model has it: nobody reads the logits."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}


def _attention_observer(model: nn.Module, sites: ModelSites) -> Any:
    from stratoscope.recorder.attention import AttentionObserver

    projections = [model.get_submodule(layer.attn_out) for layer in sites.layers]
    return AttentionObserver(model, len(sites.layers), projections)


def _stacked(layers: list[Tensor]) -> Tensor:
    """Per-layer [prompt, position, head] as [layer, rows, head]."""
    return torch.stack([layer.flatten(0, 1) for layer in layers])


def _by_token(name: str, value: Tensor, valid: Tensor) -> np.ndarray:
    """Drop padding and put the token (or prompt) first; always a copy, since what is reduced into is used again."""
    if QUANTITIES[name].dims[0] != PROMPT and len(valid) < value.shape[1]:
        value = value.index_select(1, valid)
    return value.transpose(0, 1).clone(memory_format=torch.contiguous_format).cpu().numpy()
