"""Group `prompts`: mean, largest and smallest activation of every neuron over a prompt's own words."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.scratch import Layers
from stratoscope.recorder.reduce.shared import Shared

_NAMES = ("prompt_mean", "prompt_max", "prompt_min")


class PromptReducer:
    """Signed a_i over a prompt's `user` tokens, its first token left out; NaN where that leaves none.

    Chat templates are 30 of the 56 tokens of a short chat and would dominate the mean; the first token is a sink. Of an
    expert's neurons only the tokens that are routed to it count. Experts stand one after the other on the neuron axis,
    then a shared expert; narrower blocks are NaN at the end.
    """

    kinds = frozenset({s.NEURONS})

    def __init__(self, shared: Shared) -> None:
        self._sites, self._scratch = shared.sites, shared.scratch
        self._out: dict[str, Layers] = {}
        self._user_rows: tuple[slice | Tensor, ...] = ()

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        self._user_rows = batch.user_rows
        shape = (len(self._sites.layers), len(batch.user_rows), self._sites.d_ff)
        self._out = {name: self._scratch.by_layer(name, *shape) for name in _NAMES}
        for layer, width in enumerate(self._sites.widths):
            if width < self._sites.d_ff:
                for values in self._out.values():
                    values[layer][:, width:] = torch.nan

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, neurons]."""
        self._reduce(site.layer, tensor, slice(tensor.shape[1]))

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Reduce the neurons of every expert over the tokens that are routed to it."""
        count, width = mixture.weights.experts.count, mixture.weights.experts.width
        for prompt, own in enumerate(self._user_rows):
            rows = own if isinstance(own, slice) else own.to(mixture.output.device)
            found = _by_expert(mixture.routed[rows].flatten(0, 1).float(), mixture.experts[rows].reshape(-1), count)
            for name, values in found.items():
                self._out[name][layer][prompt, : count * width] = values.flatten()
        if mixture.shared is not None:
            self._reduce(layer, mixture.shared, slice(count * width, count * width + mixture.shared.shape[1]))

    def _reduce(self, layer: int, tensor: Tensor, neurons: slice) -> None:
        mean, most, least = (self._out[name][layer][:, neurons] for name in _NAMES)
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

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._out, self._user_rows = {}, ()

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer, prompt, neuron]."""
        return self._scratch.together(self._out)


def _by_expert(a: Tensor, experts: Tensor, count: int) -> dict[str, Tensor]:
    """Mean and extremes of rows of neurons [rows, width] for each expert, [expert, width]; NaN of one without rows."""
    ones = a.new_ones(len(experts), 1)
    routed = a.new_zeros(count, 1).index_add_(0, experts, ones)  # bincount would have the host wait
    empty = a.new_full((count, a.shape[1]), torch.nan)
    total = torch.zeros_like(empty).index_add_(0, experts, a)
    rows = experts[:, None].expand_as(a)
    return {
        "prompt_mean": total / routed.where(routed > 0, torch.nan),
        "prompt_max": empty.scatter_reduce(0, rows, a, "amax", include_self=False),
        "prompt_min": empty.scatter_reduce(0, rows, a, "amin", include_self=False),
    }
