"""∂y/∂ of neurons and heads at every token, and what ablations would change to first order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.heads import HEADS
from stratoscope.probe.ablation.members import Member
from stratoscope.probe.ablation.subject import Subject
from stratoscope.recorder.effects.gradients import EXPERTS, Gradients, SiteGradient

Slopes = Mapping[tuple[int, Member], Tensor]  # of each prompt: [target, token, number], float32


def slopes(subject: Subject, members: Sequence[Member]) -> Slopes:
    """∂y/∂ of neurons and heads at every token of every prompt, by one forward and a backward a target."""
    found: dict[tuple[int, Member], Tensor] = {}
    gradients = Gradients(subject.model, subject.sites)

    def keep(seen: SiteGradient, chosen: Sequence[int], rows: Sequence[Tensor]) -> None:
        mine = [one for one in members if one.layer == seen.layer]
        for one in mine:
            gradient = _of_member(subject, gradients, seen, one)
            if gradient is None:
                continue
            for prompt, some in zip(chosen, rows, strict=True):
                empty = torch.zeros(subject.targets, len(some), gradient.shape[1])
                found.setdefault((prompt, one), empty)[seen.target] = gradient[some.to(gradient.device)].float().cpu()

    _each(subject, gradients, keep)
    return found


def strongest(subject: Subject, means: Mapping[int, Tensor] | None, count: int) -> list[Member]:
    """The neurons of largest first-order effect on the first target, on average over the prompts, of either sign.

    Parameters
    ----------
    subject
        The model and its prompts.
    means
        Layer to what neurons are on average, where they are set to that; None where to zero.
    count
        How many.
    """
    totals = {layer: torch.zeros(width, dtype=torch.float64) for layer, width in enumerate(subject.sites.widths)}
    gradients = Gradients(subject.model, subject.sites)

    def add(seen: SiteGradient, chosen: Sequence[int], rows: Sequence[Tensor]) -> None:
        if seen.target or seen.kind not in (s.NEURONS, EXPERTS):
            return
        here = torch.cat([some[subject.start(len(some)) :] for some in rows]).to(seen.value.device)
        value, gradient = seen.value[here].double(), seen.gradient[here].double()
        mean = None if means is None else means[seen.layer].to(value.device)
        experts = subject.sites.layers[seen.layer].experts
        routed = subject.sites.layers[seen.layer].expert_neurons
        if seen.experts is None:
            effect = ((value - (0 if mean is None else mean[routed:])) * gradient).sum(0)
            totals[seen.layer][routed:] += effect.cpu()
            return
        assert experts is not None
        ids = seen.experts[here]
        if mean is not None:
            value = value - mean[:routed].view(experts.count, experts.width)[ids]
        sums = torch.zeros(experts.count, experts.width, dtype=torch.float64, device=value.device)
        sums.index_add_(0, ids.reshape(-1), (value * gradient).reshape(-1, experts.width))
        totals[seen.layer][:routed] += sums.flatten().cpu()

    _each(subject, gradients, add)
    sizes = np.concatenate([totals[layer].abs().numpy() for layer in sorted(totals)])
    starts = np.cumsum([0, *(len(totals[layer]) for layer in sorted(totals))])
    order = np.argsort(-sizes, kind="stable")[:count]
    layers = np.searchsorted(starts, order, side="right") - 1
    return [Member("neuron", int(layer), int(at - starts[layer])) for at, layer in zip(order, layers, strict=True)]


Take = Callable[[SiteGradient, Sequence[int], Sequence[Tensor]], None]


def _each(subject: Subject, gradients: Gradients, take: Take) -> None:
    """Every gradient of every batch, with its prompts and the rows of their tokens."""
    for chosen, batch in subject.batches("differentiating"):
        rows = subject.rows_of(batch)

        def values(logits: Tensor, chosen: Sequence[int] = chosen) -> Tensor:
            return subject.values(logits, chosen)

        def receive(seen: SiteGradient, chosen: Sequence[int] = chosen, rows: Sequence[Tensor] = rows) -> None:
            take(seen, chosen, rows)

        gradients.run(batch, values, receive)


def _of_member(subject: Subject, gradients: Gradients, seen: SiteGradient, one: Member) -> Tensor | None:
    """∂y/∂ of a neuron or a head, [row, number]; None where this is not its place."""
    if one.kind == "head":
        heads = gradients.heads[one.layer]
        return seen.gradient[:, heads.columns(one.number)] if heads is not None and seen.kind == HEADS else None
    experts = subject.sites.layers[one.layer].experts
    routed = subject.sites.layers[one.layer].expert_neurons
    if one.number >= routed:
        return seen.gradient[:, one.number - routed, None] if seen.kind == s.NEURONS else None
    if seen.kind != EXPERTS or seen.experts is None or experts is None:
        return None
    chosen = (seen.experts == one.number // experts.width).to(seen.gradient.dtype)
    return (seen.gradient[..., one.number % experts.width] * chosen).sum(1, keepdim=True)
