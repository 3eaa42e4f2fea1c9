"""What neurons and heads are over the prompts, and what ablating sets them to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.model.head import Norm
from stratoscope.probe.ablation.activity import Activity, column, column_norms
from stratoscope.probe.ablation.members import Member
from stratoscope.probe.ablation.subject import Subject
from stratoscope.recorder.effects.ablations import Ablation, Values

_ROWS = 256  # of all neurons of a layer, at once


@dataclass(frozen=True)
class Averages:
    """Averages over all prompts, layer to float64.

    Attributes
    ----------
    neurons, heads
        Mean over all tokens but each prompt's first: of a (of experts over the tokens that chose them), [neuron], and of
        what the heads give, [head × width].
    writes
        Mean of |a|·‖W_:,i‖ over the tokens at which is ablated, [neuron].
    """

    neurons: Mapping[int, Tensor]
    heads: Mapping[int, Tensor]
    writes: Mapping[int, Tensor]


def averages(subject: Subject, neurons: Collection[int], heads: Collection[int]) -> Averages:
    """The averages of some layers, by one forward over all prompts."""
    model, sites = subject.model, subject.sites
    sums: dict[int, Tensor] = {}
    counts: dict[int, Tensor] = {}
    writes: dict[int, Tensor] = {}
    of_heads: dict[int, Tensor] = {}
    norms = {layer: column_norms(model, sites, layer).double().cpu() for layer in neurons}
    tokens = ablated = 0
    with Activity(model, sites, neurons, heads) as activity:
        for chosen, batch in subject.batches("averaging over the prompts"):
            activity.run(batch)
            later, here = subject.later_rows(chosen, batch), subject.ablated_rows(chosen, batch)
            tokens, ablated = tokens + len(later), ablated + len(here)
            for layer in neurons:
                for rows in later.split(_ROWS):
                    a, factor = activity.neurons(layer, rows)
                    _add(sums, layer, a.double().sum(0).cpu())
                    _add(counts, layer, (factor != 0).sum(0).double().cpu())
                for rows in here.split(_ROWS):
                    a, factor = activity.neurons(layer, rows)
                    _add(writes, layer, (a * factor).abs().double().sum(0).cpu() * norms[layer])
            for layer in activity.heads:
                _add(of_heads, layer, activity.z(layer, later).double().sum(0).cpu())
    return Averages(
        {layer: sums[layer] / counts[layer].clamp(min=1) for layer in sums},
        {layer: of_heads[layer] / tokens for layer in of_heads},
        {layer: writes[layer] / max(ablated, 1) for layer in writes},
    )


def _add(sums: dict[int, Tensor], layer: int, values: Tensor) -> None:
    sums[layer] = sums[layer] + values if layer in sums else values


# --- token by token ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """A neuron or a head over the tokens of one prompt.

    Attributes
    ----------
    values
        a, or what the head gives: [token, number], float32; of an expert that was not chosen 0.
    factor
        By what the neuron's column is multiplied on its way to the output of the MLP, [token]; of a head 1.
    direct
        What a unit adds to each target at the answer position with the final norm and a norm behind the MLP or
        attention as they are: [target, number], float64; NaN where such a norm is not known.
    """

    values: Tensor
    factor: Tensor
    direct: Tensor


Courses = dict[tuple[int, Member], Course]  # by prompt


def courses(subject: Subject, members: Sequence[Member]) -> Courses:
    """Some neurons and heads over all prompts, by one forward over these."""
    model, sites = subject.model, subject.sites
    by_layer = _by_layer(members)
    neurons = {layer for kind, layer in by_layer if kind == "neuron"}
    heads = {layer for kind, layer in by_layer if kind == "head"}
    written = {one: _written(subject, one) for one in members}
    found: Courses = {}
    with Activity(model, sites, neurons, heads) as activity:
        for chosen, batch in subject.batches("recording what is ablated"):
            activity.run(batch)
            length = batch.input_ids.shape[1]
            for row, prompt in enumerate(chosen):
                last = torch.tensor([(row + 1) * length - 1], device=batch.input_ids.device)
                rows = torch.arange((row + 1) * length - len(subject.tokens[prompt].ids), (row + 1) * length)
                along = subject.directions.of(subject.token[[prompt]], subject.against[[prompt]])[0]
                along = along * subject.directions.scale(activity.last(last))[0]
                for (kind, layer), some in by_layer.items():
                    a, factor, out = _seen(activity, kind, layer, rows.to(last.device), last)
                    norm = _post_norm(subject, kind, layer)
                    for one in some:
                        columns = _columns(activity, one)
                        own = factor[:, columns][:, 0]
                        writes = None if isinstance(norm, str) else _through(norm, subject, out, written[one])
                        direct = _along(along, writes, written[one].shape[1]) * (own[-1] if kind == "neuron" else 1)
                        found[prompt, one] = Course(a[:, columns].cpu(), own.cpu(), direct.cpu())
    return found


def _by_layer(members: Sequence[Member]) -> dict[tuple[str, int], list[Member]]:
    found: defaultdict[tuple[str, int], list[Member]] = defaultdict(list)
    for one in members:
        found[one.kind, one.layer].append(one)
    return dict(found)
