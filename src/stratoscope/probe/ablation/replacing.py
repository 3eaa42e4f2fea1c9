"""What ablating sets neurons and heads to: zero, their mean over the prompts, or what they are in another prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.probe.ablation.averages import Averages
from stratoscope.probe.ablation.courses import Courses
from stratoscope.probe.ablation.members import Member
from stratoscope.recorder.effects.ablations import Ablation, Values


@dataclass(frozen=True)
class Replacing:
    """How and where is ablated.

    Attributes
    ----------
    how, everywhere
        What neurons and heads are set to, and whether at all tokens rather than at the last.
    lengths, starts
        Tokens of each prompt, and the first at which is ablated.
    averages
        For mean ablations.
    courses
        Of the neurons and heads that are asked about; for resampling, of all that are ablated.
    widths
        Layer to the number of its heads and to the width of each.
    donors
        Of each prompt, the prompts whose values it is given, draw by draw: [prompt, draw]; for resampling.
    """

    how: names.How
    everywhere: bool
    lengths: Sequence[int]
    starts: Sequence[int]
    averages: Averages
    courses: Courses
    widths: Mapping[int, tuple[int, int]]
    donors: np.ndarray

    @property
    def draws(self) -> int:
        """How often is ablated: where nothing is random, once."""
        return int(self.donors.shape[1])

    def tokens(self, prompt: int, draw: int) -> range:
        """At which tokens of a prompt is ablated."""
        length, start = self.lengths[prompt], self.starts[prompt]
        if self.how == names.RESAMPLE:  # whatever a donor has behind what is left out of it
            donor = int(self.donors[prompt, draw])
            start = max(start, length - (self.lengths[donor] - (self.starts[donor] if self.everywhere else 0)))
        return range(start, length)

    def values(self, prompt: int, member: Member, draw: int) -> Tensor:
        """What a neuron or a head is set to: [token or 1, number], float32."""
        width = 1 if member.kind == "neuron" else self.widths[member.layer][1]
        if self.how == names.ZERO:
            return torch.zeros(1, width)
        if self.how == names.RESAMPLE:
            wanted = len(self.tokens(prompt, draw))
            return self.courses[int(self.donors[prompt, draw]), member].values[-wanted:]
        if member.kind == "neuron":
            return self.averages.neurons[member.layer][[member.number]][None].float()
        return self.averages.heads[member.layer][None, member.number * width : (member.number + 1) * width].float()

    def change(self, prompt: int, member: Member, draw: int) -> Tensor:
        """What ablating takes away, own value less that: [token, number], at the tokens at which is ablated."""
        tokens = self.tokens(prompt, draw)
        return self.courses[prompt, member].values[tokens.start :] - self.values(prompt, member, draw)

    def ablation(self, prompt: int, members: Sequence[Member], draw: int) -> Ablation:
        """The ablation of some neurons and heads in a prompt; `draw` counts from 0 and goes round."""
        draw %= self.draws
        goes_on = self.everywhere and self.how != names.RESAMPLE  # at tokens of an opener too
        neurons: defaultdict[int, list[Member]] = defaultdict(list)
        heads: defaultdict[int, list[Member]] = defaultdict(list)
        for one in members:
            (neurons if one.kind == "neuron" else heads)[one.layer].append(one)
        of_heads = {layer: self._whole(prompt, layer, some, draw) for layer, some in heads.items()}
        of_neurons = {
            layer: torch.cat([self.values(prompt, one, draw) for one in some], 1) for layer, some in neurons.items()
        }
        return Ablation(
            neurons=[(one.layer, one.number) for one in members if one.kind == "neuron"],
            heads=[(one.layer, one.number) for one in members if one.kind == "head"],
            positions=slice(self.starts[prompt], None) if goes_on else self.tokens(prompt, draw),
            values=Values(
                of_neurons, of_heads, {layer: [one.number for one in some] for layer, some in neurons.items()}
            ),
        )

    def _whole(self, prompt: int, layer: int, heads: Sequence[Member], draw: int) -> Tensor:
        """Values of some heads in a row of all heads of their layer."""
        count, width = self.widths[layer]
        parts = {one.number: self.values(prompt, one, draw) for one in heads}
        some = next(iter(parts.values()))
        return torch.cat([parts.get(head, torch.zeros(len(some), width)) for head in range(count)], 1)


def chosen_donors(lengths: Sequence[int], ids: Sequence[str], *, everywhere: bool, draws: int, seed: int) -> np.ndarray:
    """Of each prompt other ones, draw by draw, [prompt, draw]: of those that reach as far back, else the longest.

    Raises
    ------
    InputError
        There is one prompt only.
    """
    if len(lengths) < 2:
        raise InputError(
            "there is no other prompt whose values it could be given",
            where=f"prompt {ids[0]}",
            fix="Give more prompts, or ablate to the mean or to zero.",
        )
    rng = np.random.default_rng(seed)
    found = np.empty((len(lengths), draws), np.int64)
    for prompt, length in enumerate(lengths):
        others = [other for other in range(len(lengths)) if other != prompt]
        needed = min(length, max(lengths[other] for other in others)) if everywhere else 1
        able = [other for other in others if lengths[other] >= needed]
        found[prompt] = rng.choice(able, draws, replace=len(able) < draws)
    return found
