"""What chosen neurons and heads are, token by token, and what a unit of each adds to the targets directly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stratoscope.model.heads import normed_behind
from stratoscope.probe.ablation.activity import Activity
from stratoscope.probe.ablation.members import Member
from stratoscope.probe.ablation.subject import Subject

_ROWS = 256  # of all neurons of a layer, at once


@dataclass(frozen=True)
class Course:
    """A neuron or a head over the tokens of one prompt.

    Attributes
    ----------
    values
        a, or what the head gives: [token, number], float32; 0 of an expert that was not chosen.
    factor
        By what the neuron's column is multiplied on its way to the output of the MLP, [token]; 1 of a head.
    direct
        What a unit of each number adds to each target at the answer position, the final norm and a norm behind the MLP
        or attention being as they are: [target, number]; NaN where such a norm is not known.
    """

    values: Tensor
    factor: Tensor
    direct: Tensor


Courses = Mapping[tuple[int, Member], Course]  # of each prompt


def courses(subject: Subject, members: Sequence[Member]) -> Courses:
    """Neurons and heads over all prompts, by a forward over these."""
    by_layer: defaultdict[int, list[Member]] = defaultdict(list)
    for one in members:
        by_layer[one.layer].append(one)
    of_neurons, of_heads = ({one.layer for one in members if one.kind == kind} for kind in ("neuron", "head"))
    found: dict[tuple[int, Member], Course] = {}
    with Activity(subject.model, subject.sites, of_neurons, of_heads) as activity:
        writes = {one: _write(subject, activity, one) for one in members}
        for chosen, batch in subject.batches("recording what is ablated"):
            activity.run(batch)
            for rows, prompt in zip(subject.rows_of(batch), chosen, strict=True):
                along = subject.directions.of(subject.token[[prompt]], subject.against[[prompt]])[0]
                along = along * subject.directions.scale(activity.last(rows[-1:])).to(along.device)
                for layer, some in by_layer.items():
                    for one, (values, factor) in _seen(activity, layer, some, rows).items():
                        write = _behind_norm(subject, activity, one, rows[-1:], writes[one]).to(along.device)
                        direct = (along @ write).cpu() * factor[-1].cpu()
                        found[prompt, one] = Course(values.cpu(), factor.cpu(), direct)
    return found


def _seen(
    activity: Activity, layer: int, members: Sequence[Member], rows: Tensor
) -> dict[Member, tuple[Tensor, Tensor]]:
    """Values, [token, number], and factors, [token], of neurons and heads of one layer."""
    found: dict[Member, tuple[Tensor, Tensor]] = {}
    neurons = [one for one in members if one.kind == "neuron"]
    if neurons:
        numbers = [one.number for one in neurons]
        parts = [activity.neurons(layer, part) for part in torch.split(rows, _ROWS)]
        values, factors = (torch.cat([one[:, numbers] for one in some]) for some in zip(*parts, strict=True))
        for place, one in enumerate(neurons):
            found[one] = values[:, place : place + 1], factors[:, place]
    for one in members:
        if one.kind == "head":
            values = activity.z(layer, rows)[:, activity.heads[layer].columns(one.number)]
            found[one] = values, values.new_ones(len(rows))
    return found


def _write(subject: Subject, activity: Activity, one: Member) -> Tensor:
    """What each number of it writes, before any norm: [residual, number], float32."""
    if one.kind == "neuron":
        return subject.sites.column(subject.model, one.layer, one.number)[:, None]
    heads, (weight, _) = activity.heads[one.layer], subject.sites.attn_weight(subject.model, one.layer)
    return weight[:, heads.columns(one.number)].float()


def _behind_norm(subject: Subject, activity: Activity, one: Member, row: Tensor, write: Tensor) -> Tensor:
    """The same as it reaches the residual stream at a token; NaN where a norm is on the way that is not known."""
    layer, maps = subject.sites.layers[one.layer], subject.sites.maps[one.layer]
    of_mlp = one.kind == "neuron"
    norm, place = (maps.mlp_post_norm, layer.mlp_write) if of_mlp else (maps.attn_post_norm, layer.attn_write)
    assert place is not None
    if norm is None:
        unknown = layer.post_norm if of_mlp else normed_behind(subject.model, subject.sites, one.layer)
        return write * (torch.nan if unknown else place.scale)
    gain, _ = norm.vectors(subject.model)
    out = activity.mlp_out(one.layer, row) if of_mlp else activity.attn_out(one.layer, row)
    through = norm.centre(write.T) * norm.scale(out)
    return (through if gain is None else through * gain).T * place.scale
