"""The model of a trace runs over its prompts again: their batches, what is recorded anew, how near that is to the trace."""  # noqa: E501

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from stratoscope import defaults, names
from stratoscope.analysis.diff.floor import dtype_of, weights_of
from stratoscope.errors import InputError
from stratoscope.model.devices import input_device
from stratoscope.model.from_object import given_model
from stratoscope.model.load import LoadedModel, load_model
from stratoscope.model.search.find import find_sites
from stratoscope.progress import Progress
from stratoscope.recorder.input.batches import Batch, GivenTokens, make_batch
from stratoscope.recorder.input.grouping import batching_of
from stratoscope.recorder.observe import Observer
from stratoscope.trace.prompts import Prompts

_PROBE_TOKENS = 64  # on which the sites are found
Arrays = dict[str, np.ndarray]


def model_of(
    dataset: xr.Dataset, model: str | os.PathLike[str] | nn.Module, tokenizer: Any, progress: Progress
) -> LoadedModel:
    """The model that a trace was recorded of, in the dtype of the trace.

    Raises
    ------
    InputError
        It is another one, or the trace is not of whole prompts that a model has seen.
    ModelError
        It cannot be loaded.
    """
    if dataset.attrs.get("source") != names.REAL:
        raise InputError("it was recorded of no model", where="trace", fix="Give a trace that `capture` recorded.")
    if not Prompts(dataset).whole:
        fix = "Give the whole trace, or one prompt of it (`stratoscope.prompt`)."
        raise InputError("some of its tokens were cut, and a model runs over whole prompts", where="trace", fix=fix)
    if isinstance(model, nn.Module):
        loaded = given_model(model, tokenizer)
    else:
        loaded = load_model(os.fspath(model), dtype=dtype_of(dataset) or None, progress=progress)
    if loaded.identity["weights_sha256"] != weights_of(dataset):
        raise InputError(
            "this is not the model that the trace was recorded of: its weights are others",
            where="model",
            fix="Give the model that the trace names (`stratoscope info`).",
        )
    return loaded


class Rerun:
    """A model and the prompts of a trace, over which it runs again and again.

    Parameters
    ----------
    loaded, dataset
        The model, and its trace.
    quantities
        What is recorded anew: of these what the trace holds, along tokens.
    most_prompts
        How many prompts at most, the first of the trace.

    Attributes
    ----------
    prompts
        Indices of the prompts.
    tokens
        What each was given.
    places
        Where these tokens stand on the token axis, prompt after prompt.
    starts
        Where the tokens of each prompt begin among them, and where the last ones end.
    agreement
        The largest relative difference of each quantity between the trace and what `compare` was given.
    """

    def __init__(
        self, loaded: LoadedModel, dataset: xr.Dataset, *, quantities: Sequence[str], most_prompts: int
    ) -> None:
        self.model, self.dataset = loaded.model, dataset
        self.quantities = [name for name in quantities if name in dataset]
        plan = dataset.attrs.get("plan") or {}
        self._side = str(plan.get("padding_side") or "right")
        self._batching = batching_of(plan, defaults.BATCH_SIZE)  # as the trace was recorded
        ids, prompts = np.asarray(dataset["token_id"].values), Prompts(dataset)
        given = ~prompts.in_spans(["generated"])
        self.prompts = list(range(min(len(prompts), most_prompts)))
        mine = [int(prompts.starts[one]) + np.flatnonzero(given[prompts.tokens(one)]) for one in self.prompts]
        self.tokens = [GivenTokens(ids[here], prompts.spans[here]) for here in mine]
        self.places = np.concatenate(mine)
        self.starts = np.cumsum([0, *(len(one.ids) for one in self.tokens)])
        self.agreement: dict[str, float] = {}
        self._device = input_device(self.model)
        longest = max(self.tokens, key=lambda one: len(one.ids)).ids[:_PROBE_TOKENS].astype(np.int64)
        self.sites = find_sites(self.model, torch.tensor(longest[None], device=self._device))

    def batches(self) -> Iterator[tuple[list[int], Batch]]:
        """All prompts in the batches of the recording: places in `prompts`, and the batch."""
        for chosen in self._batching.batches([len(one.ids) for one in self.tokens]):
            yield chosen, self.batch(chosen, copies=1)

    def batch(self, chosen: Sequence[int], *, copies: int) -> Batch:
        """A batch of some prompts, each so many times in a row, so that one forward runs it under as many changes."""
        rows = [self.tokens[place] for place in chosen for _ in range(copies)]
        return make_batch(rows, pad_id=0, padding_side=self._side, device=self._device)

    def observer(self) -> Observer:
        """What records `quantities`, while it is open."""
        groups = tuple(dict.fromkeys(names.QUANTITIES[name].group for name in self.quantities))
        return Observer(self.model, self.sites, groups, defaults.TOP_K)

    def record(self, observer: Observer, batch: Batch) -> tuple[Arrays, Tensor]:
        """Run a batch: `quantities` of its tokens, prompt after prompt, in float64; and the logits."""
        arrays, output = observer.record(batch)
        found = {name: arrays[name].astype(np.float64) for name in self.quantities if name in arrays}
        return found, output.logits.detach()

    def compare(self, arrays: Mapping[str, np.ndarray], chosen: Sequence[int]) -> None:
        """Note how far what was recorded of these prompts is from the trace, first tokens left out."""
        places = np.concatenate([np.arange(self.starts[one] + 1, self.starts[one + 1]) for one in chosen])
        keep = np.concatenate([np.arange(len(self.tokens[one].ids)) > 0 for one in chosen])
        for name, values in arrays.items():
            recorded = np.asarray(self.dataset[name].values, np.float64)[self.places[places]]
            size = np.maximum(np.abs(recorded), np.abs(values[keep]))
            apart = np.abs(recorded - values[keep]) / np.where(size > 0, size, 1.0)
            self.agreement[name] = float(np.fmax(self.agreement.get(name, 0.0), np.nanmax(apart, initial=0.0)))
