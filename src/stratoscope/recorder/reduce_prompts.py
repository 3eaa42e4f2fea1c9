"""Group `prompts`: mean, largest and smallest activation of every neuron over a prompt's own words."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.sites import ModelSites, Site
from stratoscope.recorder.batches import Batch
from stratoscope.recorder.reduce import Scratch

_NAMES = ("prompt_mean", "prompt_max", "prompt_min")


class PromptReducer:
    """Signed a_i over a prompt's `user` tokens, its first token left out; NaN where that leaves none.

    Chat templates are 30 of the 56 tokens of a short chat and would dominate the mean; the first token is a sink.
    """

    kinds = frozenset({s.NEURONS})

    def __init__(self, sites: ModelSites, scratch: Scratch) -> None:
        self._sites, self._scratch = sites, scratch
        self._out: dict[str, Tensor] = {}
        self._user_rows: tuple[slice | Tensor, ...] = ()

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        self._user_rows = batch.user_rows
        shape = (len(self._sites.layers), len(batch.user_rows), self._sites.d_ff)
        self._out = {name: self._scratch.by_layer(name, *shape) for name in _NAMES}

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, neurons]."""
        mean, most, least = (self._out[name][site.layer] for name in _NAMES)
        for prompt, rows in enumerate(self._user_rows):
            place = rows if isinstance(rows, slice) else rows.to(tensor.device)
            a = self._scratch.float32("user_rows", tensor[place])
            if not len(a):
                for out in (mean, most, least):
                    out[prompt] = torch.nan
                continue
            torch.mean(a, 0, out=mean[prompt])
            torch.amax(a, 0, out=most[prompt])
            torch.amin(a, 0, out=least[prompt])

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer, prompt, neuron]."""
        return self._scratch.together(self._out)
