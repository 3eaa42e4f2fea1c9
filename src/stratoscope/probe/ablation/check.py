"""Whether the model has the neurons and heads that are named."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from stratoscope.errors import InputError
from stratoscope.model.heads import heads_of
from stratoscope.model.sites import LayerSites, ModelSites
from stratoscope.probe.ablation.members import Member
from stratoscope.words import counted, number_ranges


def refuse_missing(members: Sequence[Member], model: nn.Module, sites: ModelSites) -> None:
    """Refuse the first neuron or head that the model does not have, with what it has.

    Raises
    ------
    InputError
        A layer or a number is out of range, or a number counts within an expert.
    """
    for one in members:
        where = f"{one.kind} {one.layer}:{one.number}"
        if one.layer >= len(sites.layers):
            what = f"the model has no layer {one.layer}"
            raise InputError(what, where=where, fix=f"Its layers are 0-{len(sites.layers) - 1}.")
        if one.kind == "head":
            _check_head(one, model, sites, where)
        else:
            _check_neuron(one, sites, where)


def _check_head(one: Member, model: nn.Module, sites: ModelSites, where: str) -> None:
    heads = heads_of(model, sites, one.layer)
    if heads is None:
        there = [layer for layer in range(len(sites.layers)) if heads_of(model, sites, layer) is not None]
        fix = f"Layers with heads are {number_ranges(there)}." if there else "Name neurons."
        raise InputError(f"layer {one.layer} has no attention heads that are known", where=where, fix=fix)
    if one.number >= heads.count:
        raise InputError(f"layer {one.layer} has {counted(heads.count, 'head')}", where=where,
                         fix=f"They are 0-{heads.count - 1}.")  # fmt: skip


def _check_neuron(one: Member, sites: ModelSites, where: str) -> None:
    width, layer = sites.widths[one.layer], sites.layers[one.layer]
    if not width:
        there = [number for number, neurons in enumerate(sites.widths) if neurons]
        fix = f"Layers with an MLP are {number_ranges(there)}." if there else "Name heads."
        raise InputError(f"layer {one.layer} has no MLP, so no neurons", where=where, fix=fix)
    if one.expert >= 0:
        where = f"neuron {one.layer}:{one.expert}:{one.number}"
        raise InputError(
            "neurons of a mixture of experts are numbered through, and this is a number within an expert"
            if layer.experts
            else f"layer {one.layer} has no experts",
            where=where,
            fix=_numbered(one, layer, width),
        )
    if one.number >= width:
        fix = f"They are {_ranges(layer, width)}."
        raise InputError(f"layer {one.layer} has {counted(width, 'neuron')}", where=where, fix=fix)


def _numbered(one: Member, layer: LayerSites, width: int) -> str:
    """The flat number of a neuron of an expert, and how it is found."""
    experts = layer.experts
    if experts is None:
        return f"Write {one.layer}:{one.number}."
    if one.expert >= experts.count or one.number >= experts.width:
        return f"Its experts are 0-{experts.count - 1}, with neurons 0-{experts.width - 1} each."
    flat = one.expert * experts.width + one.number
    return f"Write {one.layer}:{flat}, which is {one.expert} × {experts.width} + {one.number}."


def _ranges(layer: LayerSites, width: int) -> str:
    experts = layer.experts
    if experts is None:
        return f"0-{width - 1}"
    routed = layer.expert_neurons
    of_experts = f"0-{routed - 1}, neuron i of expert e at e × {experts.width} + i"
    return of_experts + (f"; {routed}-{width - 1} of the shared expert" if width > routed else "")
