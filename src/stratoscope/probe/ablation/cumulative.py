"""Neurons and heads ablated one after the other, the strongest first or in random orders, and all but these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stratoscope.probe.ablation.measure import measured
from stratoscope.probe.ablation.members import Member
from stratoscope.probe.ablation.replacing import Replacing
from stratoscope.probe.ablation.subject import Subject
from stratoscope.progress import Progress
from stratoscope.recorder.effects.ablations import Ablation
from stratoscope.trace.arrays import Floats

_MOST_STEPS = 12  # of one order
_BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Curves:
    """What the targets become as more and more is ablated.

    Attributes
    ----------
    steps
        How many are taken at each step, from 0 to all.
    orders
        In which order they are taken.
    removed, kept
        The targets when those that are taken are ablated, and when all the others are: [order, step, prompt, target];
        order 0 is the strongest first.
    """

    steps: tuple[int, ...]
    orders: tuple[tuple[Member, ...], ...]
    removed: Floats
    kept: Floats

    @property
    def completeness(self) -> Floats:
        """Of the change that ablating all makes, the share that is left when the taken are ablated."""
        return _share(self.removed.mean(2), self.removed)

    @property
    def faithfulness(self) -> Floats:
        """Of the change that ablating all makes, the share that the taken bring back by themselves."""
        return _share(self.kept.mean(2), self.removed)


def _share(values: Floats, removed: Floats) -> Floats:
    """(value − all ablated) / (nothing ablated − all ablated), of means over prompts: [order, step, target]."""
    means = removed.mean(2)
    full, none = means[:1, :1], means[:1, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        share: Floats = (values - none) / (full - none)
    return share


def steps_of(count: int) -> tuple[int, ...]:
    """How many are taken at each step: every number where they are few, else such that each is about 1.4 × the last."""
    if count < _MOST_STEPS:
        return tuple(range(count + 1))
    return tuple(sorted({0, *(round(one) for one in np.geomspace(1, count, _MOST_STEPS))}))


def curves(
    subject: Subject, replacing: Replacing, members: Sequence[Member], *, orders: int, seed: int, progress: Progress
) -> Curves:
    """Ablate members one after the other.

    Parameters
    ----------
    subject, replacing
        The model and its prompts; how is ablated.
    members
        The strongest first.
    orders, seed
        How many random orders, and of which seed.
    progress
        Called with (stage, done, total).
    """
    rng = np.random.default_rng(seed)
    steps = steps_of(len(members))
    every = [[*range(len(members))], *(rng.permutation(len(members)).tolist() for _ in range(orders))]
    shape = (len(every), len(steps), len(subject.tokens), subject.targets)
    removed, kept = np.empty(shape), np.empty(shape)
    for prompt in range(len(subject.tokens)):
        progress("ablating one after the other", prompt, len(subject.tokens))
        rows: list[Ablation] = []
        for number, order in enumerate(every):
            for draw in _draws(number, replacing):
                for step in steps:
                    both = ([members[place] for place in some] for some in (order[:step], order[step:]))
                    rows += [replacing.ablation(prompt, some, draw) for some in both]
        values = measured(subject, prompt, rows)[:, : subject.targets].reshape(-1, len(steps), 2, subject.targets)
        first = 0
        for number in range(len(every)):
            mine = values[first : first + len(_draws(number, replacing))].mean(0)
            removed[number, :, prompt], kept[number, :, prompt] = mine[:, 0], mine[:, 1]
            first += len(_draws(number, replacing))
    progress("ablating one after the other", len(subject.tokens), len(subject.tokens))
    return Curves(steps, tuple(tuple(members[place] for place in order) for order in every), removed, kept)


def _draws(number: int, replacing: Replacing) -> range:
    """Which draws an order is measured with: the strongest first with all of them, a random one with one of its own."""
    return range(replacing.draws) if number == 0 else range(number - 1, number)


def bootstrapped(found: Curves, seed: int) -> tuple[Floats, Floats]:
    """95 % intervals over prompts of faithfulness and completeness, strongest first: [low or high, step, target]."""
    rng, prompts = np.random.default_rng(seed), found.removed.shape[2]
    drawn = rng.integers(0, prompts, (_BOOTSTRAPS, prompts))
    ends = []
    for values in (found.kept[0], found.removed[0]):
        means, removed = values[:, drawn].mean(2), found.removed[0][:, drawn].mean(2)  # [step, bootstrap, target]
        full, none = removed[:1], removed[-1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (means - none) / (full - none)
        ends.append(np.quantile(share, (0.025, 0.975), axis=1))
    return ends[0], ends[1]
