"""First-order total effects of every neuron and head of a few prompts, all of them kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from stratoscope.model import sites as s
from stratoscope.model.heads import HEADS
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.effects.baseline import Baseline, written_at
from stratoscope.recorder.effects.gradients import EXPERTS, Gradients, SiteGradient, Values
from stratoscope.recorder.effects.strongest import EffectTables
from stratoscope.recorder.input.batches import Batch


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """Effects of everything in a batch, float32 on the CPU; rows are those of the flattened rectangle.

    Attributes
    ----------
    y, logits
        What is explained, [prompt, target] float64, and the model's logits at the last column.
    mlp, attn, head
        Effects of whole MLPs and attentions, [row, layer, target], and of heads, [row, layer, head, target]; NaN where
        a block has none.
    neurons, gradients
        Layer to (a − baseline)·∂y/∂a and to ∂y/∂a of every neuron, flat as on the axis `neuron`: [target, row, neuron],
        NaN of neurons of experts that were not chosen.
    activations
        Layer to a, [row, neuron].
    head_gradients, head_values
        Layer to ∂y/∂z of what heads give, [target, row, head × width], and to z, [row, head × width].
    """

    y: Tensor
    logits: Tensor
    mlp: Tensor
    attn: Tensor
    head: Tensor
    neurons: dict[int, Tensor] = field(default_factory=dict)
    gradients: dict[int, Tensor] = field(default_factory=dict)
    activations: dict[int, Tensor] = field(default_factory=dict)
    head_gradients: dict[int, Tensor] = field(default_factory=dict)
    head_values: dict[int, Tensor] = field(default_factory=dict)


def first_order(
    model: nn.Module, sites: ModelSites, batch: Batch, values: Values, baseline: Baseline | None = None
) -> FirstOrder:
    """Run a batch forward and, target by target, backward, and keep the gradients of everything.

    Parameters
    ----------
    model, sites
        The model, and its proved sites.
    batch
        The prompts; each ends in the last column.
    values
        What is explained: of logits [prompt, vocabulary] gives [prompt, target].
    baseline
        What activations are compared with; zero by default.

    Raises
    ------
    CaptureError
        The model cannot be differentiated, a gradient is not finite, or there is not enough memory.
    """
    baseline, seen = baseline or Baseline(), Gradients(model, sites)
    normed = written_at(model, sites, seen.kinds, baseline)
    kept: list[SiteGradient] = []
    y, logits = seen.run(batch, values, kept.append)
    named = [f"{number} of the batch" for number in range(len(batch.input_ids))]
    tables = EffectTables(sites, seen.heads, baseline, normed, batch, targets=y.shape[1], top_k=1, ids=named)
    found = FirstOrder(y, logits, tables.mlp, tables.attn, tables.head)
    for one in kept:
        tables.receive(one)
        gradients = found.head_gradients if one.kind == HEADS else found.gradients
        activations = found.head_values if one.kind == HEADS else found.activations
        if one.kind in (s.NEURONS, EXPERTS, HEADS):
            _keep(sites, one, gradients, activations, y.shape[1])
    for layer, gradient in found.gradients.items():
        given = baseline.values.neurons.get(layer)
        a = found.activations[layer] - (0 if given is None else given.cpu())
        found.neurons[layer] = a * gradient
    return found


def _keep(
    sites: ModelSites, one: SiteGradient, gradients: dict[int, Tensor], activations: dict[int, Tensor], targets: int
) -> None:
    """Put values and gradients in their place among all of the block."""
    width = one.value.shape[-1] if one.kind == HEADS else sites.widths[one.layer]
    if one.layer not in activations:
        activations[one.layer] = torch.full((len(one.value), width), torch.nan)
        gradients[one.layer] = torch.full((targets, len(one.value), width), torch.nan)
    value, gradient = (tensor.cpu().type_as(activations[one.layer]) for tensor in (one.value, one.gradient))
    experts = sites.layers[one.layer].experts
    if one.kind != EXPERTS or experts is None or one.experts is None:
        first = width - value.shape[1]  # a shared expert stands behind the others
        activations[one.layer][:, first:] = value
        gradients[one.layer][one.target, :, first:] = gradient
        return
    places = (one.experts.cpu()[..., None] * experts.width + torch.arange(experts.width)).flatten(1)
    activations[one.layer].scatter_(1, places, value.flatten(1))
    gradients[one.layer][one.target].scatter_(1, places, gradient.flatten(1))
