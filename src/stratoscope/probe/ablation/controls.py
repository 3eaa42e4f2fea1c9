"""What a set of neurons and heads is compared with: random ones like them, and random directions of equal norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model.sites import ModelSites
from stratoscope.probe.ablation.members import Member
from stratoscope.probe.ablation.replacing import Replacing
from stratoscope.recorder.effects.ablations import Ablation

LEAST_RATIO = 0.5  # of two write norms: a neuron that writes less than half as much, or twice as much, is no match


@dataclass(frozen=True)
class Matched:
    """Random sets like a set of neurons and heads.

    Attributes
    ----------
    sets
        Each holds for every neuron another of its layer that writes about as much, for every head another of its layer.
    ratios
        Of each set the worst ratio of two write norms, the smaller through the larger; 1 without neurons.
    best
        The best ratio that a set could reach, where there is none: why.
    """

    sets: tuple[tuple[Member, ...], ...]
    ratios: tuple[float, ...]
    best: float


def matched(
    members: Sequence[Member],
    taken: Sequence[Member],
    writes: Mapping[int, Tensor],
    heads: Mapping[int, int],
    draws: int,
    rng: np.random.Generator,
) -> Matched:
    """Random sets like a set.

    Parameters
    ----------
    members
        The set.
    taken
        What may not be in a random set: everything that is asked about.
    writes
        Layer to the mean write norm of each neuron.
    heads
        Layer to its number of heads.
    draws
        How many sets, at most.
    """
    pools: list[list[tuple[Member, float]]] = []
    for one in members:
        pool = _others(one, taken, writes, heads)
        good = [other for other in pool if other[1] >= LEAST_RATIO][:draws]
        if not good:
            return Matched((), (), max((ratio for _, ratio in pool), default=0.0))
        pools.append([good[place] for place in rng.permutation(len(good))])
    sets: dict[tuple[Member, ...], float] = {}
    for draw in range(draws):
        chosen: list[tuple[Member, float]] = []
        for pool in pools:
            used = {other for other, _ in chosen}
            free = [
                other
                for other in (pool[(draw + step) % len(pool)] for step in range(len(pool)))
                if other[0] not in used
            ]
            if not free:
                return Matched((), (), 0.0)
            chosen.append(free[0])
        sets.setdefault(tuple(other for other, _ in chosen), min(ratio for _, ratio in chosen))
    return Matched(tuple(sets), tuple(sets.values()), max(sets.values()))


def _others(
    one: Member, taken: Sequence[Member], writes: Mapping[int, Tensor], heads: Mapping[int, int]
) -> list[tuple[Member, float]]:
    """Others of its kind and layer with the ratio of their write norms, the nearest first."""
    if one.kind == "head":
        rest = (Member("head", one.layer, number) for number in range(heads[one.layer]))
        return [(other, 1.0) for other in rest if other not in taken]
    norms = writes[one.layer].numpy()
    own = norms[one.number]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(own > 0, np.minimum(norms, own) / np.maximum(norms, own), 0.0)
    ratios[[other.number for other in (*taken, one) if other.kind == "neuron" and other.layer == one.layer]] = -1
    order = np.argsort(-ratios, kind="stable")
    return [(Member("neuron", one.layer, int(at)), float(ratios[at])) for at in order[:64] if ratios[at] >= 0]


def random_direction(
    replacing: Replacing,
    model: nn.Module,
    sites: ModelSites,
    prompt: int,
    neurons: Sequence[Member],
    draw: int,
    rng: np.random.Generator,
) -> Ablation:
    """In place of each neuron's ablation, a change of equal norm at every token, along a random direction.

    It is added to what the MLP of the neuron's layer gives.
    """
    draw %= replacing.draws
    tokens = replacing.tokens(prompt, draw)
    added: dict[int, Tensor] = {}
    for one in neurons:
        direction = torch.from_numpy(rng.standard_normal(sites.d_model)).float()
        direction *= torch.linalg.vector_norm(sites.column(model, one.layer, one.number)).cpu() / direction.norm()
        factor = replacing.courses[prompt, one].factor[tokens.start :, None]
        change = replacing.change(prompt, one, draw) * factor * direction
        added[one.layer] = added[one.layer] - change if one.layer in added else -change
    return Ablation(positions=tokens, added=added)
