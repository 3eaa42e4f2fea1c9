"""What neurons and heads are on average over the prompts, and how much neurons write."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stratoscope.probe.ablation.activity import Activity, column_norms
from stratoscope.probe.ablation.subject import Subject

_ROWS = 256  # of all neurons of a layer, at once


@dataclass(frozen=True)
class Averages:
    """Averages over the prompts; each maps a layer to float64.

    Attributes
    ----------
    neurons, heads
        Mean over all tokens but each prompt's first: of a, [neuron], of experts over the tokens that chose them and 0
        where none did; of what the heads give, [head × width].
    writes
        Mean of |a|·‖W_:,i‖ over the tokens at which is ablated, [neuron].
    """

    neurons: Mapping[int, Tensor]
    heads: Mapping[int, Tensor]
    writes: Mapping[int, Tensor]


def averages(subject: Subject, neurons: Collection[int], heads: Collection[int]) -> Averages:
    """The averages of some layers, by a forward over all prompts."""
    norms = {layer: column_norms(subject.model, subject.sites, layer).double().cpu() for layer in neurons}
    sums, counts, writes, of_heads = _Sums(), _Sums(), _Sums(), _Sums()
    tokens = ablated = 0
    with Activity(subject.model, subject.sites, neurons, heads) as activity:
        for _, batch in subject.batches("averaging over the prompts"):
            activity.run(batch)
            later, here = subject.later_rows(batch), subject.ablated_rows(batch)
            tokens, ablated = tokens + len(later), ablated + len(here)
            for layer in neurons:
                for rows in torch.split(later, _ROWS):
                    a, factor = activity.neurons(layer, rows)
                    sums.add(layer, a.double().sum(0))
                    counts.add(layer, (factor != 0).double().sum(0))
                for rows in torch.split(here, _ROWS):
                    a, factor = activity.neurons(layer, rows)
                    writes.add(layer, (a * factor).abs().double().sum(0))
            for layer in activity.heads:
                of_heads.add(layer, activity.z(layer, later).double().sum(0))
    return Averages(
        {layer: total / counts[layer].clamp(min=1) for layer, total in sums.items()},
        {layer: total / max(tokens, 1) for layer, total in of_heads.items()},
        {layer: total / ablated * norms[layer] for layer, total in writes.items()},
    )


class _Sums(dict[int, Tensor]):
    """Layer to a sum, on the host."""

    def add(self, layer: int, values: Tensor) -> None:
        self[layer] = self[layer] + values.cpu() if layer in self else values.cpu()
